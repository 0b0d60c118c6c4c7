"""JSON lists, as ShareGPT-like sets are: every element is a row, however the list is written."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import InputConfig
from pipeline.formats import compressed
from pipeline.formats.json_array import ElementSplitter
from pipeline.plan import make_plan
from tests.pipeline.reading import prepared, told

ROWS = [
    {"id": 1, "prompt": 'a [ { , "'},
    {"id": 2, "prompt": "b\\"},
    {"id": 3, "prompt": "é\n你", "more": [{"x": [1, 2]}, {}]},
]
TEXTS = [row["prompt"] for row in ROWS]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        json.dumps(ROWS, indent="\t", ensure_ascii=False) + "\n\n",
        "\ufeff \r\n" + json.dumps(ROWS, separators=(",", ":")),
    ],
    ids=["one line", "pretty", "tabs", "byte order mark"],
)
@pytest.mark.parametrize("rows_per_shard", [1, 2, 16])
def test_every_element_is_a_row(text: str, rows_per_shard: int, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    rows = prepared(tmp_path / "a.json", rows_per_shard=rows_per_shard)
    assert told(rows) == TEXTS
    assert [row["carried"]["id"] for row in rows] == [1, 2, 3]
    assert rows[2]["carried"]["more"] == [{"x": [1, 2]}, {"x": None}]


def test_a_compressed_list_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(json.dumps(ROWS).encode()))
    assert told(prepared(tmp_path / "a.json.gz", rows_per_shard=2)) == TEXTS


def test_a_json_file_of_lines_is_read_as_lines(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert told(prepared(tmp_path / "a.json")) == TEXTS


def test_the_first_rows_of_a_list_can_be_read_alone(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    assert told(prepared(tmp_path / "a.json", limit=2)) == TEXTS[:2]


@pytest.mark.parametrize("text", ["[]", " [\n]\n", "\ufeff[ ]"])
def test_an_empty_list_has_no_rows(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    (tmp_path / "b.json").write_text('[{"prompt": "x"}]')
    assert told(prepared(tmp_path)) == ["x"]


def test_an_element_that_is_no_row_is_a_row_with_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"prompt": "x"}, 5, ["a", "b"], {prompt: 1}, {"prompt": "y"} 7]')
    assert told(prepared(tmp_path / "a.json")) == [
        "x",
        "the element is a JSON int; it must be an object with named fields",
        "the element is a JSON list; it must be an object with named fields",
        "the element is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 "
        "(char 1); fix it",
        "the element has ' 7]' behind it; fix it",
    ]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('[{"prompt": "x"}, {"prompt": "y"', "at the end 2 brackets are open"),
        ('[{"prompt": "x"}, {"prompt": "y', "at the end inside of a text"),
        ('[{"prompt": "x"},', "at the end 1 brackets are open"),
    ],
)
@pytest.mark.parametrize("chunk", [7, 8 << 20])
def test_a_list_that_is_cut_off_is_refused_by_the_plan(
    text: str, error: str, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compressed, "CHUNK", chunk)
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=f"a.json: .*{error}.*; write the file again"):
        make_plan(InputConfig(path=str(tmp_path / "a.json")), 1)


@pytest.mark.parametrize(
    ("rest", "shown"),
    [
        (' [{"prompt": "y"}]', """ '[{"prompt": "y"}]'"""),
        ('\n{"prompt": "y"}\n', """ '{"prompt": "y"}'"""),
        ("  garbage", " 'garbage'"),
        ('"', " '\"'"),
        ("]", " ']'"),
        ("\0\0", r" '\x00\x00'"),
        (", " + "z" * 99, f" ', {'z' * 54}..."),
    ],
)
@pytest.mark.parametrize("chunk", [1, 17, 8 << 20])  # 17 is the length of the list
def test_what_stands_behind_a_list_is_refused_by_the_plan(
    rest: str, shown: str, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compressed, "CHUNK", chunk)
    (tmp_path / "a.json").write_text('[{"prompt": "x"}]' + rest)
    if chunk < 99:
        shown = shown[:3]  # no more of it is known yet
    with pytest.raises(ValueError) as caught:
        make_plan(InputConfig(path=str(tmp_path / "a.json")), 1)
    assert "a.json: behind the end of its list, at byte " in str(caught.value)
    assert f" stands{shown}" in str(caught.value)
    assert str(caught.value).endswith(
        "; write the file again, or, if its lines are the rows, set input.format: jsonl"
    )


def test_white_space_behind_a_list_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "CHUNK", 8)
    (tmp_path / "a.json").write_text('[{"prompt": "x"}]' + " \r\n\t" * 30)
    assert told(prepared(tmp_path / "a.json")) == ["x"]


def test_lines_that_begin_with_a_list_are_read_where_the_format_is_given(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[1, 2]\n{"prompt": "y"}\n')
    assert told(prepared(tmp_path / "a.json", format="jsonl")) == [
        "the line is a JSON list; it must be an object with named fields",
        "y",
    ]


@pytest.mark.parametrize("text", [json.dumps(ROWS), "".join(json.dumps(row) + "\n" for row in ROWS)])
def test_an_archive_that_is_cut_off_is_refused_with_its_place_and_the_remedy(
    text: str, tmp_path: Path
) -> None:
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(text.encode())[:-20])
    with pytest.raises(
        ValueError, match=r"a.json.gz cannot be read to its end: gzip stops after row .*: write"
    ):
        make_plan(InputConfig(path=str(tmp_path / "a.json.gz")), 1)


def test_an_empty_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json.gz").write_bytes(b"")
    with pytest.raises(
        ValueError, match="a.json.gz is empty, which no gzip file is; write it again or remove"
    ):
        make_plan(InputConfig(path=str(tmp_path / "a.json.gz")), 1)


def test_a_list_may_begin_after_much_white_space(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("\n" * 200_000 + json.dumps(ROWS))
    assert told(prepared(tmp_path / "a.json")) == TEXTS


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("a.json", '[{"prompt": "x"} {"prompt": "y"}]', """the element has ' {"prompt": "y"}]' behind it"""),
        ("a.json", '[\n{"prompt": "x"}\n{"prompt": "y"}\n]', "the element has '\\n"),
        ("a.json", '{\n  "prompt": "x"\n}\n', "the line is not JSON: Expecting property name"),
        ("a.jsonl", "# comment\nnothing\n", "the line is not JSON: Expecting value"),
        ("a.json", "[5, null]", "the element is a JSON int"),
    ],
)
def test_where_no_row_can_be_read_the_plan_says_why_and_not_that_columns_lack(
    name: str, text: str, error: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError) as caught:
        prepared(tmp_path / name)
    assert f"none of the first rows of {tmp_path / name} can be read: {error}" in str(caught.value)


def test_descriptions_beside_other_files_are_no_data(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text('{"description": "no row"}')
    (tmp_path / "a.jsonl").write_text('{"prompt": "x"}\n')
    assert told(prepared(tmp_path)) == ["x"]


VALUES = st.recursive(
    st.none() | st.integers(-5, 5) | st.text(st.sampled_from('a"\\[]{},: \n'), max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(VALUES, min_size=1, max_size=5), st.data())
def test_rows_end_at_the_commas_between_elements_however_the_text_is_cut(
    values: list[Any], data: st.DataObject
) -> None:
    texts = [json.dumps(value, indent=data.draw(st.sampled_from([None, 1]))) for value in values]
    text = ("[" + ",".join(texts) + "]").encode()
    wanted = np.cumsum([1 + len(part.encode()) for part in texts[:-1]]) + 1
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)))))
    splitter = ElementSplitter()
    chunks = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    found = np.concatenate([*(splitter.feed(chunk) for chunk in chunks), splitter.finish()])
    assert found.tolist() == wanted.tolist()
