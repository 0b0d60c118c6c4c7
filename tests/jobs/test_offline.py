"""The offline job's checks: everything that is wrong is told in one line, before Ray or a model
is started.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from jobs import offline
from rows.output_folder import OutputFolder
from rows.parts import PartSummary
from tests.pipeline.test_resolve_model import make_model
from tests.time_limits import PROCESS_S

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: Any) -> None:
        raise AssertionError("Ray would have been started")

    monkeypatch.setattr(offline, "generate", started)


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    """A command that would run."""
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n')
    return [
        "--input",
        f"{tmp_path}/in.jsonl",
        "--output",
        f"{tmp_path}/out",
        "--model",
        str(make_model(tmp_path / "model")),
    ]


def refused(flags: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that is refused."""
    assert offline.main(flags) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and captured.err.startswith("error: ")
    return captured.err.removeprefix("error: ").strip()


def test_the_command_of_the_other_tests_would_run(flags: list[str]) -> None:
    with pytest.raises(AssertionError, match="Ray would have been started"):
        offline.main(flags)


@pytest.mark.parametrize(
    ("more", "error"),
    [
        (["--input", "nope.jsonl"], "input.path 'nope.jsonl' does not exist"),
        (["--output", ""], "output.path is empty; name a folder or URI (--output)"),
        (["--model", "./nope"], "model.path './nope' does not exist"),
        (
            ["--input.prompt_column", "promt"],
            "input.prompt_column is 'promt', but the input has no such column; did you mean 'prompt'?",
        ),
        (
            ["--input.prediction_column", "promt"],
            "input.prediction_column is 'promt', but the input has no such column; did you mean 'prompt'?",
        ),
        (
            ["--input.messages_column", "prompt"],
            "has no chat template, which input.messages_column needs; use input.prompt_column",
        ),
        (
            ["--speculation.mixed.draft_len", "0"],
            "speculation.mixed.draft_len is 0; it must be at least 1",
        ),
        (["--output.prefx", "x"], "unknown setting --output.prefx; did you mean --output.prefix?"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    flags: list[str], more: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = refused([*flags, *more], capsys)
    assert error in told


def test_a_corpus_that_cannot_be_read_is_refused_before_anything_starts(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = ["--speculation.corpus_path", f"{tmp_path}/old"]
    assert "speculation.corpus_path" in refused([*flags, *corpus], capsys)
    (tmp_path / "old").mkdir()
    assert "holds no files to read" in refused([*flags, *corpus], capsys)
    (tmp_path / "old" / "a.jsonl").write_text('{"answer": "a"}\n')
    assert "it has 'answer'; set speculation.corpus_column" in refused([*flags, *corpus], capsys)
    with pytest.raises(AssertionError, match="would have been started"):
        offline.main([*flags, *corpus, "--speculation.corpus_column", "answer"])


def test_a_column_clash_is_refused_and_a_prefix_helps(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "a", "generated_text": "b"}\n')
    assert refused(flags, capsys).startswith(
        "the input already has columns generated_text; set output.prefix"
    )
    with pytest.raises(AssertionError, match="would have been started"):
        offline.main([*flags, "--output.prefix", "new_"])


@pytest.mark.parametrize(
    ("column", "setting"),
    [
        ("samples", "--generation.n=2"),
        ("samples", "--output.samples=true"),
        ("logprobs", "--generation.logprobs=0"),
    ],
)
def test_a_column_that_only_some_settings_add_clashes_only_then(
    flags: list[str], tmp_path: Path, column: str, setting: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").write_text(f'{{"prompt": "a", "{column}": "b"}}\n')
    assert refused([*flags, setting], capsys).startswith(
        f"the input already has columns {column}; set output.prefix"
    )
    with pytest.raises(AssertionError, match="would have been started"):
        offline.main(flags)


def test_chats_in_a_batch_file_need_a_template_too(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = {
        "custom_id": "1",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"messages": [{"role": "user", "content": "x"}]},
    }
    (tmp_path / "in.jsonl").write_text(json.dumps(request))
    told = refused([*flags, "--input.format", "openai_batch"], capsys)
    assert told.endswith(
        "has no chat template, which the input needs; use input.prompt_column, or requests to /v1/completions"
    )


DRY_RUN = """
import sys
from jobs import offline
status = offline.main(sys.argv[1:])
print("status", status, "loaded", sorted({"torch", "transformers", "ray"} & set(sys.modules)))
"""


@pytest.mark.slow
def test_a_dry_run_shows_plan_and_prompts_writes_nothing_and_loads_neither_torch_nor_ray(
    tmp_path: Path,
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text('id,prompt,sampling\n007,"def f(x):\n    return",{}\n008,,\n')
    (tmp_path / "in" / "b.jsonl").write_text(
        '{"id": "9", "prompt": "import os", "sampling": {"top_k": 3}}\n' * 40
    )
    flags = [
        "--input",
        f"{tmp_path}/in",
        "--output",
        f"{tmp_path}/out",
        "--model",
        "demo/model",
        "--dry-run",
        "--generation.logprobs=1",
    ]
    done = subprocess.run(
        [sys.executable, "-c", DRY_RUN, *flags], cwd=ROOT, capture_output=True, text=True, timeout=PROCESS_S
    )
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    for shown in (
        "input files: 1 csv, 1 jsonl", f"{tmp_path}/in/a.csv (csv, 2 rows)", "rows 42",
        "shards 4 of up to 16 rows, 0 of them done",
        "columns in id: string", f"output {tmp_path}/out", "--- row 1: 7 tokens", "def f(x):",
        "--- row 2: the prompt is empty; give it at least one token", "--- row 3: 2 tokens, top_k 3",
        "import os",
        "status 0 loaded []",
    ):  # fmt: skip
        assert shown in lines, (shown, done.stdout, done.stderr)
    assert any(line.startswith("logprobs: list<") for line in lines)
    assert not (tmp_path / "out").exists()


def test_an_output_of_a_different_run_is_refused_with_what_differs(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(AssertionError, match="would have been started"):
        offline.main([*flags, "--generation.max_tokens", "9"])
    with pytest.raises(AssertionError, match="would have been started"):
        offline.main(flags)  # nothing came of the first start: a fixed command takes its place
    OutputFolder(str(tmp_path / "out")).write_part(7, pa.table({"x": [1]}), PartSummary())
    capsys.readouterr()
    assert "(generation.max_tokens: 256 -> 9)" in refused([*flags, "--generation.max_tokens", "9"], capsys)
    with pytest.raises(AssertionError, match="would have been started"):
        offline.main([*flags, "--speculate", "off", "--pool.num_workers", "3"])
    with pytest.raises(AssertionError, match="would have been started"):
        offline.main([*flags, "--input.prediction_column", "prompt"])


def test_a_submitted_job_needs_an_output_that_outlives_it(
    flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    told = refused([*flags, "--output", "out/demo"], capsys)
    assert (
        told == "output.path 'out/demo' is relative and would land in Ray's session folder; give an absolute "
        "path or a URI"
    )


def test_the_resolved_settings_lie_beside_the_output(flags: list[str], tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="would have been started"):
        offline.main(flags)
    record = json.loads((tmp_path / "out" / "_run" / "run.json").read_text())
    assert record["config"]["generation"]["max_tokens"] == 256
    assert (record["plan"]["num_rows"], record["plan"]["rows_per_shard"]) == (1, 16)
    assert set(record["versions"]) == {"ray", "torch", "transformers", "pyarrow"}


def test_the_script_runs_from_any_folder_and_exits_non_zero(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "jobs" / "offline.py", "--input", "x", "--output", "y"],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "",
        "error: model.path is empty; name a folder or a hub name (--model)\n",
    )
