"""How a target token is made from logits, written a second time: plain Python that sorts, in float64.

Shares no code with engine/ and drafting/, whose rule is: float32 logits, then temperature, top_k, top_p (of
what top_k left) and min_p; of equal logits the lowest id first; of what is left the token with the largest
logit / temperature + Gumbel number. That number is made of seed, output position and token id, by splitmix64
and a keyed hash of 32 bits.
"""

import math
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from drafting.sampling import Sampling

MASK = 0xFFFFFFFFFFFFFFFF
MASK_32 = 0xFFFFFFFF
BITS = 2**64


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
    below_best = (exact - exact.max()) / sampling.temperature
    kept, is_close = _kept(np.exp(below_best), ranked.tolist(), sampling, close)
    scores = {token: float(below_best[token]) + gumbel(sampling.seed, position, token) for token in kept}
    best, *others = sorted(kept, key=lambda token: (-scores[token], token))
    if others:
        # In logits, as `close` is: what differs there by so much may change places.
        is_close |= (scores[best] - scores[others[0]]) * sampling.temperature < close
    return Target(best, is_close)


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


def gumbel(seed: int, position: int, token: int) -> float:
    """The Gumbel number of a token at an output position, for a seed of which 64 bits count."""
    key = _splitmix64(_splitmix64(seed & MASK) + position & MASK)
    bits = _hash(key, token) << 32 | _splitmix64(key + token & MASK) >> 32
    x = min((2 * bits + 1) / (2 * BITS), 1 - 2.0**-53)
    return -math.log(-math.log1p(-x))


def _splitmix64(state: int) -> int:
    z = (state + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def _hash(key: int, token: int) -> int:
    """32 bits of a token id; the lower half of the key is mixed in first, the upper after one round."""
    z = (key & MASK_32) ^ token
    z = (z ^ z >> 17) * 0xED5AD4BB & MASK_32
    z = z + (key >> 32) & MASK_32
    z = (z ^ z >> 11) * 0xAC4C1B51 & MASK_32
    z = (z ^ z >> 15) * 0x31848BAB & MASK_32
    return z ^ z >> 14
