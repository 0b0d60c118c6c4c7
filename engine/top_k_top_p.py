"""Which tokens top_k and top_p keep: the likeliest, and of equal ones the lowest ids.

On a CPU nothing is sorted: the tokens of a row are counted by powers of two of their probability, and only
the octave in which a limit falls is put in order. A sort of the whole vocabulary took longer than the rest of
a small model's step (benchmarks/bench_rank_filter.py).

Letters: R rows, V vocabulary.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drafting.compiled import compiled

NUM_OCTAVES = 64  # of probabilities below the likeliest token's, which is 1; what is smaller is in the last
EXPONENT_OF_1 = 1023  # of a float64, as it is stored


def kept_by_rank(probabilities: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """probabilities float64 [R, V], whose largest is 1 in each row, top_k (0 = off) and top_p (1 = off)
    float64 [R, 1] -> bool [R, V].

    top_k first; then top_p, of what that left. A token of probability 0 is never kept.
    """
    if probabilities.device.type == "cpu":
        return torch.from_numpy(_kept(probabilities.numpy(), top_k[:, 0].long().numpy(), top_p[:, 0].numpy()))
    return kept_by_sorting(probabilities, top_k, top_p)


def kept_by_sorting(probabilities: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Which tokens are kept, by sorting the vocabulary, on any device."""
    # Stable and descending: of equal probabilities the lowest id is kept first.
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(ordered.shape[1], device=ordered.device)
    ordered = ordered * ((top_k == 0) | (rank < top_k))
    before = ordered.cumsum(-1) - ordered
    # Off must be off to the last bit: a top_p of 1 must not cost a row its rarest token by rounding.
    kept_in_order = (ordered > 0) & ((top_p == 1) | (before < top_p * ordered.sum(-1, keepdim=True)))
    return torch.zeros_like(kept_in_order).scatter_(-1, order, kept_in_order)


@compiled
def _kept(
    probabilities: NDArray[np.float64], top_k: NDArray[np.int64], top_p: NDArray[np.float64]
) -> NDArray[np.bool_]:
    keep = probabilities > 0
    for row in range(len(probabilities)):
        if top_k[row] > 0:
            _keep_first(probabilities[row], keep[row], top_k[row], np.inf)
        if top_p[row] < 1:
            share = top_p[row] * (probabilities[row] * keep[row]).sum()
            _keep_first(probabilities[row], keep[row], probabilities.shape[1], share)
    return keep


@compiled
def _keep_first(
    probabilities: NDArray[np.float64], keep: NDArray[np.bool_], most: int, most_share: float
) -> None:
    """Narrows `keep`: a token stays if fewer than `most` kept tokens rank before it, and if their
    probabilities add up to less than most_share.
    """
    octaves = np.minimum(EXPONENT_OF_1 - (probabilities.view(np.int64) >> 52), NUM_OCTAVES - 1)
    counts = np.zeros(NUM_OCTAVES, np.int64)
    shares = np.zeros(NUM_OCTAVES)
    for token in range(len(keep)):
        if keep[token]:
            counts[octaves[token]] += 1
            shares[octaves[token]] += probabilities[token]
    count = 0
    share = 0.0
    last = 0
    while last < NUM_OCTAVES - 1 and count + counts[last] < most and share + shares[last] < most_share:
        count = count + counts[last]
        share = share + shares[last]
        last = last + 1
    keep &= octaves <= last
    tokens = np.flatnonzero(keep & (octaves == last))
    for token in tokens[np.argsort(-probabilities[tokens], kind="mergesort")]:
        if count >= most or share >= most_share:
            keep[token] = False
        count = count + 1
        share = share + probabilities[token]
