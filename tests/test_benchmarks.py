"""Benchmarks say what they measured: paired ratios by hand, and a whole small run whose last line is JSON."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from benchmarks.bench_adaptive import DEMO
from benchmarks.bench_edit import damaged, read_rows, with_predictions
from benchmarks.measure import alternate, ratio
from benchmarks.simulate_tail import Holds, simulate


def test_the_ratio_is_the_median_of_pairs_and_not_the_ratio_of_medians() -> None:
    # Pairs: 2, 4 and 1; medians of the sides: 4 and 2, whose ratio would be 2 as well, so the second case
    # tells them apart.
    assert ratio([2.0, 4.0, 8.0], [1.0, 1.0, 8.0])["median"] == 2.0
    assert ratio([1.0, 2.0, 9.0], [1.0, 1.0, 3.0])["median"] == 2.0
    assert ratio([1.0, 3.0, 9.0], [1.0, 3.0, 1.0])["median"] == 1.0


def test_the_interval_holds_the_median_and_is_a_point_when_all_pairs_agree() -> None:
    assert ratio([3.0] * 10, [2.0] * 10) == {"median": 1.5, "low": 1.5, "high": 1.5}
    noisy = ratio([1.0, 1.2, 0.9, 1.1, 1.0, 1.3], [1.0] * 6)
    assert 0.9 <= noisy["low"] <= noisy["median"] <= noisy["high"] <= 1.3


def test_contenders_alternate_after_a_warm_up_each() -> None:
    order: list[str] = []
    contenders = {name: lambda name=name: order.append(name) or {"calls": len(order)} for name in "ab"}
    runs = alternate(contenders, tokens=10, alternations=3)
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"
    assert [len(run.cpu_s) for run in runs.values()] == [3, 3]


@pytest.mark.parametrize(
    ("holds", "idle"),
    [
        (
            Holds(blocks=1, shards=9, rows=9),
            3 / 8,
        ),  # slots 3+1 and 1: the second block comes when the first is done
        (Holds(blocks=2, shards=9, rows=9), 1 / 6),  # slots 3 and 1+1
        (Holds(blocks=2, shards=1, rows=9), 3 / 8),
        (Holds(blocks=2, shards=9, rows=2), 1 / 6),  # the second shard begins when the short row is done
        (Holds(blocks=2, shards=9, rows=1), 3 / 8),
    ],
)
def test_a_simulated_worker_idles_as_counted_by_hand(holds: Holds, idle: float) -> None:
    assert simulate([[[3, 1]], [[1]]], workers=1, running=2, holds=holds)["idle"] == pytest.approx(100 * idle)


def test_a_made_prediction_differs_from_the_answer_at_every_nth_token() -> None:
    answer = tuple(range(10))
    made = damaged(answer, 3, 50, random.Random(0))
    assert [index for index in range(10) if made[index] != answer[index]] == [2, 5, 8]
    assert all(0 <= token < 50 for token in made)
    assert damaged(answer, 0, 50, random.Random(0)) == answer


def test_a_row_keeps_the_prediction_that_it_brings(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(DEMO / "model")
    rows = [{"prompt": "def f(x):", "prediction": "return x"}, {"prompt": "import"}, {"prompt": "left out"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    requests = read_rows(tmp_path / "rows.jsonl", 2, tokenizer, max_tokens=9)
    brought = tuple(tokenizer("return x", add_special_tokens=False).input_ids)
    assert [request.prediction_ids for request in requests] == [brought, ()]
    predicted = with_predictions(requests, [(1, 2), (3, 4, 5)], 0, 50)
    assert [request.prediction_ids for request in predicted] == [brought, (3, 4, 5)]


@pytest.mark.slow
def test_a_small_run_of_the_edit_benchmark_compares_with_predictions_and_without() -> None:
    arguments = ["--num_rows", "3", "--running", "2", "--max_tokens", "8", "--alternations", "2"]
    command = [sys.executable, "-m", "benchmarks.bench_edit", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    runs = json.loads(done.stdout.splitlines()[-1])["runs"]
    assert list(runs) == ["plain", "adaptive", "adaptive, predictions"]
    # float32: see below
    assert all(run["rows_equal_to_plain"] >= 2 for run in runs.values())
    assert "accepted / verified nodes by source" in done.stdout


@pytest.mark.slow
def test_a_small_run_of_the_engine_benchmark_compares_all_contenders() -> None:
    arguments = ["--workload", "single", "--max_tokens", "8", "--alternations", "2", "--mixed", "1,4"]
    command = [sys.executable, "-m", "benchmarks.bench_engine", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    result = json.loads(done.stdout.splitlines()[-1])
    assert list(result["runs"]) == ["generate", "generate, prompt lookup", "plain", "mixed (1,4)"]
    assert result["runs"]["plain"]["acceptance_length"] == 1.0
    assert result["runs"]["mixed (1,4)"]["acceptance_length"] > 1.0
    # float32: one near-tie in 8 x 8 tokens may fall the other way on another machine
    assert all(run["rows_equal_to_plain"] >= 7 for run in result["runs"].values())
