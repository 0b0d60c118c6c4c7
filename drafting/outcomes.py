"""What became of candidates: how many were proposed, verified and accepted, by source and more.

Owns the counts and their names. Does not know which candidates are chosen, nor how they are verified.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drafting.adaptive.layout import Int64
from drafting.compiled import compiled
from drafting.tree import DraftTrees, Int32

STAGES = ("proposed", "verified", "accepted")
DEPTHS = ("1", "2", "3", "4", "5-8", "9+")
MATCHES = ("none", "1", "2", "3-4", "5-8", "9-16", "17+")
_DEPTH_OF = np.searchsorted((2, 3, 4, 5, 9), np.arange(10), side="right")
_MATCH_OF = np.searchsorted((1, 2, 3, 5, 9, 17), np.arange(256), side="right")


class CandidateCounts:
    """table int64 [stages, sources, depths, matches]; a node counts in every stage that it reached."""

    def __init__(self, source_names: Sequence[str]) -> None:
        self.source_names = tuple(source_names)
        self.table = np.zeros((len(STAGES), len(source_names), len(DEPTHS), len(MATCHES)), np.int64)

    def add(self, candidates: DraftTrees, trees: DraftTrees, accepted: Int64) -> None:
        """Counts a step. trees: the verified nodes; accepted: the accepted ones, as indices."""
        for stage, nodes in enumerate((candidates, trees)):
            if len(nodes.sources):
                _add(self.table[stage], nodes.sources, nodes.depths, nodes.matches)
        if len(accepted):
            _add(self.table[2], trees.sources[accepted], trees.depths[accepted], trees.matches[accepted])

    def by_source(self, stage: str) -> dict[str, int]:
        """The nodes that reached a stage, by source; sources without any are left out."""
        totals = self.table[STAGES.index(stage)].sum((1, 2)).tolist()
        return {name: total for name, total in zip(self.source_names, totals, strict=True) if total}

    def figures(self) -> list[dict[str, Any]]:
        """The counts as records, ready for JSON."""
        return [
            {"source": source, "depth": depth, "match": match, **dict(zip(STAGES, counts, strict=True))}
            for source, depth, match, counts in self.entries()
        ]

    def entries(self) -> Iterator[tuple[str, str, str, list[int]]]:
        """Source, depth, match and the counts of the stages, where any node was counted."""
        for source, depth, match in np.argwhere(self.table.any(0)).tolist():
            yield (
                self.source_names[source],
                DEPTHS[depth],
                MATCHES[match],
                self.table[:, source, depth, match].tolist(),
            )


@compiled
def _add(table_SDM: Int64, sources: NDArray[np.uint8], depths: Int32, matches: NDArray[np.uint8]) -> None:
    for i in range(len(sources)):
        table_SDM[sources[i], _DEPTH_OF[min(depths[i], 9)], _MATCH_OF[matches[i]]] += 1
