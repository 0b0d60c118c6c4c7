"""Compiled code reads whatever an index points to, so indices must stay inside of their arrays.

`make test` runs these and all other tests of engine and drafting with NUMBA_BOUNDSCHECK=1 as well.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from drafting.adaptive.adaptive_proposer import AdaptiveProposer
from drafting.adaptive.layout import BIGRAM
from drafting.tables import Tables
from drafting.tree import Int32

PASSAGE = [0, *range(1, 30)]  # longer than a match for which only the two likeliest successors are looked up


def weighed_tokens(bigram: Int32 | None) -> set[tuple[int, bool]]:
    """What is weighed after a repeated passage: tokens, and whether the bigram table knows them."""
    proposer = AdaptiveProposer(max_nodes=20, corpus_tokens=1000, tables=Tables(bigram=bigram))
    state = proposer.start(np.array([*PASSAGE, *PASSAGE, *PASSAGE[:20]], np.int32))
    trees = proposer.propose([state], np.array([20], np.int32))
    assert trees.weighed is not None
    candidates, _, offsets, _, _ = trees.weighed
    return {(int(c["token"]), bool(c["rank"] >= 0)) for c in candidates[: offsets[1]]}


def test_a_table_of_one_column_has_no_second_successor_after_a_long_match() -> None:
    bigram = np.arange(100, 130, dtype=np.int32)[:, None]
    tokens = weighed_tokens(bigram)
    assert {token for token, in_table in tokens if in_table} <= {*range(100, 130)}
    # The tree is a chain; each node has the successor that the text shows and the one of its own row.
    chain = [*PASSAGE[19:], *PASSAGE]
    successors = {token + 100 for token in chain[:20]}
    assert {token for token, _ in tokens} <= {*chain, *successors}


@pytest.mark.parametrize("bigram", [None, np.empty((0, 4), np.int32), np.empty((30, 0), np.int32)])
def test_without_a_table_nothing_is_read_from_one(bigram: Int32 | None) -> None:
    tokens = weighed_tokens(bigram)
    assert tokens
    assert all(token in PASSAGE and not in_table for token, in_table in tokens)


def test_the_source_of_a_table_is_the_last_one() -> None:
    assert AdaptiveProposer.source_names[BIGRAM] == "bigram"


CHECK = """import numpy as np
from drafting.compiled import compiled, compiled_lean, compiled_sums

{decorators}

for function in (whole, lean, sums):
    try:
        print(function(np.arange(9.0)[:5], 7))
    except IndexError:
        print("IndexError")
"""


@pytest.mark.slow
def test_with_checks_a_wrong_index_raises_in_every_kind_of_compiled_function(tmp_path: Path) -> None:
    kinds = {"whole": "compiled", "lean": "compiled_lean", "sums": "compiled_sums"}
    functions = [f"@{how}\ndef {name}(array, i):\n    return array[i]\n" for name, how in kinds.items()]
    (tmp_path / "reader.py").write_text(CHECK.format(decorators="\n".join(functions)))

    def run(checks: str) -> list[str]:
        path = os.pathsep.join([str(tmp_path), *sys.path])
        environment = {**os.environ, "PYTHONPATH": path, "NUMBA_BOUNDSCHECK": checks}
        command = [sys.executable, "-m", "reader"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return [line for line in done.stdout.split("\n") if line and not line.startswith("debug")]

    unchecked = ["7.0"] * 3
    assert run("0") == unchecked
    assert run("1") == ["IndexError"] * 3, "code without checks was taken from the disk cache"
    assert run("0") == unchecked, "code with checks was taken from the disk cache"
