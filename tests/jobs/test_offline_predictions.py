"""Predictions in a whole job on a local Ray: they change how fast rows come, and no text."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from drafting.adaptive.adaptive_proposer import AdaptiveProposer
from jobs import offline

pytestmark = pytest.mark.ray
DEMO = Path(__file__).parent.parent.parent / "demo"
NUM_ROWS = 12


def generated(input_: Path, output: Path, *more: str) -> list[dict[str, Any]]:
    """The rows of a run of the demo model in float64."""
    settings = {
        "input": input_,
        "output": output,
        "model": DEMO / "model",
        "model.dtype": "float64",
        "generation.max_tokens": 48,
        "output.generated_ids": "true",
    }
    assert offline.main([*(f"--{key}={value}" for key, value in settings.items()), *more]) == 0
    parts = sorted(output.glob("part-*.parquet"))
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


def texts(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [
        (row["prompt"], row["generated_ids"], row["generated_text"], row["finish_reason"]) for row in rows
    ]


def test_true_answers_as_predictions_give_the_same_texts(ray_session: None, tmp_path: Path) -> None:
    lines = (DEMO / "prompts.jsonl").read_text(encoding="utf-8").splitlines()[:NUM_ROWS]
    prompts = [json.loads(line)["prompt"] for line in lines]
    (tmp_path / "plain.jsonl").write_text("".join(json.dumps({"prompt": p}) + "\n" for p in prompts))
    plain = generated(tmp_path / "plain.jsonl", tmp_path / "plain", "--speculate=off")
    answers = [row["generated_text"] for row in plain]
    answers[0] = None
    rows = [{"prompt": p, "old": answer} for p, answer in zip(prompts, answers, strict=True)]
    (tmp_path / "edit.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    edited = generated(tmp_path / "edit.jsonl", tmp_path / "edit", "--input.prediction_column=old")
    assert texts(edited) == texts(plain)
    assert [row["old"] for row in edited] == answers, "the column is carried like any other"
    if "prediction" in AdaptiveProposer.source_names:
        accepted = [dict(row["accepted_by_source"]).get("prediction", 0) for row in edited]
        assert accepted[0] == 0 and sum(accepted) > 0
