"""The records and arrays that the compiled half of the adaptive proposer shares with its Python half.

Owns names, types and sizes only.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drafting.tree import Int32, UInt8

Records = NDArray[np.void]
Int64 = NDArray[np.int64]
# a history owns whole segments
SEGMENT_TOKENS = 64
NONE = -1
# scopes: the history itself, its group, all histories
OWN = 0
GROUP = 1
ALL = 2
NUM_SCOPES = 3
# votes of matches that end before the last token are counted apart; a source without votes
GAP = 3
NUM_VOTERS = 4
BIGRAM = 3
ORDERS = (3, 1, 2, 2)
SCOPES = (OWN, OWN, GROUP, ALL)
NUM_CHAINS = 4
MAX_ORDER = 3
# links of a chain followed at most: for the root; for a node, or before the last token
WALK = 16
SHORT_WALK = 8
MAX_POINTERS = NUM_CHAINS * (WALK + SHORT_WALK)  # occurrences that a node keeps
# tokens compared backwards; continuations of a node; those weighed per tree
MAX_MATCH = 32
MAX_CHILDREN = 24
MAX_CANDIDATES = 512
NUM_SAID = 1 << 12  # counters of the tokens that a history has said

# of weights; a candidate has one bucket in each table
NUM_TABLES = 7
NUM_BUCKETS = 64
# tables of biases, and entries of each
NUM_BIASES = 6
NUM_HASHES = 1 << 16
NUM_FEATURES = (
    NUM_TABLES + NUM_BIASES
)  # of a candidate: where its bucket in each table, and its entry of each bias, lie among all scores

HISTORY = np.dtype(
    [
        ("id", np.int64),
        ("group", np.int64),
        ("first_segment", np.int64),
        ("last", np.int64),
        ("length", np.int64),
    ]
)
SEGMENT = np.dtype([("next", np.int32), ("previous", np.int32), ("history", np.int64), ("group", np.int64)])
POINTER = np.dtype([("place", np.int32), ("match", np.int32), ("scope", np.int32), ("gap", np.int32)])
# By node, 0 = the root: its pointers [first, last), the candidate that it was, its own candidates, and which of them
# is next.
NODE = np.dtype(
    [
        ("first", np.int32),
        ("last", np.int32),
        ("candidate", np.int32),
        ("depth", np.int32),
        ("survival", np.float32),
    ]
    + [
        ("first_candidate", np.int32),
        ("last_candidate", np.int32),
        ("best", np.int32),
        ("best_survival", np.float32),
        ("longest", np.int32),
    ]
)
CANDIDATE = np.dtype(
    [
        ("parent", np.int32),
        ("token", np.int32),
        ("node", np.int32),
        ("depth", np.int32),
        ("source", np.int16),
        ("match", np.int16),
    ]
    + [("rank", np.int32), ("probability", np.float32), ("survival", np.float32)]
)


class Arena(NamedTuple):
    """The tokens of all histories int32 [P], in linked segments, and the chains through them.

    free[: num_free[0]] are unused segments.

    said_HN uint8 [ids, NUM_SAID]: how often a running history has said a token, prompt included, by the token's
    low bits.
    """

    tokens: Int32
    segments: Records
    chains_CP: Int32
    heads_CH: Int32
    free: Int32
    num_free: NDArray[np.int64]
    said_HN: UInt8


class Model(NamedTuple):
    """What was learned: scores float32, those of all buckets and then those of all biases; bigram_VR "
    "int32."""

    scores: NDArray[np.float32]
    bigram_VR: Int32


class Scratch(NamedTuple):
    """What the growth of trees needs, and the candidates of all of them with their features int32 [candidates,
    features].

    num_chains int64 [1]: chains that are followed. votes_CV float32 [children, voters], longest_CV int32
    alike.
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
    """Every continuation that was weighed, CANDIDATE [G], with its features int32 [G, features]; those of history b
    from offsets[b] on.
    """

    candidates: Records
    features_GF: Int32
    offsets: Int64
