"""Draws tokens: of each row the one whose logit / temperature + Gumbel number is the largest.

drafting/gumbel.py owns the numbers. On a CPU nearly all tokens are ruled out without a logarithm: a token's
Gumbel number is at most log(2^32 / upper bits of x), so vector instructions tell for a whole block of tokens
that none can win against the best one so far. The likeliest token begins as the best.

On a GPU a kernel does so (engine/draw_triton.py). Without Triton, torch scores every token.

Scores of the tokens that can win are in float64, of float32 logits: two of them are practically never equal,
and if they are, the lowest id wins.

Letters: R rows, V vocabulary.
"""

import logging
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drafting.compiled import compiled, compiled_sums
from drafting.gumbel import EXPONENT_OF_1, HALF, LARGEST, LOW_BITS, MANTISSA, MULTIPLIERS, gumbel, upper_bits

logger = logging.getLogger(__name__)

BLOCK = 1024
LOG2_E = 1.4426950408889634
# Bounds are float32: what is closer to the best score than this is scored exactly.
SLACK = 0.01
# In bounds: 1 / temperature at most, and a logit minus the highest at least. Beyond these float32 has
# infinity, and infinity times 0 is NaN.
STEEPEST = 1e38
DEEPEST = np.float32(-3e38)
ONE = np.uint32(1)
MAX_BOUND = np.float32(31 + EXPONENT_OF_1)  # 31, as half the upper bits are asked


def draw(
    logits: Tensor,
    rows: NDArray[np.int64],
    likeliest: NDArray[np.int64],
    temperatures: NDArray[np.float64],
    keys: NDArray[np.uint64],
) -> NDArray[np.int64]:
    """The drawn tokens int64 [D] of D rows of logits float32 [R, V]; one with minus infinity is never drawn.

    rows int64 [D]: indices of the rows. likeliest int64 [D]: the token with the highest logit of each, which
    must be finite. temperatures float64 [D], above 0. keys uint64 [D]: see drafting/gumbel.py.
    """
    if logits.device.type == "cpu":
        return _draw(logits.numpy(), rows, likeliest, temperatures, keys)
    draw_on_device = _kernel(logits.device)
    if draw_on_device is not None:
        return draw_on_device(logits, rows, likeliest, temperatures, keys)
    own = logits[torch.from_numpy(rows).to(logits.device)]
    found: NDArray[np.int64] = draw_with_torch(own, temperatures, keys).cpu().numpy()
    return found


@compiled
def _draw(
    logits: NDArray[np.float32],
    rows: NDArray[np.int64],
    likeliest: NDArray[np.int64],
    temperatures: NDArray[np.float64],
    keys: NDArray[np.uint64],
) -> NDArray[np.int64]:
    drawn = np.empty(len(rows), np.int64)
    room = np.empty((2, BLOCK), np.float32)
    for i in range(len(rows)):
        drawn[i] = _draw_one(logits[rows[i]], likeliest[i], temperatures[i], keys[i], room)
    return drawn


@compiled
def _draw_one(
    logits: NDArray[np.float32],
    likeliest: int,
    temperature: float,
    key: np.uint64,
    room: NDArray[np.float32],
) -> int:
    highest = logits[likeliest]
    token = likeliest
    score = gumbel(key, token)
    steepness = np.float32(min(LOG2_E / temperature, STEEPEST))
    bounds = room[0]
    for first in range(0, len(logits), BLOCK):
        block = logits[first : first + BLOCK]
        least = np.float32(score * LOG2_E - SLACK)
        if _set_bounds(block, first, highest, steepness, key, least, bounds, room[1]):
            for i in range(len(block)):
                if bounds[i] >= least:
                    below = np.float64(block[i]) - np.float64(highest)
                    other = below / temperature + gumbel(key, first + i)
                    if other > score or (other == score and first + i < token):
                        score = other
                        token = first + i
    return token


