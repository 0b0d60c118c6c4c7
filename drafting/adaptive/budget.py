"""Which candidates are worth verifying in this step: pure functions of survival, cost and price.

Owns the choice over all sequences at once. Does not know how survival is estimated, nor where the costs come from.
"""

import numpy as np
from numpy.typing import NDArray

from drafting.compiled import compiled
from drafting.tree import Candidates, DraftTrees, prune


def choose(candidates: Candidates, extra_cost: NDArray[np.float64], price: float) -> tuple[DraftTrees, float]:
    """The B* best candidates over all sequences, and how many of them are expected to be accepted.

    B* = argmax over B of (sum of the B best survivals) - price x (cost(B) - cost(0)).
    extra_cost float64 [M + 1], seconds: what B = 0 .. M nodes add to the step; it may be a staircase. price: tokens per
    second that the job makes now. At most M nodes are chosen; of equal values the smaller B wins, and 0 is the plain step.
    """
    keep, expected = _best(candidates.survival, extra_cost, float(price))
    return prune(candidates, keep), float(expected)


def choose_likely(candidates: Candidates, row_price: float) -> DraftTrees:
    """Every candidate whose survival is at least row_price: the choice where one more row always costs the same."""
    return prune(candidates, candidates.survival >= row_price)


@compiled
def _best(
    survival: NDArray[np.float32], extra_cost: NDArray[np.float64], price: float
) -> tuple[NDArray[np.bool_], float]:
    """Which candidates are the B* best, and their survivals' sum."""
    order = np.argsort(-survival, kind="mergesort")  # stable: a parent comes before a child that is as likely
    keep, total, expected, most, best = np.zeros(len(survival), np.bool_), 0.0, 0.0, 0.0, 0
    for i in range(min(len(order), len(extra_cost) - 1)):
        total += survival[order[i]]
        value = total - price * (extra_cost[i + 1] - extra_cost[0])
        if value > most:
            most, expected, best = value, total, i + 1
    keep[order[:best]] = True
    return keep, expected
