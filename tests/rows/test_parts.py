"""Parts and summaries: whole or absent, counts in the footer."""

import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.request import Completion, SequenceStats
from rows.output_columns import Generated, OutputColumns, summarize
from rows.output_folder import OutputFolder
from rows.parts import PartSummary, part_name


def no_text(token_ids: Sequence[int], context: Sequence[int]) -> str:
    return ""


ANSWER = Generated(
    [Completion("0", (104, 105), "stop", SequenceStats(3, 2, 1, {"context": 4}, {"context": 1}))]
)


def test_a_part_comes_back_with_its_rows_and_its_summary(tmp_path: Path) -> None:
    summary = PartSummary(num_parts=1, num_rows=2, verified={"context": 3})
    OutputFolder(str(tmp_path)).write_part(42, pa.table({"x": [1, 2]}), summary)
    assert part_name(42) == "part-00000042.parquet"
    assert pq.read_table(tmp_path / "part-00000042.parquet").to_pydict() == {"x": [1, 2]}
    assert (OutputFolder(str(tmp_path)).read_summary(42), OutputFolder(str(tmp_path)).read_summary(43)) == (
        summary,
        None,
    )
    assert os.listdir(tmp_path / "_run" / "tmp") == []


def test_a_write_that_fails_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        OutputFolder(str(tmp_path)).write_part(1, pa.table({"x": [1]}), PartSummary())
    assert OutputFolder(str(tmp_path)).list_parts() == set()


def test_only_parts_count_as_parts(tmp_path: Path) -> None:
    for name in (
        "part-00000007.parquet",
        "part-123456789.parquet",
        "part-00000008.parquet.tmp",
        "other.parquet",
    ):
        (tmp_path / name).touch()
    assert OutputFolder(str(tmp_path)).list_parts() == {7, 123456789}
    assert OutputFolder(str(tmp_path / "absent")).list_parts() == set()


def test_summaries_add_up() -> None:
    one = PartSummary(
        num_rows=1,
        num_errors=1,
        verified={"context": 2},
        first_error="one",
        engine={"seconds": {"plan": 0.1}},
    )
    other = PartSummary(
        num_rows=2,
        verified={"context": 1, "bigram": 5},
        first_error="other",
        engine={"seconds": {"plan": 0.2, "verify": 1}},
    )
    both = {"verified": {"context": 3, "bigram": 5}, "engine": {"seconds": {"plan": 0.3, "verify": 1}}}
    assert one + other == PartSummary(num_rows=3, num_errors=1, first_error="one", **both)


def test_results_become_columns_with_fixed_types_even_when_all_fail() -> None:
    columns = OutputColumns(prefix="out_", generated_ids=True)
    both = columns.table([ANSWER, "no prompt"], lambda ids, _: bytes(ids).decode())
    assert both.to_pylist() == [
        {
            "out_generated_text": "hi", "out_finish_reason": "stop", "out_num_prompt_tokens": 3,
            "out_num_generated_tokens": 2,
            "out_num_steps": 1, "out_num_verified": 4, "out_num_accepted": 1,
            "out_accepted_by_source": [("context", 1)], "out_error": None, "out_generated_ids": [104, 105],
        },
        {
            "out_generated_text": None, "out_finish_reason": "error", "out_num_prompt_tokens": 0,
            "out_num_generated_tokens": 0,
            "out_num_steps": 0, "out_num_verified": 0, "out_num_accepted": 0,
            "out_accepted_by_source": [], "out_error": "no prompt", "out_generated_ids": None,
        },
    ]  # fmt: skip
    assert columns.table(["a", "b"], no_text).schema == both.schema == columns.schema


def test_samples_share_their_row_but_each_counts_what_it_found_in_the_prefix_cache() -> None:
    first, second = (
        Completion(
            "a",
            (1,),
            "length",
            SequenceStats(num_prompt_tokens=20, num_generated_tokens=1, num_steps=1, num_cached_tokens=found),
        )
        for found in (0, 16)
    )
    summary = summarize([Generated([first, second], num_samples=2)])
    assert (summary.num_prompt_tokens, summary.num_cached_tokens, summary.num_prefilled_tokens) == (
        20,
        16,
        24,
    )


def test_right_drafts_are_told_by_source_summed_over_samples() -> None:
    first, second = (
        Completion("a", (1,), "length", SequenceStats(accepted=accepted))
        for accepted in ({"siblings": 2, "context": 1}, {"siblings": 3})
    )
    table = OutputColumns().table([Generated([first, second], num_samples=2)], no_text)
    assert table["accepted_by_source"].to_pylist() == [[("context", 1), ("siblings", 5)]]


def test_a_part_is_summarized_from_its_results() -> None:
    assert summarize([ANSWER, "no prompt", ANSWER]) == PartSummary(
        num_parts=1, num_rows=3, num_errors=1, num_prompt_tokens=6, num_generated_tokens=4, num_steps=2,
        num_prefilled_tokens=6,
        verified={"context": 8}, accepted={"context": 2}, first_error="no prompt",
    )  # fmt: skip