@compiled_sums
def _set_bounds(
    logits: NDArray[np.float32],
    first: int,
    highest: np.float32,
    steepness: np.float32,
    key: np.uint64,
    least: np.float32,
    bounds: NDArray[np.float32],
    halves: NDArray[np.float32],
) -> bool:
    """Writes what the score of each token of a block is at most, times log2 e; returns whether one of these
    reaches `least`.

    first: the id of the block's first token. halves: room for numbers of its own. All of it is in vector
    instructions, as long as bounds have other memory than halves and no maximum of floats is asked. Half the
    upper bits are a signed number, which most CPUs turn into a float in one instruction.
    """
    low = np.uint32(key & LOW_BITS)
    high = np.uint32(key >> HALF)
    for i in range(len(logits)):
        halves[i] = np.float32(np.int32(upper_bits(low, high, first + i) >> ONE))
    exponents = halves.view(np.int32)
    reached = 0
    for i in range(len(logits)):
        noise = MAX_BOUND - np.float32(exponents[i]) * MANTISSA
        bound = max(logits[i] - highest, DEEPEST) * steepness + noise
        bounds[i] = bound
        reached |= bound >= least
    return reached != 0


@cache
def _kernel(device: torch.device) -> Callable[..., NDArray[np.int64]] | None:
    """The draw by Triton, tried once; None = it cannot be had on this device.

    Triton calls a C compiler, which not every machine has that has a GPU: without it the draw is slower and
    no less right, so that is no reason to fail.
    """
    if device.type != "cuda" or find_spec("triton") is None:
        return None
    try:
        from engine.draw_triton import draw_with_triton

        nothing = np.zeros(1, np.int64)
        draw_with_triton(
            torch.zeros(1, 2, device=device), nothing, nothing, np.ones(1), nothing.view(np.uint64)
        )
    except Exception as error:
        logger.warning("tokens are drawn without Triton, which fails on this machine: %s", error)
        return None
    return draw_with_triton


def draw_with_torch(logits: Tensor, temperatures: NDArray[np.float64], keys: NDArray[np.uint64]) -> Tensor:
    """The drawn tokens int64 [R] of logits float32 [R, V], on any device, every token scored."""
    device = logits.device
    below = logits.double() - logits.amax(-1, keepdim=True)
    scores = below / torch.from_numpy(temperatures).to(device)[:, None]
    return (scores + gumbel_with_torch(keys, logits.shape[1], device)).argmax(-1)


def gumbel_with_torch(keys: NDArray[np.uint64], num_tokens: int, device: torch.device) -> Tensor:
    """The Gumbel numbers of tokens 0 .. V - 1 for each key, float64 [R, V].

    torch has no unsigned integers to calculate with, so 32 bits are kept in int64.
    """
    token = torch.arange(num_tokens, device=device)
    key = torch.from_numpy(keys.view(np.int64)).to(device)[:, None]
    upper = upper_bits_with_torch(key, token)
    lower = _shifted(_splitmix64(key + token), 32)
    x = (upper.double() + (lower.double() + 0.5) * 2.0**-32) * 2.0**-32
    return -torch.log(-torch.log1p(-x.clamp(max=LARGEST)))


def upper_bits_with_torch(key: Tensor, token: Tensor) -> Tensor:
    """The upper 32 bits of x, as int64."""
    first, second, third = map(int, MULTIPLIERS)
    mask = 0xFFFFFFFF
    x = (key & mask) ^ token
    x = ((x ^ (x >> 17)) * first) & mask
    x = (x + _shifted(key, 32)) & mask
    x = ((x ^ (x >> 11)) * second) & mask
    x = ((x ^ (x >> 15)) * third) & mask
    return x ^ (x >> 14)


def _splitmix64(state: Tensor) -> Tensor:
    z = state - (2**64 - 0x9E3779B97F4A7C15)
    z = (z ^ _shifted(z, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    z = (z ^ _shifted(z, 27)) * (0x94D049BB133111EB - 2**64)
    return z ^ _shifted(z, 31)


def _shifted(bits: Tensor, count: int) -> Tensor:
    """bits >> count, without the sign."""
    return (bits >> count) & ((1 << (64 - count)) - 1)
