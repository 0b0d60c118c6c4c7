"""The draw on a GPU, by a kernel written in Triton: the rule of engine/draw.py, bounds and scores as there.

Each row is shared out among several programs. Each program goes through its part of the vocabulary block by
block, and computes Gumbel numbers, in float64, only of blocks in which a bound reaches its best score so far.
All begin with the likeliest token as the best. The best of all programs is taken by torch.

Owns the kernel alone: it must give the bits of drafting/gumbel.py, whose functions Triton cannot call.

Letters: D drawn rows, R rows, V vocabulary, P programs of a row.
"""

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor

from drafting import gumbel
from engine import draw

BLOCK = 1024
# In all: few rows would leave most of a GPU without work, and each further program finds its best score anew.
PROGRAMS = 1024
FIRST, SECOND, THIRD = (tl.constexpr(int(multiplier)) for multiplier in gumbel.MULTIPLIERS)
LARGEST = tl.constexpr(gumbel.LARGEST)
MANTISSA = tl.constexpr(float(gumbel.MANTISSA))
MAX_BOUND = tl.constexpr(float(draw.MAX_BOUND))
DEEPEST = tl.constexpr(float(draw.DEEPEST))
STEEPEST = tl.constexpr(draw.STEEPEST)
LOG2_E = tl.constexpr(draw.LOG2_E)
SLACK = tl.constexpr(draw.SLACK)
NO_TOKEN = tl.constexpr(2**31 - 1)


def draw_with_triton(
    logits: Tensor,
    rows: NDArray[np.int64],
    likeliest: NDArray[np.int64],
    temperatures: NDArray[np.float64],
    keys: NDArray[np.uint64],
) -> NDArray[np.int64]:
    """The drawn tokens int64 [D]; the arguments are those of engine/draw.py draw, of any floating type."""
    num_drawn = len(rows)
    num_tokens = logits.shape[1]
    num_blocks = -(-num_tokens // BLOCK)
    blocks_each = -(-num_blocks // max(1, PROGRAMS // num_drawn))
    programs = -(-num_blocks // blocks_each)
    asked = np.stack([rows, likeliest, temperatures.view(np.int64), keys.view(np.int64)])
    asked_4D = torch.from_numpy(asked).to(logits.device)
    scores_DP = torch.empty(num_drawn, programs, dtype=torch.float64, device=logits.device)
    tokens_DP = torch.empty(num_drawn, programs, dtype=torch.int64, device=logits.device)
    logits = logits.contiguous()
    _draw_part[(num_drawn, programs)](
        logits, asked_4D, scores_DP, tokens_DP, num_tokens, num_drawn, blocks_each, BLOCK=BLOCK
    )
    best = scores_DP == scores_DP.amax(1, keepdim=True)
    found: NDArray[np.int64] = tokens_DP.masked_fill(~best, num_tokens).amin(1).cpu().numpy()
    return found


@triton.jit
def _draw_part(
    logits, asked, scores, tokens, num_tokens, num_drawn, blocks_each, BLOCK: tl.constexpr
):  # fmt: skip
    """The best score of a part of a row, and its token; logits [R, V]; asked int64 [4, D]: row, likeliest
    token, temperature and key, the last two by their bits.
    """
    drawn = tl.program_id(0)
    part = tl.program_id(1)
    row = tl.load(asked + drawn)
    token = tl.load(asked + num_drawn + drawn)
    temperature = tl.load(asked + 2 * num_drawn + drawn).to(tl.float64, bitcast=True)
    key = tl.load(asked + 3 * num_drawn + drawn).to(tl.uint64, bitcast=True)
    logits += row * num_tokens
    highest = tl.load(logits + token).to(tl.float32)
    steepness = tl.minimum(1.0 / temperature * LOG2_E, STEEPEST).to(tl.float32)
    score = _gumbel(key, token)
    first = part * blocks_each * BLOCK
    for start in range(first, tl.minimum(first + blocks_each * BLOCK, num_tokens), BLOCK):
        ids = start + tl.arange(0, BLOCK)
        own = tl.load(logits + ids, mask=ids < num_tokens, other=-float("inf")).to(tl.float32)
        if tl.max(_bounds(own, highest, steepness, key, ids)) >= (score * LOG2_E - SLACK).to(tl.float32):
            others = (own.to(tl.float64) - highest.to(tl.float64)) / temperature + _gumbel(key, ids)
            best = tl.max(others)
            best_token = tl.min(tl.where(others == best, ids, NO_TOKEN)).to(tl.int64)
            if (best > score) | ((best == score) & (best_token < token)):
                score = best
                token = best_token
    place = drawn * tl.num_programs(1) + part
    tl.store(scores + place, score)
    tl.store(tokens + place, token)


@triton.jit
def _bounds(logits, highest, steepness, key, ids):
    """What the score of each token is at most, times log2 e."""
    exponents = (_upper_bits(key, ids) >> 1).to(tl.float32).to(tl.int32, bitcast=True)
    noise = exponents.to(tl.float32) * -MANTISSA + MAX_BOUND
    return tl.maximum(logits - highest, DEEPEST) * steepness + noise


@triton.jit
def _gumbel(key, token):
    """The Gumbel numbers of tokens, float64."""
    upper = _upper_bits(key, token).to(tl.float64)
    lower = (_splitmix64(key + token.to(tl.uint64)) >> 32).to(tl.float64)
    x = tl.minimum((upper + (lower + 0.5) * 2.0**-32) * 2.0**-32, LARGEST)
    # -log(1 - x), without the digits that 1 - x has lost of x (Kahan): rest is 1 - x to its last bit, and
    # 1 - rest is exact.
    rest = 1.0 - x
    part = tl.where(rest == 1.0, 1.0, 1.0 - rest)
    minus_log = tl.where(rest == 1.0, x, -tl.log(rest) * (x / part))
    return -tl.log(minus_log)


@triton.jit
def _upper_bits(key, token):
    x = key.to(tl.uint32) ^ token.to(tl.uint32)
    x = (x ^ (x >> 17)) * FIRST
    x = x + (key >> 32).to(tl.uint32)
    x = (x ^ (x >> 11)) * SECOND
    x = (x ^ (x >> 15)) * THIRD
    return x ^ (x >> 14)


@triton.jit
def _splitmix64(state):
    z = state + 0x9E3779B97F4A7C15
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB
    return z ^ (z >> 31)
