"""The order in which shards are handed out: it moves whole units, keeps parts as they are, and leaves what is
small for the end.
"""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import InputConfig
from pipeline.order import in_order
from pipeline.plan import Plan, make_plan


def lines(*lengths: int) -> str:
    return "".join(json.dumps({"prompt": "x" * length}) + "\n" for length in lengths)


def make(path: Path, **settings: Any) -> Plan:
    return make_plan(InputConfig(path=str(path), **settings), 1)


def handed_out(plan: Plan, order: str, done: tuple[int, ...] = ()) -> list[int]:
    return list(dict.fromkeys(in_order(plan.without(done), order)["shard"].to_pylist()))


def test_longest_first_goes_by_bytes_per_row_and_as_is_by_place(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines(10, 10, 90, 90, 40, 40, 60, 60))
    plan = make(tmp_path, rows_per_shard=2)
    assert handed_out(plan, "as_is") == [0, 1, 2, 3]
    assert handed_out(plan, "longest_first") == [1, 3, 2, 0]
    assert handed_out(plan, "longest_first", done=(1, 2)) == [3, 0], "what is left of a run, in any order"


def test_a_short_shard_of_long_rows_is_long(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines(20, 20, 20, 500))
    assert handed_out(make(tmp_path, rows_per_shard=3), "longest_first") == [1, 0]


def test_by_folder_keeps_the_files_of_a_folder_together(tmp_path: Path) -> None:
    for name in ("law/b.jsonl", "law-old/c.jsonl", "law/new/d.jsonl", "law/e.jsonl", "top.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(lines(5, 5))
    plan = make(tmp_path, rows_per_shard=2)
    files = dict(zip(plan.pieces["shard"].to_pylist(), plan.pieces["file"].to_pylist(), strict=True))
    assert [files[shard] for shard in handed_out(plan, "as_is")] == sorted(files.values())
    assert [files[shard] for shard in handed_out(plan, "by_folder")] == [
        "top.jsonl", "law/b.jsonl", "law/e.jsonl", "law-old/c.jsonl", "law/new/d.jsonl",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("order", "shards"),
    [("as_is", [0, 2, 3, 1]), ("longest_first", [2, 3, 0, 1]), ("by_folder", [2, 3, 0, 1])],
)
def test_a_small_shard_comes_last_in_any_order(tmp_path: Path, order: str, shards: list[int]) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.jsonl").write_text(lines(*[40] * 41))
    (tmp_path / "b.jsonl").write_text(lines(*[60] * 80))
    plan = make(tmp_path, rows_per_shard=40)
    assert plan.pieces["num_rows"].to_pylist() == [40, 1, 40, 40]
    assert handed_out(plan, order) == shards


def test_many_small_shards_are_not_a_tail(tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / f"{name}.jsonl").write_text(lines(*[40] * 12))
    plan = make(tmp_path, rows_per_shard=10)
    assert handed_out(plan, "as_is") == [0, 1, 2, 3, 4, 5, 6, 7]


def test_what_is_read_as_a_whole_moves_as_a_whole(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"prompt": ["a" * 5] * 4 + ["".join(map(str, range(i, i + 99))) for i in range(4)]}),
        tmp_path / "a.parquet",
        row_group_size=4,
    )
    (tmp_path / "b.jsonl").write_text(lines(50, 50, 50, 50))
    plan = make(tmp_path, rows_per_shard=2)
    assert plan.pieces["unit"].to_pylist() == [0, 0, 1, 1, 2, 3]
    assert handed_out(plan, "longest_first") == [2, 3, 4, 5, 0, 1]


@pytest.mark.parametrize("order", ["longest_first", "by_folder"])
def test_an_order_changes_neither_the_plan_nor_its_digest(tmp_path: Path, order: str) -> None:
    (tmp_path / "a.jsonl").write_text(lines(10, 90, 40, 60))
    one = make(tmp_path, rows_per_shard=1)
    other = make(tmp_path, rows_per_shard=1, order=order)
    assert (one.digest, one.pieces) == (other.digest, other.pieces)
    assert sorted(handed_out(other, order)) == [0, 1, 2, 3]


def test_an_order_that_is_none_is_refused() -> None:
    with pytest.raises(
        ValueError, match="input.order is 'longest'; it must be one of as_is, longest_first, by_folder"
    ):
        InputConfig(path="x", order="longest")
