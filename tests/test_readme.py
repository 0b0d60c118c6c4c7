"""What the README shows runs: make targets, jobs with their flags, and the Python example's names."""

import ast
import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from actors.generate import Generate
from engine.config import GenerationConfig
from tests.time_limits import PROCESS_S

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[list[str]]:
    """Words of each command, comments left out."""
    return [shlex.split(line, comments=True) for block in blocks("sh") for line in block.splitlines()]


def test_make_targets_exist() -> None:
    targets = {words[1] for words in commands() if words[0] == "make"}
    assert targets == {"offline", "test", "serve"}
    assert targets <= set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize(
    "job",
    ["jobs/offline.py", "jobs/serve.py", "jobs/build_tables.py", "jobs/record.py", "jobs/replay.py"],
)
def test_a_job_takes_the_flags_that_the_readme_gives_it(job: str) -> None:
    uses = [words[words.index(job) + 1 :] for words in commands() if job in words]
    assert uses
    shown = subprocess.run(
        [sys.executable, job, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=PROCESS_S
    )
    assert shown.returncode == 0, shown.stderr
    known = set(re.findall(r"--([\w.]+)", shown.stdout))
    given = {word[2:] for words in uses for word in words if word.startswith("--")}
    assert sorted(given - known) == []
    assert [
        word for words in uses for word in words if word.endswith(".yaml") and not (ROOT / word).is_file()
    ] == []


def test_flags_named_in_the_text_exist() -> None:
    shown = subprocess.run(
        [sys.executable, "jobs/offline.py", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PROCESS_S,
    )
    named = set(re.findall(r"`--([\w.]+)", README)) - {"help", "workload"}  # workload is a benchmark's
    assert {"input.prompt_column", "speculation.mode"} <= named
    assert sorted(named - set(re.findall(r"--([\w.]+)", shown.stdout))) == []


def test_the_python_example_calls_the_callable_with_settings_that_it_has() -> None:
    (example,) = blocks("python")
    calls = [node for node in ast.walk(ast.parse(example)) if isinstance(node, ast.Call)]
    keywords = {keyword.arg: keyword.value for call in calls for keyword in call.keywords}
    given = set(ast.literal_eval(keywords["fn_constructor_kwargs"]))
    assert given == {"model", "max_tokens"}
    assert given <= set(inspect.signature(Generate).parameters) | set(
        inspect.signature(GenerationConfig).parameters
    )
