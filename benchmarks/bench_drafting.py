"""What drafting costs on the host: propose, choose and learn of the adaptive proposer alone, without any
model.

    python -m benchmarks.bench_drafting                        # 64 sequences that have 2000 tokens each
    python -m benchmarks.bench_drafting --sequences 16 --context 200 --min_survival 0.3

The text is made here, from one seed: each token has its likely successors, and phrases are copied from the
same text and from others. Thread CPU time, in microseconds per sequence and step; the first steps compile and
teach calibration, and do not count.
"""

import argparse
import json
from collections.abc import Callable
from time import thread_time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.measure import environment
from drafting.adaptive.adaptive_proposer import AdaptiveProposer
from drafting.adaptive.controller import choose
from drafting.tables import Tables
from drafting.tree import DraftTrees, walk

VOCABULARY = 4096
NUM_SUCCESSORS = 16
SHARES = 1.0 / np.arange(1, NUM_SUCCESSORS + 1) ** 1.5  # of a token's successors, by rank
# how often a phrase begins that was said before, and its mean length
COPIES = 0.05
PHRASE = 12
WARM_STEPS = 60
PARTS = ("propose", "choose", "learn")
COUNTS = ("nodes", "chosen", "tokens")


def make_texts(count: int, length: int, seed: int = 0) -> tuple[list[NDArray[np.int32]], NDArray[np.int32]]:
    """Texts, and each token's successors, likeliest first, int32 [V, R]."""
    rng = np.random.default_rng(seed)
    successors = (VOCABULARY * rng.random((VOCABULARY, NUM_SUCCESSORS)) ** 3).astype(
        np.int32
    )  # small ids are common
    cumulated = np.cumsum(SHARES / SHARES.sum())
    texts: list[NDArray[np.int32]] = []
    for number in range(count):
        text = [0]
        copied: list[int] = []
        while len(text) < length:
            if not copied and rng.random() < COPIES:
                source = texts[rng.integers(number)] if number and rng.random() < 0.3 else np.array(text)
                start = int(rng.integers(len(source)))
                copied = source[start : start + int(rng.geometric(1 / PHRASE))].tolist()[::-1]
            text.append(
                copied.pop()
                if copied
                else int(successors[text[-1], np.searchsorted(cumulated, rng.random())])
            )
        texts.append(np.array(text, np.int32))
    return texts, successors


def measure(
    texts: list[NDArray[np.int32]], successors: NDArray[np.int32], context: int, min_survival: float
) -> dict[str, float]:
    """Runs all texts at once from `context` tokens to their ends; candidates that survive twice as often as
    those looked at are chosen.
    """
    proposer = AdaptiveProposer(
        max_nodes=64, corpus_tokens=1 << 20, tables=Tables(bigram=successors[:, :8].copy())
    )
    states = [proposer.start(text[:context], f"group {number // 4}") for number, text in enumerate(texts)]
    done = np.full(len(texts), context)
    depths = np.full(len(texts), 64, np.int32)
    spent: dict[str, list[float]] = {name: [] for name in (*PARTS, *COUNTS)}

    def timed(part: str, call: Callable[..., Any], *args: Any) -> Any:
        start = thread_time()
        result = call(*args)
        spent[part].append(1e6 * (thread_time() - start))
        return result

    while (done + 65 < [len(text) for text in texts]).all():
        candidates = timed("propose", proposer.propose, states, depths, min_survival)
        costs = 2 * min_survival * np.arange(len(candidates.token_ids) + 1.0)
        trees = timed("choose", choose, candidates, costs, 1.0)
        emitted = [
            accepted(trees, number, text[start:])
            for number, (text, start) in enumerate(zip(texts, done, strict=True))
        ]
        offsets = np.cumsum([0, *map(len, emitted)])
        timed("learn", proposer.learn, states, candidates, np.concatenate(emitted), offsets)
        done += np.diff(offsets)
        for name, count in (
            ("nodes", len(candidates.token_ids)),
            ("chosen", len(trees.token_ids)),
            ("tokens", int(offsets[-1])),
        ):
            spent[name].append(count)
    # Times by their median: on a shared machine some steps find their caches in use by others.
    means = {
        name: float((np.median if name in PARTS else np.mean)(values[WARM_STEPS:]))
        for name, values in spent.items()
    }
    return {name: mean / len(texts) for name, mean in means.items()}


def accepted(trees: DraftTrees, number: int, following: NDArray[np.int32]) -> NDArray[np.int32]:
    """What a step gives when the model says `following`."""
    return following[: len(walk(trees, number, following)) + 1]


def main() -> None:
    """One table line per floor of survival, then one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--context", type=int, default=2000, help="tokens of each sequence at the first step")
    parser.add_argument(
        "--tokens", type=int, default=400, help="that each sequence gets at most, beside the 65 that end it"
    )
    parser.add_argument("--min_survival", type=float, nargs="+", default=[0.3, 0.2, 0.1, 0.05, 0.02])
    arguments = parser.parse_args()
    table = Table(
        "floor", *PARTS, *COUNTS, "in all", title="microseconds, nodes and tokens per sequence and step"
    )
    texts, successors = make_texts(arguments.sequences, arguments.context + arguments.tokens + 65)
    results = []
    for min_survival in arguments.min_survival:
        found = measure(texts, successors, arguments.context, min_survival)
        total = sum(found[part] for part in PARTS)
        table.add_row(
            f"{min_survival:g}", *(f"{found[name]:.2f}" for name in (*PARTS, *COUNTS)), f"{total:.1f}"
        )
        results.append(
            {"min_survival": min_survival, **{name: round(value, 3) for name, value in found.items()}}
        )
    Console().print(table)
    title = {"title": "drafting", "sequences": arguments.sequences, "context": arguments.context}
    print(json.dumps({**title, "runs": results, **environment()}))


if __name__ == "__main__":
    main()
