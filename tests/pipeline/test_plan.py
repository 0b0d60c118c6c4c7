"""The plan: shards cover every row once, limits and moves are respected, clashes are refused before anything runs."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.outputs import OutputColumns
from pipeline.config import InputConfig, OutputConfig
from pipeline.plan import Plan, carried_schema, make_plan


def write_jsonl(path: Path, count: int, start: int = 0) -> Path:
    path.write_text("".join(json.dumps({"id": i, "prompt": f"p{i}"}) + "\n" for i in range(start, start + count)))
    return path


def plan(path: Path | list[str], workers: int = 1, **settings: Any) -> Plan:
    return make_plan(InputConfig(path=path if isinstance(path, list) else str(path), **settings), workers)


def rows(made: Plan) -> list[tuple[str, int, int]]:
    return [(shard["file"], shard["first_row"], shard["num_rows"]) for shard in made.pieces.to_pylist()]


def test_shards_cover_every_row_of_every_file_once(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", 5)
    write_jsonl(tmp_path / "b.jsonl", 2)
    made = plan(tmp_path, rows_per_shard=2)
    assert rows(made) == [("a.jsonl", 0, 2), ("a.jsonl", 2, 2), ("a.jsonl", 4, 1), ("b.jsonl", 0, 2)]
    assert made.pieces["shard"].to_pylist() == made.pieces["unit"].to_pylist() == [0, 1, 2, 3]
    data = (tmp_path / "a.jsonl").read_bytes()
    cuts = [data[s["first_byte"] : s["first_byte"] + s["num_bytes"]] for s in made.pieces.to_pylist()[:3]]
    assert b"".join(cuts) == data
    assert (made.num_rows, made.schema) == (7, pa.schema([("id", pa.int64()), ("prompt", pa.string())]))


@pytest.mark.parametrize(("count", "workers", "size"), [(20, 1, 16), (64 * 40, 1, 32), (64 * 100, 2, 48), (64 * 5000, 1, 4096)])
def test_auto_gives_each_worker_64_shards_of_16_to_4096_rows(tmp_path: Path, count: int, workers: int, size: int) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"prompt": ""}\n' * count)
    made = plan(tmp_path / "a.jsonl", workers)
    assert made.rows_per_shard == size
    assert sum(made.pieces["num_rows"].to_pylist()) == count
    assert set(made.pieces["num_rows"].to_pylist()[:-1]) <= {size}


def test_a_run_that_is_continued_keeps_its_shards_whatever_the_pool(tmp_path: Path) -> None:
    source = InputConfig(path=str(write_jsonl(tmp_path / "a.jsonl", 64 * 40)))
    assert make_plan(source, 1).digest == make_plan(source, 8, rows_per_shard=32).digest


def test_the_limit_counts_over_files_and_cuts_inside_a_shard(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", 5)
    write_jsonl(tmp_path / "b.jsonl", 5)
    assert rows(plan(tmp_path, rows_per_shard=2, limit=6)) == [("a.jsonl", 0, 2), ("a.jsonl", 2, 2), ("a.jsonl", 4, 1), ("b.jsonl", 0, 1)]
    assert plan(tmp_path, limit=99).num_rows == 10


def test_a_parquet_shard_never_divides_what_is_read_at_once(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": [str(i) for i in range(10)]}), tmp_path / "a.parquet", row_group_size=3)
    shards = plan(tmp_path, rows_per_shard=4).pieces.to_pylist()
    assert [(s["unit"], s["row_groups"], s["first_row"], s["skip_rows"], s["num_rows"]) for s in shards] == [
        (0, [0, 1], 0, 0, 4),
        (0, [0, 1], 4, 4, 2),
        (1, [2, 3], 6, 0, 4),
    ]
    small = plan(tmp_path, rows_per_shard=2, limit=5).pieces.to_pylist()
    assert [(s["unit"], s["row_groups"], s["first_row"], s["skip_rows"], s["num_rows"]) for s in small] == [
        (0, [0], 0, 0, 2),
        (0, [0], 2, 2, 1),
        (1, [1], 3, 0, 2),
    ]


def test_a_moved_folder_has_the_same_plan_and_a_changed_one_has_not(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    write_jsonl(tmp_path / "one" / "a.jsonl", 5)
    before = plan(tmp_path / "one").digest
    shutil.move(tmp_path / "one", tmp_path / "two")
    assert plan(tmp_path / "two").digest == before
    data = (tmp_path / "two" / "a.jsonl").read_text()
    (tmp_path / "two" / "a.jsonl").write_text(data.replace("p3", "q3"))
    assert plan(tmp_path / "two").digest != before


@pytest.mark.parametrize("content", [b"", None])
def test_an_input_without_rows_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is None:
        pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), tmp_path / "a.parquet")
    else:
        (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match="holds no rows; give it at least one prompt"):
        plan(tmp_path)


def test_a_file_that_is_no_parquet_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(ValueError, match=r"a.parquet cannot be read as Parquet: .*; mend or remove it"):
        plan(tmp_path)


def carried(made: Plan, output: dict[str, Any], **source: Any) -> list[str]:
    added = OutputColumns(output.get("prefix", ""))
    return carried_schema(made, InputConfig(path="x", **source), OutputConfig(path="y", **output), added).names


def test_all_columns_are_carried_unless_some_are_chosen_and_the_id_always(tmp_path: Path) -> None:
    made = plan(write_jsonl(tmp_path / "a.jsonl", 2))
    assert carried(made, {}) == ["id", "prompt"]
    assert carried(made, {"columns": []}) == []
    assert carried(made, {"columns": ["prompt"]}, id_column="id") == ["id", "prompt"]


@pytest.mark.parametrize(
    ("output", "source", "error"),
    [
        ({}, {"prompt_column": "promt"}, "input.prompt_column is 'promt', but the input has no such column; did you mean 'prompt'?"),
        ({}, {"messages_column": "chat"}, "input.messages_column is 'chat', but the input has no such column; it has 'prompt', 'error'"),
        ({}, {"id_column": "key"}, "input.id_column is 'key', but the input has no such column"),
        ({"columns": ["eror"]}, {}, "output.columns is 'eror', but the input has no such column; did you mean 'error'?"),
        ({}, {}, "the input already has columns error; set output.prefix to rename the added ones, or output.columns"),
    ],
)
def test_columns_that_are_missing_or_clash_are_refused(tmp_path: Path, output: Any, source: Any, error: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "error": "old"}\n')
    made = plan(tmp_path / "a.jsonl")
    with pytest.raises(ValueError) as caught:
        carried(made, output, **source)
    assert error in str(caught.value)
    assert carried(made, {"prefix": "new_"}) == ["prompt", "error"]
    assert carried(made, {"columns": ["prompt"]}) == ["prompt"]
