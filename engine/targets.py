"""The one function that makes target tokens from logits, in every mode (design: lossless by construction).

A target is the token with the highest logit, or, at a temperature above 0, that with the largest logit /
temperature + Gumbel number. That number depends on seed, output position and token id alone
(drafting/gumbel.py). So a target does not depend on drafts, batch, arrival order or worker, up to differences
of the logits themselves. Filters come before the draw: what they remove has a logit of minus infinity.

Letters: R rows, V vocabulary.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drafting.compiled import compiled
from drafting.gumbel import row_keys
from drafting.sampling import Sampling
from drafting.tree import DraftTrees
from engine.draw import draw
from engine.sequence import Sequence
from engine.top_k_top_p import kept_by_rank

# In place of a target token: the logits hold NaN or infinity, or are all minus infinity.
NOT_FINITE = -1
# Rows are filtered and drawn in pieces of this many logits, because each logit takes up to 8 numbers of 8
# bytes: for filters on any device, for the draw where it is not compiled.
LOGITS_AT_ONCE = 1 << 22
BYTES_PER_DRAWN_LOGIT = 8 * 8


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
    drawn = [
        index
        for index, (sampling, target) in enumerate(zip(rows.sampling, targets.tolist(), strict=True))
        if sampling.temperature > 0 and target != NOT_FINITE
    ]
    rows_at_once = max(1, LOGITS_AT_ONCE // logits.shape[1])
    filtered = [index for index in drawn if rows.sampling[index].filters]
    for first in range(0, len(filtered), rows_at_once):
        some = filtered[first : first + rows_at_once]
        sampling = [rows.sampling[index] for index in some]
        own = logits if len(some) == len(logits) else logits[some]
        _draw_some(
            torch.where(kept(own, sampling), own, -torch.inf), list(range(len(some))), rows, some, targets
        )
    free = [index for index in drawn if not rows.sampling[index].filters] if filtered else drawn
    for first in range(0, len(free), rows_at_once):
        some = free[first : first + rows_at_once]
        _draw_some(logits, some, rows, some, targets)


def _draw_some(
    logits: Tensor, places: list[int], rows: TargetSampling, some: list[int], targets: NDArray[np.int64]
) -> None:
    """Draws the targets of some rows, whose logits are those at `places`."""
    sampling = [rows.sampling[index] for index in some]
    temperatures = np.array([each.temperature for each in sampling])
    keys = row_keys([each.seed for each in sampling], rows.positions[some])
    targets[some] = draw(logits, np.array(places), targets[some], temperatures, keys)


def kept(logits: Tensor, sampling: list[Sampling]) -> Tensor:
    """Which tokens the filters of each row leave, bool [R, V]: by top_k, then top_p and min_p, all of them
    after temperature.
    """
    below_best = logits.double() - logits.amax(-1, keepdim=True)
    # The likeliest token has 1.
    probabilities = below_best.div_(_column(sampling, "temperature", logits.device)).exp_()
    ranked = [row for row, s in enumerate(sampling) if s.top_k or s.top_p < 1]
    # Ranking a large vocabulary is expensive, and so are copies: each filter has only the rows that need it.
    if len(ranked) == len(sampling):
        keep = _kept_by_rank(probabilities, sampling)
    else:
        keep = torch.ones_like(probabilities, dtype=torch.bool)
        if ranked:
            keep[ranked] = _kept_by_rank(probabilities[ranked], [sampling[row] for row in ranked])
    if any(s.min_p for s in sampling):
        keep &= probabilities >= _column(sampling, "min_p", logits.device)
    return keep


def _kept_by_rank(probabilities: Tensor, sampling: list[Sampling]) -> Tensor:
    top_k, top_p = (_column(sampling, name, probabilities.device) for name in ("top_k", "top_p"))
    return kept_by_rank(probabilities, top_k, top_p)


def _column(sampling: list[Sampling], name: str, device: torch.device) -> Tensor:
    """A setting of every row as float64 [R, 1]."""
    return torch.tensor([getattr(row, name) for row in sampling], dtype=torch.float64, device=device)[:, None]
