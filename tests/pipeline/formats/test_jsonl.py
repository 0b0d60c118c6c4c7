"""JSON lines: where rows begin and end, and what bad lines become."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.formats import lines
from pipeline.formats.jsonl import parse_object
from pipeline.formats.lines import BadRow, NewlineSplitter, split


def scan(data: bytes, stride: int = 2, limit: int | None = None, chunk: int = 100) -> tuple[int, list[int]]:
    stream = io.BytesIO(data)
    found = lines.scan(iter(lambda: stream.read(chunk), b""), NewlineSplitter(), stride, limit)
    return found.num_rows, found.cuts


def parsed(line: bytes, first: bool = False) -> object:
    try:
        return parse_object(line, first)
    except BadRow as error:
        return str(error)


def test_every_second_row_and_the_end_are_found() -> None:
    assert scan(b"a\nb\nc") == (3, [0, 4, 5])


def test_a_final_newline_does_not_begin_a_row_and_an_empty_line_is_one() -> None:
    assert scan(b"a\nb\n") == (2, [0, 4])
    assert scan(b"a\n\n", stride=1) == (2, [0, 2, 3])
    assert scan(b"\n") == (1, [0, 1])
    assert scan(b"") == (0, [0])


def test_the_limit_ends_the_scan_behind_its_last_row() -> None:
    assert scan(b"a\nb\nc\nd\n", limit=3) == (3, [0, 4, 6])
    assert scan(b"a\nb\nc\nd\n", limit=2) == (2, [0, 4])
    assert scan(b"a\nb", limit=2) == (2, [0, 3])


@given(
    data=st.lists(st.sampled_from([b"\n", b"x", b"\xe2\x80\xa8", b"\r", b"\0"])).map(b"".join),
    stride=st.integers(1, 4),
    chunk=st.integers(1, 5),
)
def test_cut_anywhere_read_in_any_chunks_the_lines_are_those_of_the_whole_file(
    data: bytes, stride: int, chunk: int
) -> None:
    whole = data.split(b"\n")[: -1 if data.endswith(b"\n") or not data else None]
    rows, starts = scan(data, stride, chunk=chunk)
    pieces = [
        [(start + offset, line) for offset, line in split(data[start:end], NewlineSplitter())]
        for start, end in zip(starts, starts[1:], strict=False)
        if start < end
    ]
    assert rows == len(whole)
    assert [line for piece in pieces for _, line in piece] == whole
    assert all(len(piece) == stride for piece in pieces[:-1])
    assert all(data[offset : offset + len(line)] == line for piece in pieces for offset, line in piece)


def test_lines_end_at_newlines_only_not_at_u2028_nor_at_a_carriage_return() -> None:
    data = '{"a": "x\u2028y"}\r\n{"a": "\x85"}\n'.encode()
    assert [parsed(line) for _, line in split(data, NewlineSplitter())] == [{"a": "x\u2028y"}, {"a": "\x85"}]


def test_only_the_first_line_may_begin_with_a_byte_order_mark() -> None:
    line = b'\xef\xbb\xbf{"a": 1}'
    assert parsed(line, first=True) == {"a": 1}
    assert "not JSON" in str(parsed(line))


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"", "the line is empty; remove it or give it a JSON object"),
        (b" \r", "the line is empty; remove it or give it a JSON object"),
        (b"\0\0\0", "the line is 3 NUL bytes, as a torn write leaves them; write the file again"),
        (b'{"a": 1', "the line is not JSON: Expecting ',' delimiter: line 1 column 8 (char 7); fix the row"),
        (b'{"a": "\xff"}', "the line is not UTF-8: invalid start byte at its byte 7; fix the row"),
        (b"[1, 2]", "the line is a JSON list; it must be an object with named fields"),
        (b"7", "the line is a JSON int; it must be an object with named fields"),
    ],
)
def test_a_line_that_is_no_row_says_what_it_is(line: bytes, error: str) -> None:
    assert parsed(line) == error


def test_nesting_beyond_the_parsers_depth_is_an_error_of_the_row() -> None:
    assert "nested deeper than 50 levels" in str(parsed(b"[" * 200_000))
