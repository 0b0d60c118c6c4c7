"""Which candidates are worth verifying in this step: pure functions of survival, cost and price.

Owns the choice over all sequences at once. Does not know how survival is estimated, nor where the costs come from.
"""

import numpy as np
from numpy.typing import NDArray

from drafting.tree import Candidates, DraftTrees, prune


def choose(candidates: Candidates, extra_cost: NDArray[np.float64], price: float) -> tuple[DraftTrees, float]:
    """The B* best candidates over all sequences, and how many of them are expected to be accepted.

    B* = argmax over B of (sum of the B best survivals) - price x (cost(B) - cost(0)).
    extra_cost float64 [M + 1], seconds: what B = 0 .. M nodes add to the step; it may be a staircase. price: tokens per
    second that the job makes now. At most M nodes are chosen; of equal values the smaller B wins, and 0 is the plain step.
    """
    order = np.argsort(-candidates.survival, kind="stable")[: len(extra_cost) - 1]
    value = np.cumsum(candidates.survival[order], dtype=np.float64) - price * (extra_cost[1 : len(order) + 1] - extra_cost[0])
    best = int(np.argmax(value)) + 1 if len(value) and value.max() > 0 else 0
    keep = np.zeros(len(candidates.token_ids), np.bool_)
    keep[order[:best]] = True
    return prune(candidates, keep), float(candidates.survival[order[:best]].sum())


def choose_likely(candidates: Candidates, row_price: float) -> DraftTrees:
    """Every candidate whose survival is at least row_price: the choice where one more row always costs the same."""
    return prune(candidates, candidates.survival >= row_price)
