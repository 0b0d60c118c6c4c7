"""What a model said at a place: the ids and log-probabilities of the tokens that it found likeliest there.

Drafters keep them packed: 20 bits of id and 12 of log-probability in one number, so that what is known of a
place is one short run of memory. An id of more bits is left out.

Letters: N places, M likeliest tokens.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drafting.compiled import compiled, compiled_lean
from drafting.tree import Int32

UInt32 = NDArray[np.uint32]
Float32 = NDArray[np.float32]
LOGPROB_BITS = 12
NUM_LEVELS = 1 << LOGPROB_BITS
LEVELS_PER_NAT = 256.0  # down to a probability of e^-16
MAX_ID = (1 << (32 - LOGPROB_BITS)) - 2
UNKNOWN = np.uint32(0xFFFFFFFF)  # no token: entries from here on are empty
LOGPROBS = (-np.arange(NUM_LEVELS) / LEVELS_PER_NAT).astype(np.float32)
PROBABILITIES = np.exp(LOGPROBS)


class Likely(NamedTuple):
    """The likeliest tokens at N places: ids int32 [N, M], best first, and their log-probabilities float32 [N,
    M], at temperature 1 and before any filter.
    """

    ids: Int32
    logprobs: Float32


@compiled_lean
def token_of(packed: np.uint32) -> int:
    """The token id of an entry that is not UNKNOWN."""
    return int(np.int64(packed >> np.uint32(LOGPROB_BITS)))


@compiled_lean
def level_of(packed: np.uint32) -> int:
    """The index of an entry's log-probability in LOGPROBS, and of its probability in PROBABILITIES."""
    return int(np.int64(packed & np.uint32(NUM_LEVELS - 1)))


def unknown(num_places: int, count: int) -> UInt32:
    """Entries of places of which nothing is known, [N, M]."""
    return np.full((num_places, count), UNKNOWN, np.uint32)


NOTHING_SAID = unknown(0, 0)  # of any places


@compiled
def pack(ids_NM: Int32, logprobs_NM: Float32) -> UInt32:
    """Packed entries [N, M]; from the first negative or too large id on, a place's entries are UNKNOWN."""
    packed = np.full(ids_NM.shape, UNKNOWN, np.uint32)
    for place in range(len(ids_NM)):
        for i in range(ids_NM.shape[1]):
            token = ids_NM[place, i]
            if token < 0 or token > MAX_ID:
                break
            level = -logprobs_NM[place, i] * LEVELS_PER_NAT + 0.5
            if not level < NUM_LEVELS:  # also where it is NaN
                level = NUM_LEVELS - 1
            packed[place, i] = np.uint32(token << LOGPROB_BITS) | np.uint32(max(level, 0))
    return packed
