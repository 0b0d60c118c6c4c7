"""The records and arrays that the compiled half of the adaptive proposer shares with its Python half.

Owns names, types and sizes only; features.py owns those of the features.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drafting.compiled import record
from drafting.tree import Int32, UInt8

Records = NDArray[np.void]
Int64 = NDArray[np.int64]
NONE = -1
SEGMENT_TOKENS = 64  # places of a segment
OWNER_TOKENS = 4  # places that one record of their owner speaks for: histories begin at multiples of this
MAX_MATCH = 32  # tokens that are compared backwards
MAX_CHILDREN = 24  # candidates that follow one node
MAX_CANDIDATES = 512  # candidates of one tree
NUM_SAID = 1 << 12  # counters of the tokens that a history has said

# Where an occurrence lies: in the history itself, in a history of its group, in any history. The number
# of a scope is also the number of its source; the bigram table is the source with the next number.
OWN = 0
GROUP = 1
ALL = 2
BIGRAM = 3
# Occurrences vote for what followed them. Those that match only before the last token have a vote of their
# own.
GAP = 3
NUM_VOTERS = 4

# Chain c links each place to the earlier one that followed the same ORDERS[c] tokens in the scope SCOPES[c].
ORDERS = (3, 1, 2, 2)
SCOPES = (OWN, OWN, GROUP, ALL)
NUM_CHAINS = 4
MAX_ORDER = 3
WALK = 16  # links of a chain that are followed for the root of a tree
SHORT_WALK = 8  # links that are followed for another node, and for matches before the last token
MAX_POINTERS = NUM_CHAINS * (WALK + SHORT_WALK)  # occurrences that a node keeps

MAX_ID = (1 << 31) - 1  # of histories and groups: owners keep both in 32 bits
# id: from 1 to MAX_ID, and then from 1 again. first, last: the places of its first and last token, or NONE.
HISTORY = record(int64="id group first last length")
# next, previous: where the last history of a segment goes on, and where the first one comes from. histories:
# how many have tokens here. used: the places that are taken, SEGMENT_TOKENS while a history may take more.
SEGMENT = record(int32="next previous histories used")
OWNER = record(int32="history group")
# An occurrence: the place of the token that followed, and how many tokens before it match.
POINTER = record(int32="place match scope gap")
# Node 0 is the root. Its pointers are [first, last) and its candidates [first_candidate, last_candidate);
# candidate: the candidate that became this node. best: the likeliest of this node's candidates that has not
# become a node. longest: this node's longest match.
NODE = record(
    int32="first last candidate depth first_candidate last_candidate best longest",
    float32="survival best_survival",
)
# parent: a node. node: the node that the candidate has become, or NONE. rank: in the bigram table, or NONE.
CANDIDATE = record(int32="parent token node depth rank", int16="source match", float32="probability survival")


class Arena(NamedTuple):
    """The tokens of all histories, int32 [P], in linked segments, and the chains through them.

    Places without a token hold NONE. owners: whose each run of OWNER_TOKENS places is. said_HN uint8
    [histories, NUM_SAID] counts how often a running history has said a token, prompt included; the index of
    a token's counter is the low bits of its id.
    """

    tokens: Int32
    owners: Records
    segments: Records
    chains_CP: Int32
    heads_CH: Int32
    said_HN: UInt8


class Room(NamedTuple):
    """Where new tokens can go.

    free[: num_free[0]] are segments without any history. open[: num_open[0]] are segments whose last history
    has ended and left places, from `used` on; another history may begin there. Each int32 [segments].
    """

    free: Int32
    num_free: Int64
    open: Int32
    num_open: Int64


class Model(NamedTuple):
    """What was learned.

    scores float32: of all buckets, then of all biases (features.py); bigram_VR int32 [V, ranks].
    """

    scores: NDArray[np.float32]
    bigram_VR: Int32


class Scratch(NamedTuple):
    """Memory that growing trees needs. candidates and features_GF hold those of all trees of a step.

    num_chains int64 [1]: how many chains are followed. context int32 [MAX_MATCH]: the last tokens of a
    history, newest first; recent int32 [MAX_MATCH]: the last tokens as a node sees them. places_WC int32
    [WALK, NUM_CHAINS]. votes_CV float32 and longest_CV int32 [MAX_CHILDREN, NUM_VOTERS]; totals_V float32
    [NUM_VOTERS].
    """

    pointers: Records
    nodes: Records
    candidates: Records
    features_GF: Int32
    context: Int32
    recent: Int32
    num_chains: Int64
    places_WC: Int32
    votes_CV: NDArray[np.float32]
    longest_CV: Int32
    totals_V: NDArray[np.float32]


class WeighedCandidates(NamedTuple):
    """Every candidate that was weighed in a step: CANDIDATE [G], with features int32 [G, NUM_FEATURES].

    Sequence b owns those from offsets[b] to offsets[b + 1] - 1.
    """

    candidates: Records
    features_GF: Int32
    offsets: Int64
