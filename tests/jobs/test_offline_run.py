"""Whole runs on a local Ray with a tiny random model in float64: every row once, the same text however a run
is broken.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs import offline
from tests.time_limits import PROCESS_S

pytestmark = pytest.mark.ray
ROOT = Path(__file__).parent.parent.parent
NUM_ROWS = 60
ROWS_PER_SHARD = 4
MAX_TOKENS = 100
NUM_SHARDS = NUM_ROWS // ROWS_PER_SHARD
BAD_ROWS = {7: b"not json", 11: b'{"id": 11}', 13: json.dumps({"id": 13, "prompt": "x" * 300}).encode()}


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 rows of which 3 are bad; row 5 brings settings of its own."""
    lines = [json.dumps({"id": i, "prompt": f"row {i} " + "abc" * (i % 5)}).encode() for i in range(NUM_ROWS)]
    lines[5] = b'{"id": 5, "prompt": "row", "sampling": {"max_tokens": 3, "temperature": 0.0}}'
    file = tmp_path_factory.mktemp("input") / "prompts.jsonl"
    file.write_bytes(b"\n".join([BAD_ROWS.get(i, line) for i, line in enumerate(lines)]) + b"\n")
    return file


@pytest.fixture(scope="module")
def command(prompts: Path, tiny_folder: Path) -> Callable[..., list[str]]:
    """Flags of a sampled run that takes some seconds: few sequences at once."""

    def flags(output: Path, *more: str) -> list[str]:
        settings = {
            "input": prompts, "output": output, "model": tiny_folder, "model.dtype": "float64",
            "model.max_running": 4,
            "generation.max_tokens": MAX_TOKENS, "generation.temperature": 0.8,
            "generation.ignore_eos": "true",
            "input.rows_per_shard": ROWS_PER_SHARD, "output.generated_ids": "true",
        }  # fmt: skip
        return [*(f"--{key}={value}" for key, value in settings.items()), *more]

    return flags


