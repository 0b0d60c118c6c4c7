"""CSV: where rows end among quotes, what a hostile file becomes, and that every row of it comes out."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import InputConfig
from pipeline.formats.csv import QuoteSplitter, parse_fields
from pipeline.formats.lines import BadFile, BadRow, scan, split
from pipeline.plan import make_plan
from tests.pipeline.reading import prepared, told

HOSTILE = (
    b"\xef\xbb\xbfid,prompt,note\r\n"
    b'007,"two\nlines, one field","says ""hi"""\r\n'
    b"8,plain,\r\n"
    b"9,too few\r\n"
    b"10,too,many,fields\r\n"
    b'12,"closed" too early,x\r\n'
    b"\r\n"
    b"14,\xff,x\r\n"
    b"15,,x\r\n"
    b"\0\0\0\0\r\n"
    b'16,last,"no newline"'
)


def test_a_hostile_file_loses_no_row_and_spoils_no_neighbour(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(HOSTILE)
    rows = prepared(tmp_path / "a.csv", rows_per_shard=2)
    assert told(rows) == [
        "two\nlines, one field",
        "plain",
        "the row has 2 fields, but there are 3 columns; fix its commas and quotes",
        "the row has 4 fields, but there are 3 columns; fix its commas and quotes",
        "the row is not CSV: ',' expected after '\"'; fix its quotes",
        "the line is empty; remove it or give it fields",
        "the line is not UTF-8: invalid start byte at its byte 3; fix the row",
        "the prompt is empty; give it at least one token",
        "the row has 1 fields, but there are 3 columns; fix its commas and quotes",
        "last",
    ]
    assert rows[0]["carried"] == {"id": "007", "prompt": "two\nlines, one field", "note": 'says "hi"'}
    assert [row["carried"]["id"] for row in rows] == [
        "007",
        "8",
        None,
        None,
        None,
        None,
        None,
        "15",
        None,
        "16",
    ]


def test_rows_and_seeds_are_the_same_however_the_file_is_cut(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(HOSTILE)
    cuts = [prepared(tmp_path / "a.csv", rows_per_shard=size) for size in (1, 3, 100)]
    assert cuts[0] == cuts[1] == cuts[2]
    assert len({row["seed"] for row in cuts[0]}) == 10


def ends(data: bytes, chunk: int = 1 << 20) -> list[bytes]:
    """The rows of a whole file, read in chunks."""
    chunks = [data[start : start + chunk] for start in range(0, len(data), chunk)]
    found = scan(chunks, QuoteSplitter(), 1, None)
    assert found.num_rows == len(found.cuts) - 1
    return [data[start:end] for start, end in zip(found.cuts, found.cuts[1:], strict=False)]


@given(
    data=st.lists(st.sampled_from([b'"', b'"', b",", b"\n", b"\r\n", b"x"]), max_size=40).map(b"".join),
    chunk=st.integers(1, 7),
)
def test_the_rows_do_not_depend_on_chunks_and_a_run_of_rows_splits_as_in_its_file(
    data: bytes, chunk: int
) -> None:
    try:
        rows = ends(data)
    except BadFile as error:
        with pytest.raises(BadFile) as caught:
            ends(data, chunk)
        assert str(caught.value) == str(error)
        return
    assert b"".join(rows) == data
    assert ends(data, chunk) == rows
    for first in range(len(rows)):
        part = b"".join(rows[first : first + 2])
        assert [line for _, line in split(part, QuoteSplitter())] == [
            row.removesuffix(b"\n") for row in rows[first : first + 2]
        ]


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b'id,prompt\n1,"never closed\n2,b\n', 2),
        (b'id,prompt\n1,"two\nlines"\n2,5" pipe\n3,c\n', 4),
        (b'id,prompt\n1,a\n2,5" and 6" pipes\n', 3),
    ],
)
def test_a_file_with_unbalanced_quotes_is_refused_by_line(tmp_path: Path, data: bytes, line: int) -> None:
    (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(ValueError, match=rf"a.csv: line {line} has a quote that neither opens nor closes"):
        make_plan(InputConfig(path=str(tmp_path / "a.csv")), num_workers=1)
    for chunk in range(1, 9):
        with pytest.raises(BadFile, match=f"line {line} has a quote"):
            ends(data, chunk)


@given(
    table=st.lists(
        st.lists(st.text(st.sampled_from('a,"\n é'), max_size=5), min_size=2, max_size=2),
        min_size=1,
        max_size=6,
    ),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_what_pythons_writer_writes_is_read_back(table: list[list[str]], end: str) -> None:
    sink = io.StringIO(newline="")
    csv.writer(sink, lineterminator=end).writerows(table)
    assert [parse_fields(row, False) for _, row in split(sink.getvalue().encode(), QuoteSplitter())] == table


def test_settings_and_chats_are_json_in_their_cells(tmp_path: Path) -> None:
    chat = '[{""role"": ""user"", ""content"": ""hi""}]'
    (tmp_path / "a.csv").write_text(
        f'chat,sampling\n"{chat}","{{""top_k"": 3}}"\n"{chat}",\n"{chat}",{{top_k: 3}}\n'
        f'"{chat}","{{""top_k"": -1}}"\n,\n'
    )
    rows = prepared(tmp_path / "a.csv", messages_column="chat")
    assert [bytes(row["token_ids"]) for row in rows] == [b"\x01<user>hi", b"\x01<user>hi", b"", b"", b""]
    assert [row["sampling"] for row in rows[:2]] == ['{"top_k": 3}', "{}"]
    assert [row["error"] for row in rows[2:]] == [
        "column 'sampling' must hold JSON: Expecting property name enclosed in double quotes: line 1 column "
        "2 (char 1); fix the row",
        "sampling.top_k is -1; it must be an integer of at least 0 (0 = off)",
        "column 'chat' is null; it must be a list of messages, each with role and content",
    ]


def test_a_file_without_a_header_needs_names(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,hello\n2,world\n")
    with pytest.raises(ValueError, match=r"input.prompt_column is 'prompt', but .* it has '1', 'hello'"):
        prepared(tmp_path / "a.csv")
    assert told(prepared(tmp_path / "a.csv", csv_columns=["id", "prompt"])) == ["hello", "world"]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"prompt,prompt\na,b\n", r"a.csv has two columns of one name: \['prompt', 'prompt'\]; rename one"),
        (
            "prompt\na\n".encode("utf-16"),
            r"a.csv: the header, which is its first row, cannot be read: the line is not UTF-8",
        ),
        (b'"prompt\na\n', r"a.csv.*line 1 has a quote that neither opens nor closes a field"),
        (b"prompt\n", "holds no rows"),
    ],
)
def test_a_header_that_cannot_be_used_is_refused_by_name(tmp_path: Path, data: bytes, error: str) -> None:
    (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(ValueError, match=error):
        make_plan(InputConfig(path=str(tmp_path / "a.csv")), 1)


def test_an_empty_row_is_bad_and_not_the_end() -> None:
    with pytest.raises(BadRow, match="the line is empty"):
        parse_fields(b"\r", False)
