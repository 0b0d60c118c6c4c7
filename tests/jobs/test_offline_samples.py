"""Whole runs of the demo model with several samples, stop strings and log-probabilities: the same with
drafts as without.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs import offline

pytestmark = pytest.mark.ray
ROOT = Path(__file__).parent.parent.parent
STOPS = ("he ", "def")  # "he " ends "the ": it begins inside a token and may end in the next
OWN = {
    2: {"n": 1, "logprobs": 0},
    3: {"temperature": 0.0, "stop": ["never to be found"]},
    4: {"n": 1001},
    5: {"stop": [""]},
    7: {"logprobs": 2, "include_stop": True},
}


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight rows; five of them with settings of their own, of which two are bad."""
    texts = [
        json.loads(line)["prompt"] for line in (ROOT / "demo" / "prompts.jsonl").read_text().split("\n")[:8]
    ]
    file = tmp_path_factory.mktemp("input") / "prompts.jsonl"
    file.write_text(
        "".join(json.dumps({"prompt": text, "sampling": OWN.get(i)}) + "\n" for i, text in enumerate(texts))
    )
    return file


def run(prompts: Path, output: Path, *more: str) -> list[dict[str, Any]]:
    settings = {
        "input": prompts, "output": output, "model": ROOT / "demo" / "model", "input.rows_per_shard": 4,
        "output.generated_ids": "true",
        "generation.n": 3, "generation.temperature": 0.7, "generation.max_tokens": 48,
        "generation.logprobs": 1,
        "generation.stop": json.dumps(STOPS), "model.dtype": "float64",
    }  # fmt: skip
    assert offline.main([*(f"--{name}={value}" for name, value in settings.items()), *more]) == 0
    tables = [pq.read_table(part) for part in sorted(output.glob("part-*.parquet"))]
    assert [table.num_rows for table in tables] == [4, 4]
    assert tables[0].schema == tables[1].schema
    return [row for table in tables for row in table.to_pylist()]


@pytest.fixture(scope="module")
def plain(ray_session: None, prompts: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The rows of a run without drafts."""
    return run(prompts, tmp_path_factory.mktemp("plain"), "--speculate=off")


def comparable(row: dict[str, Any]) -> dict[str, Any]:
    """A row without its log-probabilities, which may differ in the last bits, and without what depends on
    drafts.
    """
    kept = {
        name: row[name]
        for name in ("generated_text", "finish_reason", "num_generated_tokens", "generated_ids", "error")
    }
    samples = row["samples"] and [
        {name: value for name, value in sample.items() if name != "logprobs"} for sample in row["samples"]
    ]
    return {**kept, "samples": samples}


def test_a_job_with_samples_stops_and_logprobs(
    plain: list[dict[str, Any]], prompts: Path, tmp_path: Path
) -> None:
    rows = run(prompts, tmp_path, "--speculation.mode=mixed", "--speculation.mixed.num_drafts=4")
    assert [comparable(row) for row in rows] == [comparable(row) for row in plain]
    assert sum(row["num_accepted"] for row in rows) > 0
    assert all(row["num_accepted"] == sum(count for _, count in row["accepted_by_source"]) for row in rows)
    report = json.loads((tmp_path / "_run" / "report.json").read_text())
    assert sum(report["calls_by_tokens"].values()) == report["calls"] == sum(row["num_steps"] for row in rows)
    assert sum(row["accepted"] for row in report["candidates"]) == sum(row["num_accepted"] for row in rows)
    assert [i for i, row in enumerate(rows) if row["error"]] == [4, 5]
    assert rows[4]["error"] == "sampling.n is 1001; it must be an integer of 1 to 1000"
    assert [row["samples"] and len(row["samples"]) for row in rows] == [3, 3, 1, 3, None, None, 3, 3]
    for row, other in zip(rows, plain, strict=True):
        for sample, alone in zip(row["samples"] or [], other["samples"] or [], strict=True):
            tokens = sample["logprobs"]
            assert [token["token_id"] for token in tokens] == sample["generated_ids"]
            assert len(tokens) == sample["num_generated_tokens"]
            np.testing.assert_allclose(
                [t["logprob"] for t in tokens], [t["logprob"] for t in alone["logprobs"]], atol=1e-5
            )
    assert {len(token["top"]) for token in rows[2]["logprobs"]} == {0}
    assert {len(token["top"]) for token in rows[7]["logprobs"]} == {2}
    assert len({tuple(sample["generated_ids"]) for sample in rows[0]["samples"]}) > 1
    greedy = rows[3]
    assert greedy["samples"][0] == greedy["samples"][1] == greedy["samples"][2]
    assert greedy["num_generated_tokens"] == greedy["samples"][0]["num_generated_tokens"]
    assert all(token["top"][0]["token_id"] == token["token_id"] for token in greedy["logprobs"])


def test_texts_end_before_their_stop_strings(plain: list[dict[str, Any]]) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(ROOT / "demo" / "model")
    num_stopped = 0
    for number, row in enumerate(plain):
        for sample in row["samples"] or []:
            ids = sample["generated_ids"]
            *before, last = [
                tokenizer.decode(ids[:end], skip_special_tokens=True) for end in range(len(ids) + 1)
            ]
            assert not any(stop in text for text in before for stop in STOPS if number != 3), "ended too late"
            found = [
                last.find(stop) + len(stop) * (number == 7) for stop in STOPS if stop in last and number != 3
            ]
            assert sample["text"] == last[: min(found, default=None)]
            assert not found or sample["finish_reason"] == "stop"
            num_stopped += bool(found)
    assert num_stopped >= 5
