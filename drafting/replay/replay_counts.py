"""What recorded outputs would have taken with drafts: forward passes, tokens and nodes, and their figures.

Owns the counting. Does not know files, text, or how drafts are made.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from drafting.tree import DraftTrees, Int32, Int64, walk


@dataclass
class ReplayCounts:
    """Counts of a replay.

    calls: forward passes that gave output; nodes: verified nodes; verified, accepted: by source.
    """

    calls: int = 0
    tokens: int = 0
    nodes: int = 0
    verified: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: "ReplayCounts") -> "ReplayCounts":
        return ReplayCounts(
            *(mine + theirs for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True))
        )

    def by_source(self, source_names: Iterable[str]) -> dict[str, dict[str, int]]:
        """Verified and accepted nodes of each source."""
        return {
            name: {"verified": self.verified[name], "accepted": self.accepted[name]} for name in source_names
        }

    def per_call(self) -> dict[str, float]:
        """Tokens and nodes per call."""
        return {"tokens_per_call": self.tokens / self.calls, "nodes_per_call": self.nodes / self.calls}


def accept(
    trees: DraftTrees, number: int, rest: Int32, source_names: Sequence[str], counts: ReplayCounts
) -> tuple[Int32, Int64]:
    """What a call gives of the rest of a recorded text: the accepted nodes of a tree, and one token more.

    Returns the tokens, and the accepted nodes as indices into the trees. Output [5 6 7 8 9] with 2, 0, then
    all drafts right: calls give 5 6 7, 8, 9: 3 calls, 5 tokens.
    """
    first = trees.offsets[number]
    sources = trees.sources[first : trees.offsets[number + 1]].tolist()
    path = walk(trees, number, rest)
    accepted = first - 1 + path
    tokens = rest[: len(path) + 1]
    counts.calls += 1
    counts.tokens += len(tokens)
    counts.nodes += len(sources)
    counts.verified.update(source_names[source] for source in sources)
    counts.accepted.update(source_names[source] for source in trees.sources[accepted].tolist())
    return tokens, accepted


def figures_of(groups: dict[str, ReplayCounts], source_names: Iterable[str]) -> dict[str, Any]:
    """The figures of a replay in all, by source and by group, ready for JSON."""
    total = sum(groups.values(), ReplayCounts())
    return {
        **total.per_call(),
        "calls": total.calls,
        "tokens": total.tokens,
        "nodes": total.nodes,
        "by_source": total.by_source(source_names),
        "by_group": {name: counts.per_call() for name, counts in sorted(groups.items())},
    }


def at_nodes(sweep: Sequence[dict[str, Any]], nodes_per_call: Sequence[float]) -> dict[str, float | None]:
    """Tokens per call at the given nodes per call, linearly between the figures of a sweep; None where it
    does not reach.
    """
    points = sorted((figures["nodes_per_call"], figures["tokens_per_call"]) for figures in sweep)
    nodes = [nodes for nodes, _ in points]
    tokens = [tokens for _, tokens in points]
    return {
        f"{n:g}": float(np.interp(n, nodes, tokens)) if nodes[0] <= n <= nodes[-1] else None
        for n in nodes_per_call
    }
