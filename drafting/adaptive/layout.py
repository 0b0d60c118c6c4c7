"""The records and arrays that the compiled half of the adaptive proposer shares with its Python half.

Owns names, types and sizes only; features.py owns those of the features.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drafting.compiled import record
from drafting.likely import UInt32
from drafting.tree import Int32, UInt8

Records = NDArray[np.void]
Int64 = NDArray[np.int64]
NONE = -1
SEGMENT_TOKENS = 64  # places of a segment
OWNER_TOKENS = 4  # places that one record of their owner speaks for: histories begin at multiples of this
MAX_MATCH = 32  # tokens that are compared backwards
MAX_CHILDREN = 24  # candidates that follow one node
NUM_SLOTS = 256  # a power of two, far more than the children that lie in it
MAX_CANDIDATES = 512  # candidates of one tree
NUM_SAID = 1 << 12  # counters of the tokens that a history has said

# Where an occurrence lies: in the history itself, in a history of its group, in any history, in the
# prediction of the history, in a reference text. The number of a scope is also the number of its source; the
# bigram table is the source with the next number.
OWN = 0
GROUP = 1
ALL = 2
PREDICTION = 3
REFERENCE = 4
BIGRAM = 5
# Occurrences vote for what followed them. Those that match only before the last token have a vote of their
# own.
GAP = 5
NUM_VOTERS = 6

# Chain c links each place to the earlier one that followed the same ORDERS[c] tokens in the scope SCOPES[c].
# Reference texts have a chain of their own: links of the others lead through places that are forgotten and
# written anew, and what is behind those is lost.
ORDERS = (3, 1, 2, 2, 2)
SCOPES = (OWN, OWN, GROUP, ALL, REFERENCE)
NUM_CHAINS = 5
MAX_ORDER = 3
# Walks w follow the chain WALKS[w]. The last two follow those of the history's prediction.
WALKS = (0, 1, 2, 3, 4, 0, 1)
NUM_WALKS = 7
PREDICTION_WALKS = 5  # from here on
WALK = 16  # links of a chain that are followed for the root of a tree
SHORT_WALK = 8  # links that are followed for another node, and for matches before the last token
MAX_POINTERS = NUM_WALKS * (WALK + SHORT_WALK) + 1  # occurrences that a node keeps

MAX_ID = (1 << 31) - 1  # of histories and groups: owners keep both in 32 bits
# Groups without siblings: of predictions, which only their own row drafts from, and of reference texts.
PREDICTIONS = -1
REFERENCES = -2
# id: from 1 to MAX_ID, and then from 1 again. group: 0 = none. first, last: the places of its first and last
# token, or NONE. prediction, prediction_first: the id and the first place of the history that says what this
# one probably becomes, or NONE. num_prompt: tokens that come before output position 0. temperature: 0 where
# there is no noise, or it is not known; the other settings of the draw count only where it is known.
HISTORY = record(
    int64="id group first last length prediction prediction_first num_prompt top_k",
    uint64="seed",
    float64="temperature top_p min_p",
)
# next, previous: where the last history of a segment goes on, and where the first one comes from. histories:
# how many have tokens here. used: the places that are taken, SEGMENT_TOKENS while a history may take more.
SEGMENT = record(int32="next previous histories used")
OWNER = record(int32="history group")
# An occurrence: the place of the token that followed, and how many tokens before it match.
POINTER = record(int32="place match scope gap")
# Node 0 is the root. Its pointers are [first, last) and its candidates [first_candidate, last_candidate);
# candidate: the candidate that became this node. best: the likeliest of this node's candidates that has not
# become a node. longest: this node's longest match. said: at how many places is known what the model said.
NODE = record(
    int32="first last candidate depth first_candidate last_candidate best longest said",
    float32="survival best_survival",
)
# parent: a node. node: the node that the candidate has become, or NONE. rank: in the bigram table, or NONE.
# share: what the model probably gives it at temperature 1. score: the logarithm of the share divided by the
# temperature, plus the noise of the draw. num_features: how many it is judged by. plain: its probability
# before the noise is known; probability: that it comes true if its parent does.
CANDIDATE = record(
    int32="parent token node depth rank",
    int16="source match kind num_features",
    float32="share plain score probability survival",
)


class Arena(NamedTuple):
    """The tokens of all histories, int32 [P], in linked segments, and the chains through them.

    Places without a token hold NONE. likely_PM: what the model said at each place, which is where its token
    comes from (drafting/likely.py). owners: whose each run of OWNER_TOKENS places is. said_HN uint8
    [histories, NUM_SAID] counts how often a running history has said a token, prompt included; the index of
    a token's counter is the low bits of its id.
    """

    tokens: Int32
    likely_PM: UInt32
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

    scores float32: of all buckets, then of all biases (features.py). bigram_VR: what the model said after
    each token, packed [V, ranks] (drafting/likely.py).
    """

    scores: NDArray[np.float32]
    bigram_VR: UInt32


class Scratch(NamedTuple):
    """Memory that growing trees needs. candidates, features_GF and noisy_GF hold those of all trees of a
    step.

    follows bool [2]: whether the chains of all histories, and of reference texts, are followed. context int32
    [MAX_MATCH]: the last tokens of a history, newest first; recent int32 [MAX_MATCH]: the last tokens as a
    node sees them. places_WC int32 [WALK, NUM_WALKS]. votes_CV float32 and longest_CV int32 [MAX_CHILDREN,
    NUM_VOTERS]; totals_V float32 [NUM_VOTERS]. slots int32 [NUM_SLOTS]: the children of a node by the low
    bits of their token ids.
    """

    pointers: Records
    nodes: Records
    candidates: Records
    features_GF: Int32
    noisy_GF: Int32
    context: Int32
    recent: Int32
    follows: NDArray[np.bool_]
    places_WC: Int32
    votes_CV: NDArray[np.float32]
    longest_CV: Int32
    totals_V: NDArray[np.float32]
    slots: Int32


class WeighedCandidates(NamedTuple):
    """Every candidate that was weighed in a step: CANDIDATE [G], with features int32 [G, NUM_PLAIN].

    Sequence b owns those from offsets[b] to offsets[b + 1] - 1. noisy bool [B]: whether its noise is known;
    then noisy_GF int32 [G, NUM_NOISY] has the features that candidates have with it.
    """

    candidates: Records
    features_GF: Int32
    offsets: Int64
    noisy: NDArray[np.bool_]
    noisy_GF: Int32
