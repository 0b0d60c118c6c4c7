"""Parquet: a hostile file is refused, or fails by name, or has errors in the rows concerned."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import InputConfig
from pipeline.pieces import PieceReader
from pipeline.plan import make_plan
from tests.pipeline.reading import prepared, told


def test_hostile_values_are_errors_of_their_rows(tmp_path: Path) -> None:
    texts = pa.array([b"fine", b"\xff", None, b"", b"line\ntwo"], pa.binary()).view(pa.string())
    settings = pa.array([{"top_k": 3, "new": 1}, None, None, None, {"top_k": 3, "new": None}])
    pq.write_table(
        pa.table({"prompt": texts, "sampling": settings, "id": range(5)}),
        tmp_path / "a.parquet",
        row_group_size=2,
    )
    rows = prepared(tmp_path, columns=["id"], rows_per_shard=1)
    assert told(rows) == [
        "column 'sampling' sets 'new', which is not a setting; did you mean 'n'?",
        "the row is not UTF-8: invalid start byte at byte 0 of a text; fix the row",
        "column 'prompt' is missing; each row needs a prompt (input.prompt_column names its column)",
        "the prompt is empty; give it at least one token",
        "line\ntwo",
    ]
    assert [row["carried"]["id"] for row in rows] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("type_", [pa.int64(), pa.binary(), pa.list_(pa.string())])
def test_a_prompt_column_of_another_type_is_an_error_of_every_row(tmp_path: Path, type_: pa.DataType) -> None:
    pq.write_table(pa.table({"prompt": pa.array([None], type_), "x": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"prompt": pa.array([{"x": 1}])}), tmp_path / "b.pq")
    assert told(prepared(tmp_path / "b.pq")) == ["column 'prompt' is {'x': 1}; a prompt must be a string"]
    with pytest.raises(
        ValueError, match=r"column 'prompt' is .* in .*a.parquet and struct<x: int64> in .*b.pq"
    ):
        make_plan(InputConfig(path=str(tmp_path)), 1)


def test_a_file_cut_off_is_refused_by_the_plan(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["a"] * 1000}), tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"a.parquet cannot be read as Parquet: .*; fix or remove it"):
        make_plan(InputConfig(path=str(tmp_path)), 1)


def test_pages_that_are_damaged_fail_the_job_by_name_and_place(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"prompt": [f"row {i}" for i in range(1000)]}),
        tmp_path / "a.parquet",
        compression="zstd",
        row_group_size=500,
    )
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    data[4:200] = bytes(196)
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(
        ValueError, match=r"a.parquet cannot be read at rows 0 to 499: .*; write the file again"
    ):
        prepared(tmp_path, rows_per_shard=500)


def test_text_that_is_gone_after_the_plan_fails_the_job_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x\n")
    plan = make_plan(InputConfig(path=str(tmp_path)), 1)
    (tmp_path / "a.txt").unlink()
    with pytest.raises(ValueError, match=r"a.txt cannot be read at rows 0 to 0: .*No such file"):
        PieceReader(InputConfig(path="x"), plan.schema, plan.schema, True).read(plan.pieces.to_pylist()[0])
