"""Prepared shards: every row of the plan once, bad ones with their error, the same seed however the input is
cut.
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.config import ModelConfig
from pipeline import prepare
from pipeline.config import InputConfig
from pipeline.plan import make_plan
from tests.pipeline.reading import prepared

BAD_INPUT = (
    b'{"id": 1, "prompt": "a"}\n\nnot json\n{"id": 2}\n{"id": 3, "prompt": 7}\n'
    b'{"id": "x", "prompt": "b"}\n{"id": 4, "prompt": "\xe2\x80\xa8"}\n\0\0\0'
)


def test_bad_lines_become_rows_with_errors_and_the_rest_goes_on(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(BAD_INPUT)
    rows = prepared(tmp_path, rows_per_shard=3)
    assert [row["carried"]["id"] for row in rows] == [1, None, None, 2, 3, None, 4, None]
    assert [(row["error"] or "")[:24] for row in rows] == [
        "", "the line is empty; remov", "the line is not JSON: Ex", "column 'prompt' is missi",
        "column 'prompt' is 7; a ",
        "column 'id' is 'x': not ", "", "the line is 3 NUL bytes,",
    ]  # fmt: skip
    assert [row["token_ids"] for row in rows if not row["error"]] == [[97], [0xE2, 0x80, 0xA8]]


def test_seeds_do_not_depend_on_how_the_input_is_cut(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"prompt": "a"}\n' * 10)
    seeds = [[row["seed"] for row in prepared(tmp_path, rows_per_shard=size)] for size in (1, 3, 10)]
    assert seeds[0] == seeds[1] == seeds[2]
    assert len(set(seeds[0])) == 10


def test_parquet_rows_come_in_order_with_equal_seeds_for_any_cut(tmp_path: Path) -> None:
    table = pa.table(
        {
            "prompt": [str(i) for i in range(10)],
            "x": pa.array(range(10), pa.int8()),
            "when": pa.array(range(10), pa.timestamp("us")),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=3)
    cuts = [prepared(tmp_path, rows_per_shard=size) for size in (2, 4, 100)]
    assert cuts[0] == cuts[1] == cuts[2]
    assert [row["carried"]["x"] for row in cuts[0]] == list(range(10))
    assert [bytes(row["token_ids"]).decode() for row in cuts[0]] == [str(i) for i in range(10)]
    assert len({row["seed"] for row in cuts[0]}) == 10


def test_a_group_is_read_also_where_it_is_not_carried(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["a", "b"], "kind": [1, None]}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text('{"prompt": "c", "kind": 1}\n')
    rows = prepared(tmp_path, columns=["prompt"], group_column="kind")
    assert [(row["carried"], row["group"]) for row in rows] == [
        ({"prompt": "a"}, "1"),
        ({"prompt": "b"}, ""),
        ({"prompt": "c"}, "1"),
    ]


def test_a_prediction_is_read_also_where_it_is_not_carried_and_null_is_none(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["a", "b"], "old": ["xy", None]}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text('{"prompt": "c", "old": "z"}\n{"prompt": "d"}\n')
    (tmp_path / "c.csv").write_text("prompt,old\ne,w\nf,\n")
    rows = prepared(tmp_path, columns=["prompt"], prediction_column="old")
    assert [bytes(row["prediction_ids"]) for row in rows] == [b"xy", b"", b"z", b"", b"w", b""]
    assert rows[0]["carried"] == {"prompt": "a"}
    assert [row["prediction_ids"] for row in prepared(tmp_path)] == [[]] * 6, "the column is not named"


def test_a_prompt_may_be_its_own_prediction(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["ab"]}), tmp_path / "a.parquet")
    (row,) = prepared(tmp_path, prediction_column="prompt", group_column="prompt")
    assert (row["error"], bytes(row["prediction_ids"]), row["group"]) == (None, b"ab", "ab")


def test_a_prediction_that_is_no_text_is_an_error_of_its_row(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["a"], "old": [7]}), tmp_path / "a.parquet")
    (row,) = prepared(tmp_path, prediction_column="old")
    assert row["error"].startswith("column 'old' is 7; a prediction must be a string")
    (tmp_path / "b.jsonl").write_text('{"prompt": "a", "old": ["x"]}\n{"prompt": "b", "old": "y"}\n')
    rows = prepared(tmp_path / "b.jsonl", prediction_column="old")
    assert [(row["error"] or "")[:22] for row in rows] == ["column 'old' is ['x'];", ""]


def test_a_prompt_need_not_be_carried(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["a"], "x": [1]}), tmp_path / "a.parquet")
    assert [(row["carried"], row["token_ids"]) for row in prepared(tmp_path, columns=["x"])] == [
        ({"x": 1}, [97])
    ]


def test_files_of_both_formats_with_different_columns_share_one_schema(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "n": 1}\n')
    pq.write_table(pa.table({"prompt": ["b"], "score": [0.5]}), tmp_path / "b.parquet")
    assert [row["carried"] for row in prepared(tmp_path)] == [
        {"prompt": "a", "n": 1, "score": None},
        {"prompt": "b", "n": None, "score": 0.5},
    ]


def test_a_rows_own_settings_reach_the_worker_also_when_the_first_rows_had_none(tmp_path: Path) -> None:
    lines = [
        {"prompt": "a"},
        {"prompt": "b", "sampling": {"top_k": 3}},
        {"prompt": "c", "sampling": {"top_k": 3, "seed": 9}},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    rows = prepared(tmp_path, schema_rows=2)
    assert [row["sampling"] for row in rows] == ["{}", '{"top_k": 3}', '{"top_k": 3, "seed": 9}']
    assert [row["error"] for row in rows] == [None] * 3


def test_an_input_that_changes_after_the_plan_fails_the_job_by_name(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"prompt": "a"}\n' * 2)
    source = InputConfig(path=str(file))
    plan = make_plan(source, 1)
    file.write_text('{"prompt": "a"}\n')
    job = prepare.PrepareJob(ModelConfig(), source, plan.schema, plan.schema, True, 0, None)
    with pytest.raises(
        ValueError, match=r"a.jsonl has changed since the plan: shard 0 has 1 rows of it, not 2"
    ):
        list(prepare.prepare_shards(plan.pieces, job))
