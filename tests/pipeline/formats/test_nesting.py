"""Values that are nested too deeply are errors of their rows, in every format that has nested values."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.pipeline.reading import prepared, told


@pytest.mark.parametrize("depth", [60, 300, 900])
@pytest.mark.parametrize("column", ["chat", "tools", "sampling", "other"])
def test_a_value_that_is_nested_too_deeply_is_an_error_of_its_row(
    tmp_path: Path, column: str, depth: int
) -> None:
    """Arrow's files take 64 levels, and Python's own recursion ends somewhere else on every machine."""
    good = json.dumps({"chat": [{"role": "user", "content": "x"}]})
    bad = f'{{"chat": [{{"role": "user", "content": "x"}}], "{column}": {"[" * depth}{"]" * depth}}}'
    (tmp_path / "a.jsonl").write_text(f"{bad}\n{good}\n")
    (tmp_path / "b.json").write_text(f"[{bad},{good}]")
    for name, what in (("a.jsonl", "line"), ("b.json", "element")):
        assert told(prepared(tmp_path / name, messages_column="chat")) == [
            f"the {what} is nested deeper than 50 levels; fix the row",
            "\x01<user>x",
        ]


def test_a_cell_of_csv_that_is_nested_too_deeply_is_an_error_of_its_row(tmp_path: Path) -> None:
    chat = '"[{""role"": ""user"", ""content"": ""x""}]"'
    (tmp_path / "a.csv").write_text(f"chat,tools\n{chat},{'[' * 60}{']' * 60}\n{chat},\n")
    assert told(prepared(tmp_path / "a.csv", messages_column="chat")) == [
        "column 'tools' is nested deeper than 50 levels; fix the row",
        "\x01<user>x",
    ]


@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"a":', "}")])
def test_fifty_levels_are_read_and_brackets_in_a_text_count_for_nothing(
    tmp_path: Path, begin: str, end: str
) -> None:
    """The row itself is the first level."""
    deepest = f'{{"prompt": "p", "x": {begin * 49}1{end * 49}}}'
    (tmp_path / "a.jsonl").write_text(f"{deepest}\n{json.dumps({'prompt': '[' * 60})}\n")
    rows = prepared(tmp_path / "a.jsonl")
    assert told(rows) == ["p", "[" * 60]
    assert json.dumps(rows[0]["carried"]["x"]).replace(" ", "") == f"{begin * 49}1{end * 49}"
    pq.write_table(pa.Table.from_pylist([rows[0]["carried"]]), tmp_path / "a.parquet")
