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
        ('[{"prompt": "x"}] [{"prompt": "y"}]', "something stands behind the end of the list"),
    ],
)
def test_a_list_that_is_cut_off_or_goes_on_is_refused_by_the_plan(
    text: str, error: str, tmp_path: Path
) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=f"a.json: .*{error}.*; write the file again"):
        make_plan(InputConfig(path=str(tmp_path / "a.json")), 1)


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