@pytest.fixture(scope="module")
def unbroken(
    command: Callable[..., list[str]], ray_session: None, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """The rows of a run that nothing disturbs, with other shards and without speculation."""
    output = tmp_path_factory.mktemp("unbroken")
    assert offline.main(command(output, "--input.rows_per_shard=16", "--speculate=off")) == 0
    return rows(output)


def rows(output: Path) -> list[dict[str, Any]]:
    parts = sorted(output.glob("part-*.parquet"))
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


def texts(found: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [
        (row["id"], row["generated_ids"], row["generated_text"], row["finish_reason"], row["error"])
        for row in found
    ]


def parts(output: Path) -> int:
    return len(list(output.glob("part-*.parquet")))


def wait_for(condition: Callable[[], bool], what: str, seconds: float = PROCESS_S) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.02)


def descendants(pid: int) -> dict[int, str]:
    """All processes below this one, with what they call themselves."""
    parents: dict[int, int] = {}
    titles: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it may end meanwhile
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            titles[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    found = {}
    layer = {pid}
    while layer := {child for child, parent in parents.items() if parent in layer}:
        found |= {child: titles.get(child, "") for child in layer}
    return found


def test_every_row_comes_out_once_in_order_with_its_columns(unbroken: list[dict[str, Any]]) -> None:
    assert [row["id"] for row in unbroken] == [None if i == 7 else i for i in range(NUM_ROWS)]
    assert [i for i, row in enumerate(unbroken) if row["error"]] == sorted(BAD_ROWS)
    assert (
        unbroken[7]["error"] == "the line is not JSON: Expecting value: line 1 column 1 (char 0); fix the row"
    )
    assert unbroken[13]["error"].startswith("the prompt has 300 tokens; the context is 256")
    assert {(row["finish_reason"], row["num_generated_tokens"]) for row in unbroken} == {
        ("length", 100),
        ("length", 3),
        ("error", 0),
    }
    assert unbroken[5]["num_generated_tokens"] == 3
    assert len({row["generated_text"] for row in unbroken if not row["error"]}) == NUM_ROWS - len(BAD_ROWS)


def test_the_job_and_the_bare_engine_give_the_same_tokens(
    unbroken: list[dict[str, Any]], prompts: Path, tiny_folder: Path
) -> None:
    from drafting.config import SpeculationConfig
    from drafting.sampling import Sampling
    from engine.build import build_engine
    from engine.config import ModelConfig
    from engine.request import Request
    from rows.prompts import row_seed

    lines = prompts.read_bytes().split(b"\n")
    requests = []
    for index in (0, 1, 2, 30):
        offset = sum(len(line) + 1 for line in lines[:index])
        sampling = Sampling(temperature=0.8, seed=row_seed(0, "prompts.jsonl", offset))
        requests.append(
            Request(
                str(index),
                tuple(json.loads(lines[index])["prompt"].encode()),
                MAX_TOKENS,
                sampling,
                ignore_eos=True,
            )
        )
    engine = build_engine(ModelConfig(path=str(tiny_folder), dtype="float64"), SpeculationConfig(mode="off"))
    for completion in engine.generate(requests):
        assert list(completion.token_ids) == unbroken[int(completion.request_id)]["generated_ids"]


def test_a_worker_killed_midway_loses_and_repeats_nothing(
    command: Callable[..., list[str]],
    unbroken: list[dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    killed: list[int] = []

    def kill_midway() -> None:
        wait_for(lambda: parts(tmp_path) >= 2, "two parts")
        worker = next(pid for pid, title in descendants(os.getpid()).items() if "BatchWorker" in title)
        assert parts(tmp_path) < NUM_SHARDS
        os.kill(worker, signal.SIGKILL)
        killed.append(worker)

    killer = threading.Thread(target=kill_midway)
    killer.start()
    assert offline.main(command(tmp_path)) == 0
    killer.join()
    assert len(killed) == 1
    assert texts(rows(tmp_path)) == texts(unbroken)
    first = capsys.readouterr().out
    assert offline.main(command(tmp_path)) == 0, "a finished output is left as it is"
    again = capsys.readouterr().out
    assert re.search(r"^rows +60\b", first, re.MULTILINE) and re.search(r"^rows +60\b", again, re.MULTILINE)
    assert "nothing left to do" in again and "nothing left to do" not in first


def test_a_driver_killed_midway_is_continued_by_the_same_command(
    command: Callable[..., list[str]], unbroken: list[dict[str, Any]], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    argv = [
        sys.executable,
        str(ROOT / "jobs" / "offline.py"),
        *command(output, "--generation.max_tokens=100"),
    ]
    first = subprocess.Popen(
        argv, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: parts(output) >= 2, "two parts")
        orphans = descendants(first.pid)
    finally:
        first.kill()
        first.wait()
    for pid in orphans:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    done_before = parts(output)
    assert 2 <= done_before < NUM_SHARDS
    (output / "_run" / "tmp" / "part-00000014.parquet.torn").write_bytes(b"PAR1")
    argv += ["--input.order", "longest_first"]  # decides how fast the rows come, so it may change
    second = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=PROCESS_S)
    assert second.returncode == 0, second.stderr
    assert f"60 rows in 15 shards, {done_before} of them done" in second.stderr
    assert texts(rows(output)) == texts(unbroken)
    assert list((output / "_run" / "tmp").iterdir()) == []
    report = json.loads((output / "_run" / "report.json").read_text())
    assert (report["rows"], report["errors"], report["tokens"]) == (NUM_ROWS, 3, 56 * MAX_TOKENS + 3)
    assert report["cached_tokens"] + report["prefilled_tokens"] == report["prompt_tokens"] > 0


def test_gpus_that_are_not_there_fail_the_job_within_seconds(
    command: Callable[..., list[str]], ray_session: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = time.monotonic()
    assert offline.main(command(tmp_path, "--pool.gpus_per_worker=1")) == 2
    assert time.monotonic() - start < 10
    assert "error: the pool needs 1 GPUs, but this cluster has 0;" in capsys.readouterr().err


def test_a_model_that_breaks_while_loading_is_told_in_one_line(
    command: Callable[..., list[str]],
    ray_session: None,
    tiny_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = tmp_path / "model"
    broken.mkdir()
    for file in tiny_folder.iterdir():
        (broken / file.name).write_bytes(
            file.read_bytes().replace(b'"hidden_size": 64', b'"hidden_size": 32')
        )
    assert offline.main(command(tmp_path / "out", f"--model={broken}")) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"failed: model.path '{broken}' cannot be loaded: ")
    assert "ValueError" in (tmp_path / "out" / "_run" / "failure.txt").read_text()
