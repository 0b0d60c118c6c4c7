"""What is compiled and kept on disk is compiled again when something that it holds has changed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from drafting import compiled

USER = """from drafting.compiled import compiled
from example.helper import FACTOR, plus_one

@compiled
def answer(number):
    return FACTOR * plus_one(number)

print(answer(4), sum(answer.stats.cache_hits.values()))
"""
HELPER = """from drafting.compiled import compiled

FACTOR = {factor}

@compiled
def plus_one(number):
    return number + {one}
"""


@pytest.mark.slow
def test_a_change_in_another_file_of_the_folder_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "example"
    folder.mkdir()
    (folder / "user.py").write_text(USER)

    def write(factor: int, one: int) -> None:
        (folder / "helper.py").write_text(HELPER.format(factor=factor, one=one))

    def run() -> list[int]:
        """The answer, and how often code kept from an earlier run gave it."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
        command = [sys.executable, "-m", "example.user"]
        return [
            int(word)
            for word in subprocess.run(
                command, env=environment, capture_output=True, text=True, check=True
            ).stdout.split()
        ]

    write(factor=1, one=1)
    assert run() == [5, 0]
    assert run() == [5, 1]
    write(factor=2, one=1)
    assert run() == [10, 0], "a constant changed"
    write(factor=2, one=3)
    assert run() == [14, 0], "a function changed"


def test_a_change_in_drafting_is_noticed_by_other_packages(tmp_path: Path, monkeypatch) -> None:
    """The engine's draw holds the Gumbel numbers of drafting/gumbel.py."""
    for package in ("drafting", "engine"):
        (tmp_path / package).mkdir()
    source = tmp_path / "drafting" / "gumbel.py"
    source.write_text("SHIFT = 14")
    monkeypatch.setattr(compiled, "__file__", str(tmp_path / "drafting" / "compiled.py"))
    digest_of = compiled._digest_of.__wrapped__
    before = digest_of(tmp_path / "engine")
    assert digest_of(tmp_path / "engine") == before
    source.write_text("SHIFT = 14 + 1")
    assert digest_of(tmp_path / "engine") != before
