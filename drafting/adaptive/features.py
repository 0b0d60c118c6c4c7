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

# The features of a candidate, in their order. First tables, whose numbers are also those of the features: for
# each of four voters the longest match that votes for the candidate, and its share of votes.
TABLE_OF_VOTER = (0, 1, 2, 7, 8, 3)
RANK = 4  # the rank in the bigram table, and whether any voter votes for the candidate
DEPTH = 5  # the depth in the tree, and how many scopes vote for the candidate
SAID = 6  # how often the history has said the token, and the candidate's source
# Then biases.
FIRST_BIAS = 7
NUM_BIASES = 6
# Then tables 7 to 10, where the row has a prediction or there are reference texts, or where it is known what
# the model said: those two voters, and what follows here. Other candidates have only the features before.
FIRST_EXTRA = FIRST_BIAS + NUM_BIASES
LEAD = 9  # how far its score is above that of its best sibling, and the node's longest match
LEVEL = 10  # its score, and the node's longest match
NUM_TABLES = 11
NUM_PLAIN = NUM_TABLES + NUM_BIASES
# Rows whose noise is known have tables of their own. Once the noise is added, their candidates are judged
# again, by the same features in tables of their own and by two more.
NOISY_LEAD = NUM_PLAIN  # how far its score is above that of its best sibling, and the node's longest match
NOISY_LEVEL = NUM_PLAIN + 1  # its score, and the node's longest match
NUM_NOISY = NUM_PLAIN + 2
NUM_MODES = 3  # greedy; noisy, before the noise is added; noisy, after
NUM_BUCKETS = 64
NUM_HASHES = 1 << 16
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
def set_buckets(candidate: Any, features: Int32, child: int, mode: int, said: UInt8, scratch: Scratch) -> int:
    """Writes the first tables' buckets, the source and the longest match of a candidate.

    Returns its kind: one number made from the source and the longest match.
    """
    first = mode * WEIGHTS_OF_MODE
    num_scopes = 0
    for voter in range(NUM_VOTERS):
        total = scratch.totals_V[voter]
        bucket = NO_VOTES
        if total > 0:
            bucket = OTHER_VOTES
            match = scratch.longest_CV[child, voter]
            if match:
                share = _share_class(scratch.votes_CV[child, voter] / total)
                bucket = FIRST_SHARE + LENGTH_CLASS[match] * NUM_SHARES + share
                if voter != GAP:
                    num_scopes += 1
                    if match > candidate.match:
                        candidate.match = match
                        candidate.source = voter
        table = TABLE_OF_VOTER[voter]
        place = table if table < FIRST_BIAS else table + NUM_BIASES
        features[place] = first + table * NUM_BUCKETS + bucket
    rank = min(candidate.rank, MAX_RANK) + 1  # 0 = not in the table
    features[RANK] = first + RANK * NUM_BUCKETS + rank * 2 + (num_scopes > 0)
    depth = min(candidate.depth, MAX_DEPTH) - 1
    features[DEPTH] = first + DEPTH * NUM_BUCKETS + depth * (NUM_SCOPES + 1) + num_scopes
    times = SAID_CLASS[said[candidate.token & (NUM_SAID - 1)]]
    features[SAID] = first + SAID * NUM_BUCKETS + times * NUM_SOURCES + candidate.source
    length = LENGTH_CLASS[candidate.match] + 1 if candidate.match > 0 else 0
    return int(length * NUM_SOURCES + candidate.source)


@compiled_lean
def set_score_buckets(features: Int32, mode: int, lead: float, score: float, longest: int) -> None:
    """Writes the buckets of a candidate's score, and of its lead: the score less that of its best sibling.

    longest: the longest match of its node.
    """
    first = mode * WEIGHTS_OF_MODE
    length = MATCH_CLASS[longest]
    lead_class = _class(lead, LEADS) * NUM_MATCH_CLASSES + length
    level_class = _class(score, LEVELS) * NUM_MATCH_CLASSES + length
    features[LEAD + NUM_BIASES] = first + LEAD * NUM_BUCKETS + lead_class
    features[LEVEL + NUM_BIASES] = first + LEVEL * NUM_BUCKETS + level_class


