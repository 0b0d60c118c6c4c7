"""What the model said after each token, and after each two tokens: one distribution for a context, merged from all
places where it came.

Owns the rule by which a new distribution is merged into an old one. Does not know histories: those keep what the
model said at each place of their own (chains.py).

Worked example. After 3 the model said 5 with 0.6 and 7 with 0.3, once. Now it says 7 with 0.8. Half of the new and
half of the old: 7 with 0.55, 5 with 0.3. A third time weighs a third, and from the tenth on each weighs a tenth.
"""

import math

import numpy as np

from drafting.adaptive.layout import Contexts, Merging
from drafting.compiled import compiled_lean
from drafting.likely import (
    LEVELS_PER_NAT,
    LOGPROB_BITS,
    NUM_LEVELS,
    PROBABILITIES,
    UNKNOWN,
    UInt32,
    level_of,
    token_of,
)
from drafting.tree import UInt8

LEAST_RATE = 0.1
MOST_SEEN = 255


@compiled_lean
def context_of(contexts: Contexts, before: int, last: int) -> int:
    """The row of a context of two tokens; whether it is this one's, its tag says."""
    mixed = np.uint32(np.uint32(before) * np.uint32(0x9E3779B1)) ^ np.uint32(last)
    mixed = np.uint32(np.uint32(mixed ^ (mixed >> np.uint32(15))) * np.uint32(0x85EBCA6B))
    return int(np.uint32(mixed ^ (mixed >> np.uint32(13))) & np.uint32(len(contexts.tags) - 1))


@compiled_lean
def tag_of(before: int, last: int) -> np.uint32:
    """A number that tells contexts of one row apart, nearly always."""
    return np.uint32(
        np.uint32(np.uint32(before) * np.uint32(0xC2B2AE35)) ^ np.uint32(last * 7919)
    ) | np.uint32(1)


@compiled_lean
def merge_context(contexts: Contexts, before: int, last: int, said: UInt32, merging: Merging) -> None:
    """Takes in what the model said after two tokens, packed [M]. Another context of the same row is forgotten."""
    row = context_of(contexts, before, last)
    tag = tag_of(before, last)
    if contexts.tags[row] != tag:
        contexts.tags[row] = tag
        contexts.seen[row] = 0
    merge(contexts.said_RM[row], contexts.seen, row, said, merging)


@compiled_lean
def merge(old: UInt32, seen: UInt8, row: int, said: UInt32, merging: Merging) -> None:
    """Merges what the model said into a row that was seen seen[row] times; both packed, best first."""
    if len(said) == 0 or said[0] == UNKNOWN:
        return
    rate = max(LEAST_RATE, 1.0 / (seen[row] + 1.0))
    seen[row] = min(seen[row] + 1, MOST_SEEN)
    count = 0
    if rate < 1.0:
        for i in range(len(old)):
            if old[i] == UNKNOWN:
                break
            merging.tokens[count] = token_of(old[i])
            merging.shares[count] = PROBABILITIES[level_of(old[i])] * (1.0 - rate)
            count += 1
    num_old = count
    for i in range(min(len(said), len(old))):
        if said[i] == UNKNOWN:
            break
        token = token_of(said[i])
        share = PROBABILITIES[level_of(said[i])] * rate
        place = 0
        while place < num_old and merging.tokens[place] != token:
            place += 1
        if place < num_old:
            merging.shares[place] += share
        else:
            merging.tokens[count] = token
            merging.shares[count] = share
            count += 1
    _write_best(old, count, merging)


@compiled_lean
def _write_best(row: UInt32, count: int, merging: Merging) -> None:
    """Writes the tokens with the largest shares, best first."""
    for i in range(len(row)):
        best = 0
        for place in range(1, count):
            if merging.shares[place] > merging.shares[best]:
                best = place
        if count == 0 or merging.shares[best] <= 0.0:
            row[i] = UNKNOWN
            return
        level = min(int(-math.log(merging.shares[best]) * LEVELS_PER_NAT + 0.5), NUM_LEVELS - 1)
        row[i] = np.uint32(merging.tokens[best] << LOGPROB_BITS) | np.uint32(max(level, 0))
        merging.shares[best] = 0.0
