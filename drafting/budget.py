"""Which candidates are worth verifying in this step: pure functions of survival, cost and price.

Owns the choice over all sequences at once. Does not know how survival is estimated, nor where the costs come from.
"""

import numpy as np
from numpy.typing import NDArray

from drafting.compiled import compiled
from drafting.tree import Candidates, DraftTrees, Int32


def choose(candidates: Candidates, extra_cost: NDArray[np.float64], price: float) -> DraftTrees:
    """The B* best candidates over all sequences, B* = argmax of (sum of the B best survivals) - price x (cost(B) - cost(0)).

    extra_cost float64 [M + 1], seconds: what B = 0 .. M nodes add to the step; it may be a staircase. price: tokens per
    second that the job makes now. At most M nodes are chosen; of equal values the smaller B wins, and 0 is the plain step.
    """
    order = np.argsort(-candidates.survival, kind="stable")[: len(extra_cost) - 1]
    value = np.cumsum(candidates.survival[order], dtype=np.float64) - price * (extra_cost[1 : len(order) + 1] - extra_cost[0])
    best = int(np.argmax(value)) + 1 if len(value) and value.max() > 0 else 0
    return _pick(candidates, order[:best])


def choose_likely(candidates: Candidates, row_price: float) -> DraftTrees:
    """Every candidate whose survival is at least row_price: the choice where one more row always costs the same."""
    return _pick(candidates, np.flatnonzero(candidates.survival >= row_price))


def _pick(candidates: Candidates, chosen: NDArray[np.int64]) -> DraftTrees:
    if len(chosen) == 0:
        return DraftTrees.empty(len(candidates.offsets) - 1)
    if len(chosen) == len(candidates.token_ids):
        return DraftTrees(candidates.token_ids, candidates.parents, candidates.depths, candidates.sources, candidates.offsets)
    kept = np.sort(chosen)
    offsets = np.searchsorted(kept, candidates.offsets).astype(np.int64)
    parents = _renumber(candidates.parents, candidates.offsets, kept, offsets)
    return DraftTrees(candidates.token_ids[kept], parents, candidates.depths[kept], candidates.sources[kept], offsets)


@compiled
def _renumber(parents: Int32, offsets: NDArray[np.int64], kept: NDArray[np.int64], kept_offsets: NDArray[np.int64]) -> Int32:
    """The parents of the kept nodes, counted among the kept. A parent is never less likely than its child, so it is kept too."""
    new_parents = np.empty(len(kept), np.int32)
    numbers = np.zeros(len(parents) + 1, np.int32)
    for b in range(len(offsets) - 1):
        for i in range(kept_offsets[b], kept_offsets[b + 1]):
            numbers[kept[i]] = i - kept_offsets[b] + 1
            parent = parents[kept[i]]
            new_parents[i] = numbers[offsets[b] + parent - 1] if parent > 0 else 0
            assert new_parents[i] > 0 or parent == 0, "a chosen node without its parent"
    return new_parents
