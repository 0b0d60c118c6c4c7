"""How a target token is made from logits, written a second time: plain Python that sorts, in float64.

Shares no code with engine/sampling.py, whose rule is: float32 logits, then temperature, top_k, top_p (of what
top_k left) and min_p; of equal logits the lowest id first; a draw by inverse CDF in vocabulary order, by a
uniform number that two rounds of splitmix64 make of seed and output position.
"""

from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from drafting.sampling import Sampling

MASK = 0xFFFFFFFFFFFFFFFF


class Target(NamedTuple):
    """The token that the rule gives.

    is_close: logits and probabilities that differ by a tiny share may give another.
    """

    token: int
    is_close: bool


def target(logits: NDArray[np.float32], sampling: Sampling, position: int, close: float) -> Target:
    """The token at an output position, by its logits float32 [V]; close: the share that counts as tiny."""
    exact = logits.astype(np.float64)
    ranked = np.argsort(-exact, kind="stable")
    if sampling.temperature == 0:
        return Target(int(ranked[0]), bool(exact[ranked[0]] - exact[ranked[1]] < close))
    shares = np.exp((exact - exact.max()) / sampling.temperature)
    kept, is_close = _kept(shares, ranked.tolist(), sampling, close)
    in_order = sorted(kept)
    sums = list(accumulate(float(shares[token]) for token in in_order))
    wanted = uniform(sampling.seed, position) * sums[-1]
    place = next((n for n, reached in enumerate(sums) if reached > wanted), len(sums) - 1)
    at_edge = any(abs(reached - wanted) < close * sums[-1] for reached in sums[:-1])
    return Target(in_order[place], is_close or at_edge)


def _kept(
    shares: NDArray[np.float64], ranked: list[int], sampling: Sampling, close: float
) -> tuple[list[int], bool]:
    """The tokens that the filters leave, and whether a limit lies between two of nearly equal
    probability.
    """
    kept = ranked[: sampling.top_k] if sampling.top_k else ranked
    is_close = len(kept) < len(ranked) and _near(shares[kept[-1]], shares[ranked[len(kept)]], close)
    if sampling.top_p < 1:
        limit = sampling.top_p * sum(float(shares[token]) for token in kept)
        before = [0.0, *accumulate(float(shares[token]) for token in kept)]
        is_close |= any(_near(sum_before, limit, close) for sum_before in before)
        kept = [token for token, sum_before in zip(kept, before, strict=False) if sum_before < limit]
    if sampling.min_p > 0:
        is_close |= any(_near(shares[token], sampling.min_p, close) for token in kept)
        kept = [token for token in kept if shares[token] >= sampling.min_p]
    return kept, is_close


def _near(one: Any, other: Any, close: float) -> bool:
    return bool(abs(one - other) <= close * max(one, other))


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) for a seed, of which 64 bits count, and an output position."""
    return (_splitmix64((_splitmix64(seed & MASK) + position) & MASK) >> 11) * 2.0**-53


def _splitmix64(state: int) -> int:
    z = (state + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)
