"""The one function that makes target tokens from logits, in every mode (design: lossless by construction).

A target is greedy, or drawn by inverse CDF in vocabulary order from a uniform number that depends on (seed,
output position) alone. So it does not depend on drafts, batch, arrival order or worker, up to differences of
the logits themselves.

Letters: R rows, V vocabulary.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drafting.compiled import compiled
from drafting.tree import DraftTrees
from engine.request import Sampling
from engine.sequence import Sequence
from engine.top_k_top_p import kept_by_rank

# In place of a target token: the logits hold NaN or infinity, or are all minus infinity.
NOT_FINITE = -1
# Rows are drawn in pieces of this many logits, because each logit takes up to 7 float64 numbers.
LOGITS_AT_ONCE = 1 << 22
BYTES_PER_DRAWN_LOGIT = 7 * 8


@dataclass(frozen=True)
class TargetSampling:
    """For each row of logits: the sampling of its request, and the output position of its target token."""

    sampling: list[Sampling]
    positions: NDArray[np.int64]


def target_sampling(sequences: list[Sequence], trees: DraftTrees) -> TargetSampling | None:
    """How to make the targets after each sequence's last token and after its nodes; None = all greedy."""
    if not any(sequence.request.sampling.temperature > 0 for sequence in sequences):
        return None
    sampling: list[Sampling] = []
    positions: list[int] = []
    depths = trees.depths.tolist()
    for sequence, (first, end) in zip(sequences, pairwise(trees.offsets.tolist()), strict=True):
        position = sequence.num_output
        sampling += [sequence.request.sampling] * (1 + end - first)
        positions += [position, *(position + depth for depth in depths[first:end])]
    return TargetSampling(sampling, np.array(positions, np.int64))


def target_tokens(logits: Tensor, rows: TargetSampling | None) -> NDArray[np.int64]:
    """logits [R, V] -> target token of each row, int64 [R]; of equal logits the lowest id wins.

    rows: None = all are greedy. A row whose largest logit is not finite gets NOT_FINITE; NaN counts as larger
    than any number, and single tokens may have minus infinity.
    """
    logits = logits.float()
    targets = _likeliest(logits)
    if rows is not None:
        _draw_rows(logits, rows, targets)
    return targets


def _likeliest(logits: Tensor) -> NDArray[np.int64]:
    if logits.device.type == "cpu":
        # On a CPU numpy's argmax takes a tenth of PyTorch's time; of equal logits both take the first.
        values = logits.numpy()
        best: NDArray[np.int64] = values.argmax(-1)
        _mark_not_finite(values, best)
        return best
    ids = logits.argmax(-1)
    largest = logits.gather(1, ids[:, None])[:, 0]
    found: NDArray[np.int64] = ids.masked_fill(~largest.isfinite(), NOT_FINITE).cpu().numpy()
    return found


@compiled  # numpy takes four calls for it, 20 microseconds of a step
def _mark_not_finite(logits: NDArray[np.float32], best: NDArray[np.int64]) -> None:
    for row in range(len(best)):
        if not np.isfinite(logits[row, best[row]]):
            best[row] = NOT_FINITE


@torch.inference_mode()
def _draw_rows(logits: Tensor, rows: TargetSampling, targets: NDArray[np.int64]) -> None:
    """Replaces the targets of the rows that are not greedy and whose logits are finite."""
    all_drawn = [
        index
        for index, (sampling, target) in enumerate(zip(rows.sampling, targets.tolist(), strict=True))
        if sampling.temperature > 0 and target != NOT_FINITE
    ]
    rows_at_once = max(1, LOGITS_AT_ONCE // logits.shape[1])
    for first in range(0, len(all_drawn), rows_at_once):
        drawn = all_drawn[first : first + rows_at_once]
        sampling = [rows.sampling[index] for index in drawn]
        uniform = uniforms([s.seed for s in sampling], rows.positions[drawn])
        own = logits if len(drawn) == len(logits) else logits[drawn]
        targets[drawn] = _draw(own, sampling, torch.from_numpy(uniform).to(logits.device)).cpu().numpy()


def uniforms(seeds: list[int], positions: NDArray[np.int64]) -> NDArray[np.float64]:
    """One number in [0, 1) per (seed, position): two rounds of splitmix64 (Steele, Lea, Flood 2014), the top
    53 bits.
    """
    seed = np.array([s & 0xFFFFFFFFFFFFFFFF for s in seeds], np.uint64)
    mixed = _splitmix64(_splitmix64(seed) + positions.astype(np.uint64))
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _splitmix64(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = state + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _draw(logits: Tensor, sampling: list[Sampling], uniform: Tensor) -> Tensor:
    """Draws by inverse CDF over the kept tokens, in float64.

    A float32 sum over 150 k tokens would be off by more than a token's share.
    """
    probabilities = kept_probabilities(logits, sampling)
    cumulative = probabilities.cumsum(-1)
    wanted = uniform[:, None] * cumulative[:, -1:]
    # right=True: the first token whose cumulative share is above u; a token of probability 0 is never it.
    tokens = torch.searchsorted(cumulative, wanted, right=True)
    # Rounding can make u x sum equal to the sum. Then the last kept token is drawn: the token at which the
    # sum is reached.
    return torch.minimum(tokens, torch.searchsorted(cumulative, cumulative[:, -1:].contiguous()))[:, 0]


def kept_probabilities(logits: Tensor, sampling: list[Sampling]) -> Tensor:
    """float64 [R, V], not normalised: temperature, then top_k, top_p and min_p; what a filter
    removes is 0.
    """
    below_best = logits.double() - logits.amax(-1, keepdim=True)
    # The likeliest token has 1.
    probabilities = below_best.div_(_column(sampling, "temperature", logits.device)).exp_()
    ranked = [row for row, s in enumerate(sampling) if s.top_k or s.top_p < 1]
    if not ranked and not any(s.min_p for s in sampling):
        return probabilities
    keep = probabilities >= _column(sampling, "min_p", logits.device)
    if ranked:  # sorting a large vocabulary is expensive: only the rows that need it
        limited = [sampling[row] for row in ranked]
        top_k, top_p = (_column(limited, name, logits.device) for name in ("top_k", "top_p"))
        keep[ranked] &= kept_by_rank(probabilities[ranked], top_k, top_p)
    return probabilities * keep


def _column(sampling: list[Sampling], name: str, device: torch.device) -> Tensor:
    """A setting of every row as float64 [R, 1]."""
    return torch.tensor([getattr(row, name) for row in sampling], dtype=torch.float64, device=device)[:, None]
