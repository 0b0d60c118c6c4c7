"""jobs/replay.py as a user runs it: figures on the terminal and in JSON, one readable line for bad input."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.replay import main

ROOT = Path(__file__).parents[2]
CONTEXT = ("--speculate=mixed", "--speculation.mixed.sources=[context]")
ROW = {"id": "a", "group": "chat", "prompt": [5, 7, 8, 5], "output": [7, 8, 5, 1, 7, 7]}


def write(path: Path, *rows: Any) -> Path:
    lines = "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)
    return path


def replayed(tmp_path: Path, *arguments: Any) -> dict[str, Any]:
    out = tmp_path / "figures.json"
    assert main([*map(str, arguments), "--json", str(out)]) == 0
    return json.loads(out.read_text())


def refusal(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    assert main([*map(str, arguments)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1, "one line, no traceback"
    return printed.err


def test_the_command_prints_a_table_and_writes_the_figures(tmp_path: Path) -> None:
    transcripts = write(tmp_path / "a.jsonl", ROW)
    command = [
        "jobs/replay.py",
        "--speculate",
        "mixed",
        "--speculation.mixed.num_drafts=2",
        "--speculation.mixed.draft_len=3",
        "--speculation.mixed.query_len=1",
        "--speculation.mixed.sources=[context]",
        "--replay.candidates=true",
    ]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    out = tmp_path / "out.json"
    done = subprocess.run(
        [sys.executable, *command, "--transcripts", transcripts, "--json", out],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "tokens per call" in done.stdout and "6 tokens in 3 calls, 7 nodes verified" in done.stdout
    assert "acceptance rate" in done.stdout and "proposed" in done.stdout
    # 7 8 5 from the prompt and 1 for free; after 1 nothing is known; after 7 the drafts [8 5 1] and [8 5 7]
    # fail on the last 7.
    assert json.loads(out.read_text()) == {
        "tokens_per_call": 2.0,
        "nodes_per_call": 7 / 3,
        "calls": 3,
        "tokens": 6,
        "nodes": 7,
        "by_source": {"context": {"verified": 7, "accepted": 3}},
        "by_group": {"chat": {"tokens_per_call": 2.0, "nodes_per_call": 7 / 3}},
        "candidates": [
            {"source": "context", "depth": "1", "match": "1", "proposed": 2, "verified": 2, "accepted": 1},
            {"source": "context", "depth": "2", "match": "1", "proposed": 2, "verified": 2, "accepted": 1},
            {"source": "context", "depth": "3", "match": "1", "proposed": 3, "verified": 3, "accepted": 1},
        ],
    }


def test_several_files_plain_and_gz_count_together(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.jsonl", ROW)
    packed = write(tmp_path / "b.jsonl.gz", {**ROW, "group": "code"}, {**ROW, "output": []})
    figures = replayed(tmp_path, "--transcripts", f"[{plain}, {packed}]", *CONTEXT)
    assert figures["tokens"] == 12
    assert sorted(figures["by_group"]) == ["chat", "code"]


def test_the_bigram_learns_from_what_was_read_when_there_is_no_model(tmp_path: Path) -> None:
    transcripts = write(
        tmp_path / "a.jsonl", {"id": 1, "group": "g", "prompt": [1, 2, 1], "output": [2, 1, 2, 1]}
    )
    figures = replayed(
        tmp_path,
        "--transcripts",
        transcripts,
        "--speculate=mixed",
        "--speculation.mixed.sources=[bigram]",
        "--speculation.mixed.draft_len=3",
    )
    assert (figures["calls"], figures["by_source"]) == (1, {"bigram": {"verified": 3, "accepted": 3}})


def test_text_is_read_with_a_tokenizer(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2, "?": 3}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    transcripts = write(
        tmp_path / "a.jsonl", {"id": "a", "group": "g", "prompt": "a b c a", "output": "b c a"}
    )
    figures = replayed(
        tmp_path,
        "--transcripts",
        transcripts,
        "--tokenizer",
        tmp_path,
        *CONTEXT,
    )
    assert (figures["calls"], figures["tokens"]) == (1, 3)


def test_a_corpus_is_taught_before_the_replay(tmp_path: Path) -> None:
    output = np.random.default_rng(0).permutation(400).tolist()
    row = {"id": "a", "group": "g", "prompt": [output[0], output[1]], "output": output[2:]}
    transcripts = write(tmp_path / "a.jsonl", row)
    corpus = write(tmp_path / "old.jsonl", {"output": output})
    plain, taught = (
        replayed(tmp_path, "--transcripts", transcripts, "--speculate=adaptive", *more)
        for more in ((), ("--speculation.corpus_path", corpus))
    )
    assert plain["tokens_per_call"] < 1.1, "every token occurs once"
    assert taught["tokens_per_call"] > 1.5


def test_a_corpus_of_text_needs_a_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    transcripts = write(tmp_path / "a.jsonl", ROW)
    corpus = ["--speculation.corpus_path", write(tmp_path / "old.jsonl", {"text": "a b"})]
    told = refusal(capsys, "--transcripts", transcripts, "--speculate=adaptive", *corpus)
    assert "old.jsonl holds text; give --tokenizer DIR, or token ids" in told


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{\n", "not JSON"),
        ("\n", "not JSON"),
        ("\0\0\0", "not JSON"),
        ("[1]\n", "found list"),
        ({"prompt": [1, -4], "output": [2]}, "prompt holds -4; a token id is an integer from 0"),
        ({"prompt": [1], "output": [2.5]}, "output holds 2.5"),
        ({"prompt": [1], "output": [True]}, "output holds true"),
        ({"prompt": [1], "output": [2**40]}, "output holds 1099511627776"),
        ({"prompt": [], "output": [2]}, "the prompt is empty"),
        ({"prompt": [1]}, "output is null"),
        ({"prompt": "a b", "output": [2]}, "prompt is text; give --tokenizer DIR"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: Any, complaint: str
) -> None:
    message = refusal(capsys, "--transcripts", write(tmp_path / "bad.jsonl", ROW, line))
    assert f"bad.jsonl, line 2: {complaint}" in message


def test_files_that_cannot_be_read_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "none.jsonl cannot be read: No such file" in refusal(
        capsys, "--transcripts", tmp_path / "none.jsonl"
    )
    assert "empty.jsonl is empty" in refusal(capsys, "--transcripts", write(tmp_path / "empty.jsonl"))
    torn = write(tmp_path / "torn.jsonl.gz", *[ROW] * 50)
    torn.write_bytes(torn.read_bytes()[:-20])
    assert "torn.jsonl.gz cannot be read" in refusal(capsys, "--transcripts", torn)
    (tmp_path / "plain.jsonl.gz").write_text(json.dumps(ROW))
    assert "plain.jsonl.gz cannot be read: Not a gzipped file" in refusal(
        capsys, "--transcripts", tmp_path / "plain.jsonl.gz"
    )


def test_outputs_without_tokens_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no output token" in refusal(
        capsys, "--transcripts", write(tmp_path / "a.jsonl", {**ROW, "output": []})
    )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--speculation.mixed.num_drafts=0"], "speculation.mixed.num_drafts is 0; it must be at least 1"),
        (["--batch_size=[0]"], "replay.batch_size is [0]; it must be integers of at least 1"),
        (
            ["--min_survival=[0.1, 0]"],
            "replay.min_survival is [0.1, 0.0]; it must be probabilities above 0 and at most 1",
        ),
        (
            ["--batch_size=[1, 4]"],
            "replay.batch_size is [1, 4]; several can be compared with replay.cost_model alone",
        ),
        (["--cost_model", "none.json"], "none.json cannot be read: No such file"),
        (["--cost_model", "README.md"], "README.md is no cost model"),
        (
            ["--cost_model", "none.json", "--min_survival=[0.2]"],
            "replay.min_survival and replay.cost_model are both given",
        ),
        (["--replay.drafting_us=5"], "replay.drafting_us is 5.0; it goes with replay.cost_model"),
        (
            ["--cost_model", "none.json", "--replay.drafting_us=-1"],
            "replay.drafting_us is -1.0; it must be at least 0",
        ),
        (
            ["--speculate=mixed", "--speculation.mixed.sources=[context, oracle]"],
            "'oracle'; known are context",
        ),
        (
            ["--speculate=mixed", "--speculation.mixed.sources=[unigram]"],
            "unigram cannot be learned from text; make one with jobs/build_tables.py",
        ),
        (
            ["--speculate=mixed", "--speculation.mixed.sources=[bigram]", "--tables=nowhere"],
            "no bigram table in nowhere",
        ),
        (["--speculate=off"], "speculation.mode is off, which drafts nothing"),
        (["--tokenizer", "nowhere"], "tokenizer.json cannot be read"),
        (["--json", "nowhere/out.json"], "No such file"),
        (["--row_price", "0.1"], "--row_price is now --min_survival"),
        (["--num_drafts", "5"], "--num_drafts is now --speculation.mixed.num_drafts"),
        (["--thinking_us", "5"], "--thinking_us is now --replay.drafting_us"),
    ],
)
def test_bad_settings_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    assert complaint in refusal(capsys, "--transcripts", write(tmp_path / "a.jsonl", ROW), *arguments)


def test_a_sweep_is_read_at_given_nodes_per_call(tmp_path: Path) -> None:
    rows = [
        {"id": i, "group": "g", "prompt": [5, 6], "output": [7, 8, 9, 5, 6, 7, 8, 9, 5, 6, 7, 8]}
        for i in range(3)
    ]
    transcripts = write(tmp_path / "a.jsonl", *rows)
    figures = replayed(tmp_path, "--transcripts", transcripts, "--min_survival=[1.0, 0.01]")
    expensive, cheap = figures["sweep"]
    assert (expensive["tokens_per_call"], expensive["nodes"]) == (1.0, 0)
    assert cheap["tokens_per_call"] > 3 and cheap["by_source"]["siblings"]["accepted"] > 0
    for run in (expensive, cheap):
        for source, counts in run["by_source"].items():
            for stage, count in counts.items():
                assert sum(row[stage] for row in run["candidates"] if row["source"] == source) == count
    assert expensive["tokens_per_call"] < figures["at_nodes"]["3"] < cheap["tokens_per_call"]
    assert figures["at_nodes"]["24"] is None


def test_rows_that_run_at_once_are_counted_like_rows_one_by_one(tmp_path: Path) -> None:
    transcripts = write(tmp_path / "a.jsonl", *[ROW] * 5)
    arguments = ("--transcripts", transcripts, *CONTEXT)
    assert replayed(tmp_path, *arguments, "--batch_size=[3]") == replayed(tmp_path, *arguments)
    assert replayed(tmp_path, *arguments, "--limit", 2)["tokens"] == 12


def test_what_a_job_has_learned_about_candidates_lies_beside_the_tables(tmp_path: Path) -> None:
    from drafting.adaptive.calibration import Calibration

    tables = tmp_path / "tables"
    tables.mkdir()
    np.savez(tables / "bigram.npz", ids=np.full((300, 4), -1, np.int32), made_from="a test")
    arguments = [
        "--transcripts",
        write(tmp_path / "a.jsonl", ROW),
        "--min_survival=[0.2]",
        "--tables",
        tables,
    ]
    trusting = replayed(tmp_path, *arguments)
    calibration = Calibration()
    calibration.weights[:] = -3.0
    calibration.save(tables / "calibration.npz")
    wary = replayed(tmp_path, *arguments)
    assert trusting["nodes"] > wary["nodes"] == 0


def cost_file(tmp_path: Path) -> Path:
    """A machine whose steps cost 10 ms and 1 ms per row, measured with at most 4 sequences."""
    sizes = [
        (sequences, nodes, context) for sequences in (1, 4) for nodes in (0, 1, 7) for context in (64, 512)
    ]
    shapes = [[s * (1 + n), s * c, s * (1 + n) * c, s, s * n] for s, n, c in sizes]
    path = tmp_path / "cost.json"
    fields = {"about": {"model": "tiny"}, "stairs": None, "coefficients": [1.0, 0, 0, 0, 0, 0], "scales": {}}
    path.write_text(
        json.dumps({**fields, "shapes": shapes, "seconds": [0.010 + 0.001 * shape[0] for shape in shapes]})
    )
    return path


def test_a_whole_job_is_simulated_at_each_batch_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"id": i, "group": "g", "prompt": [5, 6], "output": [7, 8, 9, 5, 6] * 24} for i in range(6)]
    arguments = [
        "--transcripts",
        write(tmp_path / "a.jsonl", *rows),
        "--replay.drafting_us=0",
        "--speculation.max_nodes_per_sequence=8",
    ]
    figures = replayed(tmp_path, *arguments, "--cost_model", cost_file(tmp_path), "--batch_size=[1, 6]")
    alone, together = figures["jobs"]
    # The first row computes its prompt of 2 tokens, the others find it: 12 ms, then 11 ms for every further
    # token.
    assert alone["plain"]["seconds"] == pytest.approx(0.012 + 719 * 0.011)
    assert together["plain"]["steps"] == 120
    assert together["plain"]["tokens_per_s"] == pytest.approx(720 / (0.017 + 119 * 0.016))
    assert alone["speedup"] > together["speedup"] > 1.2, "a row costs more where more run"
    assert alone["speedup"] == pytest.approx(alone["plain"]["seconds"] / alone["seconds"])
    assert alone["drafting_share"] == 0
    printed = capsys.readouterr().out
    assert "cost model: model tiny" in printed
    assert "[6] rows at once are more than the 4 that were profiled" in printed


def test_the_papers_fixed_strategy_is_simulated_too(tmp_path: Path) -> None:
    arguments = [
        "--transcripts",
        write(tmp_path / "a.jsonl", ROW),
        *CONTEXT,
        "--replay.drafting_us=0",
    ]
    (job,) = replayed(
        tmp_path,
        *arguments,
        "--speculation.mixed.num_drafts=2",
        "--speculation.mixed.draft_len=3",
        "--cost_model",
        cost_file(tmp_path),
    )["jobs"]
    # 7 nodes in 3 calls as without a machine; the first step also computes the 4 tokens of the prompt.
    assert (job["steps"], job["nodes_per_call"], job["price"]) == (3, 7 / 3, 0.0)
    assert job["seconds"] == pytest.approx(3 * 0.010 + 0.001 * (4 + 1 + 1 + 7))
