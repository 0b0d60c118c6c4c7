"""The plan: shards cover every row once, limits and moves are respected, clashes are refused before anything
runs.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import InputConfig, OutputConfig
from pipeline.plan import Plan, carried_schema, make_plan
from rows.output_columns import OutputColumns
from tests.pipeline.reading import prepared


def write_jsonl(path: Path, count: int, start: int = 0) -> Path:
    path.write_text(
        "".join(json.dumps({"id": i, "prompt": f"p{i}"}) + "\n" for i in range(start, start + count))
    )
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


@pytest.mark.parametrize(
    ("count", "workers", "size"), [(20, 1, 16), (64 * 40, 1, 32), (64 * 100, 2, 48), (64 * 5000, 1, 4096)]
)
def test_auto_gives_each_worker_64_shards_of_16_to_4096_rows(
    tmp_path: Path, count: int, workers: int, size: int
) -> None:
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
    assert rows(plan(tmp_path, rows_per_shard=2, limit=6)) == [
        ("a.jsonl", 0, 2),
        ("a.jsonl", 2, 2),
        ("a.jsonl", 4, 1),
        ("b.jsonl", 0, 1),
    ]
    assert plan(tmp_path, limit=99).num_rows == 10


def test_a_parquet_shard_never_divides_what_is_read_at_once(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"prompt": [str(i) for i in range(10)]}), tmp_path / "a.parquet", row_group_size=3
    )
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
    with pytest.raises(ValueError, match=r"a.parquet cannot be read as Parquet: .*; fix or remove it"):
        plan(tmp_path)


def carried(made: Plan, output: dict[str, Any], **source: Any) -> list[str]:
    added = OutputColumns(output.get("prefix", ""))
    return carried_schema(
        made, InputConfig(path="x", **source), OutputConfig(path="y", **output), added
    ).names


def test_all_columns_are_carried_unless_some_are_chosen_and_the_id_always(tmp_path: Path) -> None:
    made = plan(write_jsonl(tmp_path / "a.jsonl", 2))
    assert carried(made, {}) == ["id", "prompt"]
    assert carried(made, {"columns": []}) == []
    assert carried(made, {"columns": ["prompt"]}, id_column="id") == ["id", "prompt"]


@pytest.mark.parametrize(
    ("output", "source", "error"),
    [
        (
            {},
            {"prompt_column": "promt"},
            "input.prompt_column is 'promt', but the input has no such column; did you mean 'prompt'?",
        ),
        (
            {},
            {"messages_column": "chat"},
            "input.messages_column is 'chat', but the input has no such column; it has 'prompt', 'error'",
        ),
        ({}, {"id_column": "key"}, "input.id_column is 'key', but the input has no such column"),
        (
            {},
            {"group_column": "eror"},
            "input.group_column is 'eror', but the input has no such column; did you mean 'error'?",
        ),
        (
            {"columns": ["eror"]},
            {},
            "output.columns is 'eror', but the input has no such column; did you mean 'error'?",
        ),
        (
            {},
            {},
            "the input already has columns error; set output.prefix to rename the added ones, or "
            "output.columns",
        ),
    ],
)
def test_columns_that_are_missing_or_clash_are_refused(
    tmp_path: Path, output: Any, source: Any, error: str
) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "error": "old"}\n')
    made = plan(tmp_path / "a.jsonl")
    with pytest.raises(ValueError) as caught:
        carried(made, output, **source)
    assert error in str(caught.value)
    assert carried(made, {"prefix": "new_"}) == ["prompt", "error"]
    assert carried(made, {"columns": ["prompt"]}) == ["prompt"]


def test_small_files_that_follow_each_other_share_shards_and_parts_stay_few(tmp_path: Path) -> None:
    for number in range(50):
        write_jsonl(tmp_path / f"{number:02}.jsonl", 3, 3 * number)
    write_jsonl(tmp_path / "30-large.jsonl", 40)
    made = plan(tmp_path, rows_per_shard=16)
    shards: dict[int, list[tuple[str, int]]] = {}
    for piece in made.pieces.to_pylist():
        shards.setdefault(piece["shard"], []).append((piece["file"], piece["num_rows"]))
        assert piece["unit"] == piece["shard"]
    assert list(shards) == list(range(made.num_shards)) and made.num_shards == 6 + 3 + 4
    assert shards[0] == [(f"{number:02}.jsonl", 3) for number in range(5)]
    assert [shards[number] for number in (6, 7, 8)] == [[("30-large.jsonl", rows)] for rows in (16, 16, 8)]
    assert sum(rows for pieces in shards.values() for _, rows in pieces) == made.num_rows == 190
    assert made.without([0]).num_rows == made.pieces.num_rows - 5


def test_files_without_rows_take_no_place(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", 1)
    (tmp_path / "b.jsonl").touch()
    (tmp_path / "c.txt").write_text("x\n")
    assert [(piece["shard"], piece["file"]) for piece in plan(tmp_path).pieces.to_pylist()] == [
        (0, "a.jsonl"),
        (0, "c.txt"),
    ]


@pytest.mark.parametrize(
    ("one", "other", "merged"),
    [
        (pa.array([1], pa.int32()), pa.array([2], pa.int64()), pa.int64()),
        (pa.array([1], pa.int64()), pa.array([0.5], pa.float64()), pa.float64()),
        (pa.array(["a"]), pa.array(["b"], pa.large_string()), pa.large_string()),
        (pa.array(["a"]).dictionary_encode(), pa.array(["b"]), pa.string()),
        (pa.array([None]), pa.array(["b"]), pa.string()),
        (pa.array([[1]], pa.list_(pa.int32())), pa.array([[2]], pa.list_(pa.int64())), pa.list_(pa.int64())),
        (pa.array([{"x": 1}]), pa.array([{"y": "b"}]), pa.struct([("x", pa.int64()), ("y", pa.string())])),
        (pa.array([1], pa.timestamp("ms")), pa.array([2], pa.timestamp("us")), pa.timestamp("us")),
        (pa.array(["a"]), None, pa.string()),
    ],
)
def test_columns_of_files_that_differ_are_unified_where_nothing_is_lost(
    tmp_path: Path, one: Any, other: Any, merged: Any
) -> None:
    pq.write_table(pa.table({"prompt": ["p"], "x": one}), tmp_path / "a.parquet")
    pq.write_table(
        pa.table({"prompt": ["q"]} | ({} if other is None else {"x": other})), tmp_path / "b.parquet"
    )
    assert plan(tmp_path).schema == pa.schema([("prompt", pa.string()), ("x", merged)])
    (first, second) = [row["carried"]["x"] for row in prepared(tmp_path)]
    keys = {"x": None, "y": None} if isinstance(first, dict) else None
    assert first == (keys | one[0].as_py() if keys else one[0].as_py())
    assert second == (None if other is None else keys | other[0].as_py() if keys else other[0].as_py())


@pytest.mark.parametrize(
    ("one", "other", "types"),
    [
        ("a.jsonl", '{"prompt": "p", "id": 1}\n', "int64"),
        ("a.jsonl", '{"prompt": "p", "id": [1]}\n', "list<item: int64>"),
        ("a.jsonl", '{"prompt": "p", "id": true}\n', "bool"),
    ],
)
def test_columns_that_cannot_be_unified_are_refused_naming_both_files_and_types(
    tmp_path: Path, one: str, other: str, types: str
) -> None:
    (tmp_path / one).write_text(other)
    (tmp_path / "b.csv").write_text("id,prompt\n007,q\n")
    with pytest.raises(ValueError) as caught:
        plan(tmp_path)
    assert (
        f"column 'id' is {types} in {tmp_path}/a.jsonl and string in {tmp_path}/b.csv; "
        "convert one of the files" in str(caught.value)
    )


def test_a_value_that_a_wider_type_cannot_hold_is_an_error_of_its_row(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["p", "q"], "x": [2**53 + 1, 7]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"prompt": ["r"], "x": [0.5]}), tmp_path / "b.parquet")
    rows = prepared(tmp_path)
    assert [row["carried"]["x"] for row in rows] == [None, 7.0, 0.5]
    assert rows[0]["error"].startswith("column 'x' is 9007199254740993, which another file makes double: ")
    assert [row["error"] for row in rows[1:]] == [None, None]
