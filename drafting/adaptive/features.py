"""What a candidate is judged by: one bucket of each feature, and one entry of each bias.

Owns the features: their numbers, how a candidate is sorted into buckets, and what buckets are worth before
anything was seen. Does not know what they are worth later, which calibration.py learns.

A feature sorts candidates into at most NUM_BUCKETS buckets by what is known without the tokens: matches,
votes, ranks, depths. A bias has an entry for the tokens themselves, under a hash. All scores lie in one
array: bucket b of feature f at f x NUM_BUCKETS + b, then entry h of bias i at NUM_TABLES x NUM_BUCKETS + i x
NUM_HASHES + h.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from drafting.adaptive.chains import MULTIPLIER, mix
from drafting.adaptive.layout import GAP, NUM_SAID, NUM_VOTERS, Scratch
from drafting.compiled import compiled_lean
from drafting.tree import Int32, UInt8

# Features 0 to NUM_VOTERS - 1: for each voter, the longest match that votes for the candidate, and its share
# of votes.
RANK = NUM_VOTERS  # the rank in the bigram table, and whether any voter votes for the candidate
DEPTH = NUM_VOTERS + 1  # the depth in the tree, and how many scopes vote for the candidate
SAID = NUM_VOTERS + 2  # how often the history has said the token, and the candidate's source
LEAD = NUM_VOTERS + 3  # how far its score is above that of its best sibling, and the node's longest match
LEVEL = NUM_VOTERS + 4  # its score, and the node's longest match
NUM_TABLES = NUM_VOTERS + 5
# Rows whose noise is known have tables of their own, and their candidates are judged once more with the noise, by
# tables of the same features and by two more.
NUM_MODES = 3
NOISY_LEAD = NUM_TABLES  # how far its score is above that of its best sibling, and the node's longest match
NOISY_LEVEL = NUM_TABLES + 1  # its score, and the node's longest match
NUM_NOISY_TABLES = NUM_TABLES + 2
NUM_BUCKETS = 64
SILENT = (
    NUM_BUCKETS - 1
)  # the last bucket of a table is for what is not known: it has no weight and learns none
NUM_BIASES = 6
NUM_HASHES = 1 << 16
FIRST_NOISY = NUM_TABLES + NUM_BIASES  # its place among the features of a candidate
NUM_FEATURES = FIRST_NOISY + NUM_NOISY_TABLES + NUM_BIASES
WEIGHTS_OF_MODE = NUM_TABLES * NUM_BUCKETS
NUM_ROWS = NUM_MODES * NUM_TABLES + 2
NUM_WEIGHTS = NUM_ROWS * NUM_BUCKETS

# Buckets of a voter's feature.
NO_VOTES = 0  # the voter has no occurrence at all
OTHER_VOTES = 1  # it votes for other candidates only
FIRST_SHARE = 2  # then NUM_SHARES buckets for each class of match lengths
NUM_SHARES = 6  # up to 0.1, 0.25, 0.5, 0.8, 0.99, 1 of the votes
NUM_LENGTHS = 9  # 1 2 3 4 5-6 7-9 10-15 16-31 32
LENGTH_CLASS = np.searchsorted((1, 2, 3, 4, 6, 9, 15, 31), np.arange(33))
MAX_RANK = 7  # ranks from here on share a bucket
MAX_DEPTH = 8  # depths from here on share a bucket
NUM_SCOPES = 5
NUM_SOURCES = 6
LEADS = (-3.0, -1.5, -0.75, -0.3, 0.0, 0.1, 0.25, 0.5, 0.8, 1.2, 1.7, 2.5, 4.0)
NOISY_LEVELS = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.5, 8.0)
LEVELS = (-4.0, -3.0, -2.0, -1.0, -0.5, -0.2, -0.1, -0.03, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
MATCH_CLASS = np.searchsorted((1, 2, 4), np.arange(33))  # 0-1 2 3-4 5+
NUM_MATCH_CLASSES = 4
NUM_KINDS = (NUM_LENGTHS + 1) * NUM_SOURCES
SAID_CLASS = np.searchsorted((1, 2, 3, 5, 10), np.arange(256), side="right")  # 0 1 2 3-4 5-9 10+


@compiled_lean
def set_buckets(
    candidate: Any, features: Int32, child: int, said: UInt8, scratch: Scratch, lead: float, node: Any
) -> int:
    """Writes the buckets, the source and the longest match of a candidate.

    lead: its score less that of its best sibling. node: its parent. Returns its kind: one number
    made from the source and the longest match.
    """
    num_scopes = 0
    for voter in range(NUM_VOTERS):
        match = scratch.longest_CV[child, voter]
        total = scratch.totals_V[voter]
        bucket = NO_VOTES
        if match:
            share = _share_class(scratch.votes_CV[child, voter] / total)
            bucket = FIRST_SHARE + LENGTH_CLASS[match] * NUM_SHARES + share
            if voter != GAP:
                num_scopes += 1
                if match > candidate.match:
                    candidate.match = match
                    candidate.source = voter
        elif total > 0:
            bucket = OTHER_VOTES
        features[voter] = voter * NUM_BUCKETS + bucket
    rank = min(candidate.rank, MAX_RANK) + 1  # 0 = not in the table
    features[RANK] = RANK * NUM_BUCKETS + rank * 2 + (num_scopes > 0)
    depth = min(candidate.depth, MAX_DEPTH) - 1
    features[DEPTH] = DEPTH * NUM_BUCKETS + depth * (NUM_SCOPES + 1) + num_scopes
    times = SAID_CLASS[said[candidate.token & (NUM_SAID - 1)]]
    features[SAID] = SAID * NUM_BUCKETS + times * NUM_SOURCES + candidate.source
    features[LEAD] = LEAD * NUM_BUCKETS + SILENT
    features[LEVEL] = LEVEL * NUM_BUCKETS + SILENT
    if node.said:
        length = MATCH_CLASS[node.longest]
        features[LEAD] = LEAD * NUM_BUCKETS + _class(lead, LEADS) * NUM_MATCH_CLASSES + length
        features[LEVEL] = LEVEL * NUM_BUCKETS + _class(candidate.score, LEVELS) * NUM_MATCH_CLASSES + length
    length = LENGTH_CLASS[candidate.match] + 1 if candidate.match > 0 else 0
    return int(length * NUM_SOURCES + candidate.source)


@compiled_lean
def set_noisy_features(
    candidate: Any, features: Int32, lead: float, tail: float, longest: int, kind: int, last: int, pair: int
) -> None:
    """Writes the features of a candidate whose score holds the noise of the draw."""
    own = features[FIRST_NOISY:]
    for i in range(NUM_TABLES):
        own[i] = features[i] + WEIGHTS_OF_MODE
    first = NUM_MODES * WEIGHTS_OF_MODE
    length = MATCH_CLASS[longest]
    own[NOISY_LEAD] = first + _class(lead, LEADS) * NUM_MATCH_CLASSES + length
    own[NOISY_LEVEL] = (
        first + NUM_BUCKETS + _class(candidate.score - tail, NOISY_LEVELS) * NUM_MATCH_CLASSES + length
    )
    set_biases(own[NUM_NOISY_TABLES:], candidate.token, kind + 2 * NUM_KINDS, mix(last, 2), pair)


@compiled_lean
def _class(value: float, limits: tuple[float, ...]) -> int:
    """How many limits a value has reached."""
    number = 0
    for limit in limits:
        number += value >= limit
    return number


@compiled_lean
def _share_class(share: float) -> int:
    if share < 0.25:
        return 0 if share < 0.1 else 1
    if share < 0.8:
        return 2 if share < 0.5 else 3
    return 4 if share < 0.99 else 5


@compiled_lean
def set_biases(biases: Int32, token: int, kind: int, last: int, pair: int) -> None:
    """Writes the entry of a candidate in each bias, biases int32 [NUM_BIASES].

    last is a hash of the last token, pair one of the last two tokens. The six biases are keyed by: last
    token; last token and kind; last two tokens and kind; candidate and kind; last token and candidate; last
    two tokens, candidate and kind.
    """
    drafted = mix(0, token)
    pair = mix(pair, kind)
    keys = (last, mix(last, kind), pair, mix(drafted, kind), mix(last, token), mix(pair, token))
    for bias, key in enumerate(keys):
        entry = (key * MULTIPLIER >> 32) & (NUM_HASHES - 1)
        biases[bias] = NUM_WEIGHTS + bias * NUM_HASHES + entry


def prior() -> NDArray[np.float32]:
    """Weights of all buckets, float32 [NUM_ROWS, NUM_BUCKETS], before anything was seen.

    Longer matches, larger shares and better ranks are likelier. The weights are straight lines through what
    was learned from four kinds of recorded text. Lines from three of these kinds also help the fourth.
    """
    weights = np.zeros((NUM_ROWS, NUM_BUCKETS), np.float32)
    for greedy in (weights[:NUM_TABLES],):
        lengths = 0.33 * np.arange(NUM_LENGTHS)[:, None]
        shares = 0.42 * np.arange(NUM_SHARES)
        end = FIRST_SHARE + NUM_LENGTHS * NUM_SHARES
        greedy[:NUM_VOTERS, FIRST_SHARE:end] = (-1.8 + lengths + shares).ravel()
        # [not in the table, ranks 0 .. MAX_RANK][voted for]
        ranks = greedy[RANK, : 2 * (MAX_RANK + 2)].reshape(-1, 2)
        ranks[0, 1] = -0.5
        ranks[1:, 0] = -1.6 - 0.25 * np.arange(MAX_RANK + 1)
        ranks[1:, 1] = -0.1
        depths = greedy[DEPTH, : MAX_DEPTH * (NUM_SCOPES + 1)].reshape(MAX_DEPTH, NUM_SCOPES + 1)
        depths[:] = (0.1, -0.2, 0.1, 0.2, 0.2, 0.2)  # by the number of scopes that vote for the candidate
    leads = weights[NUM_MODES * NUM_TABLES, : NUM_MATCH_CLASSES * (len(LEADS) + 1)].reshape(
        -1, NUM_MATCH_CLASSES
    )
    leads[:] = -3.0 + 0.35 * np.arange(len(LEADS) + 1)[:, None] + 0.3 * np.arange(NUM_MATCH_CLASSES)
    return weights
