"""The random part of a draw: one Gumbel number per row seed, output position and token id.

The token drawn from probabilities p is the one with the largest log p + Gumbel number, which is an exact
sample of p (Gumbel 1954; Maddison, Tarlow, Minka 2014). The numbers depend on nothing but their key and the
token's id, so a drafter that estimates p knows what the draw will add to it (Daliri et al. 2024, "coupling
without communication").

A key is two rounds of splitmix64 (Steele, Lea, Flood 2014) over seed and position. A number x in (0, 1) has
64 bits. The upper 32 are a keyed hash of the token id, with the multipliers of triple32 (Wellons 2018): it is
made of 32-bit operations, which vector instructions do 8 or 16 at a time, and it shows of nearly all tokens
that they cannot win (engine/draw.py). The lower 32 are splitmix64 of key + token id, computed for the other
tokens only: without them, tokens rarer than 2^-32 would come too often or never. The Gumbel number is
-log(-log(1 - x)), so the rare large ones come from small x, which floating point resolves finely.
"""

import math

import numpy as np
from numpy.typing import NDArray

from drafting.compiled import compiled, compiled_lean

LOW_BITS = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)
LARGEST = 1.0 - 2.0**-53  # x, or its logarithm would be infinite
# The first bits of a float32 are its exponent, the next its mantissa. Read as an integer and divided by 2^23
# they are 127 + a lower bound of the logarithm to the base of 2.
EXPONENT_OF_1 = 127
MANTISSA = np.float32(2.0**-23)
MULTIPLIERS = (np.uint32(0xED5AD4BB), np.uint32(0xAC4C1B51), np.uint32(0x31848BAB))
FIRST, SECOND, THIRD = MULTIPLIERS


@compiled_lean
def splitmix64(state: np.uint64) -> np.uint64:
    """The output of splitmix64 from a state."""
    z = np.uint64(state + np.uint64(0x9E3779B97F4A7C15))
    z = np.uint64((z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9))
    z = np.uint64((z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB))
    return np.uint64(z ^ (z >> np.uint64(31)))


@compiled_lean
def row_key(seed: np.uint64, position: int) -> np.uint64:
    """The key of all numbers at one output position of a row."""
    return splitmix64(np.uint64(splitmix64(seed) + np.uint64(position)))


@compiled
def _keys(seeds: NDArray[np.uint64], positions: NDArray[np.int64]) -> NDArray[np.uint64]:
    found = np.empty(len(seeds), np.uint64)
    for i in range(len(seeds)):
        found[i] = row_key(seeds[i], positions[i])
    return found


def row_keys(seeds: list[int], positions: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The key of each (seed, output position), uint64 [R]; 64 bits of a seed count."""
    return _keys(np.array([seed & 0xFFFFFFFFFFFFFFFF for seed in seeds], np.uint64), positions)


@compiled_lean
def upper_bits(low: np.uint32, high: np.uint32, token: int) -> np.uint32:
    """The upper 32 bits of x; low and high: the halves of the key."""
    x = np.uint32(low ^ np.uint32(token))
    x = np.uint32(np.uint32(x ^ (x >> np.uint32(17))) * FIRST)
    x = np.uint32(x + high)
    x = np.uint32(np.uint32(x ^ (x >> np.uint32(11))) * SECOND)
    x = np.uint32(np.uint32(x ^ (x >> np.uint32(15))) * THIRD)
    return np.uint32(x ^ (x >> np.uint32(14)))


@compiled_lean
def lower_bits(key: np.uint64, token: int) -> np.uint32:
    """The lower 32 bits of x."""
    return np.uint32(splitmix64(np.uint64(key + np.uint64(token))) >> HALF)


@compiled_lean
def gumbel(key: np.uint64, token: int) -> float:
    """The Gumbel number of a token, from -3.7 to 45.1."""
    upper = upper_bits(np.uint32(key & LOW_BITS), np.uint32(key >> HALF), token)
    x = (np.float64(upper) + (np.float64(lower_bits(key, token)) + 0.5) * 2.0**-32) * 2.0**-32
    return -math.log(-math.log1p(-min(x, LARGEST)))
