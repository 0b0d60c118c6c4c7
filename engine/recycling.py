"""What the model said at every place: a source of later drafts, never of a target token.

The likeliest tokens are kept of logits that were computed anyway (Token Recycling, Luo et al. 2024), with
their log-probabilities at temperature 1 and before any filter (issue 10).

Letters: R rows of logits, V vocabulary, M likeliest tokens.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drafting.compiled import compiled, compiled_lean, compiled_sums
from drafting.likely import UInt32, pack

BLOCK = 256
LN_2 = math.log(2.0)
LOG2_E = np.float32(1.0 / LN_2)
# 2^f for f in [-0.5, 0.5], to 6e-4: a drafter needs no more.
POWERS = tuple(np.float32(LN_2**n / math.factorial(n)) for n in range(4))


def likeliest_successors(logits: Tensor, count: int) -> UInt32:
    """logits [R, V] -> the `count` likeliest tokens of each row, best first, with their log-probabilities,
    packed [R, count] (drafting/likely.py); of equal ones any may come.
    """
    count = min(count, logits.shape[1])
    if logits.device.type == "cpu":
        # torch.topk and logsumexp take several times as long as one pass over a row that is in the cache.
        return pack(*_likeliest(logits.float().numpy(), count))
    return pack(*likeliest_with_torch(logits, count))


def likeliest_with_torch(logits: Tensor, count: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The ids of the `count` likeliest tokens of each row, best first, and their log-probabilities [R,
    count], on any device; -1 for a token that cannot come.
    """
    values, ids = logits.topk(count, dim=-1)
    ids = ids.masked_fill(values == -torch.inf, -1)
    logprobs = values.float() - logits.float().logsumexp(-1, keepdim=True)
    return ids.to(torch.int32).cpu().numpy(), logprobs.cpu().numpy()


@compiled
def _likeliest(logits: NDArray[np.float32], count: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    ids = np.full((len(logits), count), -1, np.int32)
    logprobs = np.full((len(logits), count), -np.inf, np.float32)
    powers = np.empty(BLOCK, np.float32)
    exponents = np.empty(BLOCK, np.int32)
    for row in range(len(logits)):
        _set_row(logits[row], ids[row], logprobs[row], powers, exponents)
    return ids, logprobs


@compiled_lean
def _set_row(
    logits: NDArray[np.float32],
    ids: NDArray[np.int32],
    logprobs: NDArray[np.float32],
    powers: NDArray[np.float32],
    exponents: NDArray[np.int32],
) -> None:
    last = len(ids) - 1
    for first in range(0, len(logits), BLOCK):
        block = logits[first : first + BLOCK]
        if _num_above(block, logprobs[last]):
            _keep_largest(block, first, ids, logprobs)
    highest = logprobs[0]
    total = np.float32(0.0)
    for first in range(0, len(logits), BLOCK):
        total += _sum_of_powers(logits[first : first + BLOCK], highest, powers, exponents)
    below = highest + np.float32(math.log(total))
    for i in range(len(ids)):
        logprobs[i] -= below


@compiled_lean
def _num_above(block: NDArray[np.float32], limit: np.float32) -> int:
    """How many logits of a block are above a limit: unlike their maximum, this is made with vector
    instructions.
    """
    count = np.int32(0)
    for i in range(len(block)):
        count += block[i] > limit
    return int(count)


@compiled_lean
def _keep_largest(
    block: NDArray[np.float32], first: int, ids: NDArray[np.int32], values: NDArray[np.float32]
) -> None:
    """Merges a block of logits, whose first token has id `first`, into the largest so far."""
    last = len(values) - 1
    for i in range(len(block)):
        value = block[i]
        if value > values[last]:
            place = last
            while place > 0 and values[place - 1] < value:
                values[place] = values[place - 1]
                ids[place] = ids[place - 1]
                place -= 1
            values[place] = value
            ids[place] = first + i


@compiled_sums
def _sum_of_powers(
    block: NDArray[np.float32], highest: np.float32, powers: NDArray[np.float32], exponents: NDArray[np.int32]
) -> np.float32:
    """The sum of e^(logit - highest) over a block.

    powers and exponents [BLOCK] are scratch: loops that wrote and read the same memory under two types would
    not use vector instructions.
    """
    for i in range(len(block)):
        exponent = max((block[i] - highest) * LOG2_E, np.float32(-120.0))
        whole = np.int32(exponent - np.float32(0.5))
        f = exponent - np.float32(whole)
        power = ((POWERS[3] * f + POWERS[2]) * f + POWERS[1]) * f + POWERS[0]
        powers[i] = power
        exponents[i] = whole << 23
    bits = powers.view(np.int32)
    for i in range(len(block)):
        bits[i] += exponents[i]
    total = np.float32(0.0)
    for i in range(len(block)):
        total += powers[i]
    return total