@compiled_lean
def set_noisy_features(
    candidate: Any,
    features: Int32,
    noisy: Int32,
    lead: float,
    level: float,
    longest: int,
    last: int,
    pair: int,
) -> None:
    """Writes the features of a candidate whose score holds the noise of the draw.

    features: those that it has without noise. level: how far its score is above what tokens that are no
    candidates have together.
    """
    for i in range(NUM_PLAIN):
        noisy[i] = features[i] + WEIGHTS_OF_MODE
    first = NUM_MODES * WEIGHTS_OF_MODE
    length = MATCH_CLASS[longest]
    noisy[NOISY_LEAD] = first + _class(lead, LEADS) * NUM_MATCH_CLASSES + length
    noisy[NOISY_LEVEL] = first + NUM_BUCKETS + _class(level, NOISY_LEVELS) * NUM_MATCH_CLASSES + length
    set_biases(noisy, candidate.token, candidate.kind + 2 * NUM_KINDS, mix(last, 2), pair)


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
def set_biases(features: Int32, token: int, kind: int, last: int, pair: int) -> None:
    """Writes the entry of a candidate in each bias.

    last is a hash of the last token, pair one of the last two tokens. The six biases are keyed by: last
    token; last token and kind; last two tokens and kind; candidate and kind; last token and candidate; last
    two tokens, candidate and kind.
    """
    drafted = mix(0, token)
    pair = mix(pair, kind)
    keys = (last, mix(last, kind), pair, mix(drafted, kind), mix(last, token), mix(pair, token))
    for bias, key in enumerate(keys):
        entry = (key * MULTIPLIER >> 32) & (NUM_HASHES - 1)
        features[FIRST_BIAS + bias] = NUM_WEIGHTS + bias * NUM_HASHES + entry


def prior() -> NDArray[np.float32]:
    """Weights of all buckets, float32 [NUM_ROWS, NUM_BUCKETS], before anything was seen.

    Longer matches, larger shares and better ranks are likelier. The weights are straight lines through what
    was learned from four kinds of recorded text. Lines from three of these kinds also help the fourth.
    """
    weights = np.zeros((NUM_ROWS, NUM_BUCKETS), np.float32)
    lengths = 0.33 * np.arange(NUM_LENGTHS)[:, None]
    shares = 0.42 * np.arange(NUM_SHARES)
    end = FIRST_SHARE + NUM_LENGTHS * NUM_SHARES
    weights[list(TABLE_OF_VOTER), FIRST_SHARE:end] = (-1.8 + lengths + shares).ravel()
    # [not in the table, ranks 0 .. MAX_RANK][voted for]
    ranks = weights[RANK, : 2 * (MAX_RANK + 2)].reshape(-1, 2)
    ranks[0, 1] = -0.5
    ranks[1:, 0] = -1.6 - 0.25 * np.arange(MAX_RANK + 1)
    ranks[1:, 1] = -0.1
    depths = weights[DEPTH, : MAX_DEPTH * (NUM_SCOPES + 1)].reshape(MAX_DEPTH, NUM_SCOPES + 1)
    depths[:] = (0.1, -0.2, 0.1, 0.2, 0.2, 0.2)  # by the number of scopes that vote for the candidate
    leads = weights[NUM_MODES * NUM_TABLES, : NUM_MATCH_CLASSES * (len(LEADS) + 1)]
    behind = 0.35 * np.arange(len(LEADS) + 1).clip(max=4)[:, None]
    ahead = 0.16 * (np.arange(len(LEADS) + 1) - 4).clip(min=0)[:, None]
    trusted = np.arange(NUM_MATCH_CLASSES) * (0.1 + 0.035 * np.arange(len(LEADS) + 1))[:, None]
    leads[:] = (-2.5 + behind + ahead + trusted).ravel()
    return weights
