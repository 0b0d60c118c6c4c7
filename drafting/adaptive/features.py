"""What a candidate is judged by: its bucket in each table of weights, and its entry in each table of biases;
compiled.

Owns what is looked at and how it is sorted into buckets. Does not know what the buckets are worth
(calibration.py).
"""

from typing import Any

import numpy as np

from drafting.adaptive.chains import MULTIPLIER, mix
from drafting.adaptive.layout import GAP, NUM_BUCKETS, NUM_HASHES, NUM_SAID, NUM_TABLES, NUM_VOTERS, Scratch
from drafting.compiled import compiled_lean
from drafting.tree import Int32, UInt8

SIZES = np.searchsorted(
    (1, 2, 3, 4, 6, 9, 15, 31), np.arange(33)
)  # of matches: 1 2 3 4 5-6 7-9 10-15 16-31 32 -> 0 .. 8
SAID = np.searchsorted(
    (1, 2, 3, 5, 10), np.arange(256), side="right"
)  # how often: 0 1 2 3-4 5-9 10+ -> 0 .. 5


@compiled_lean
def set_buckets(candidate: Any, features: Int32, child: int, said: UInt8, scratch: Scratch) -> int:
    """What is known of a candidate: by voter its longest match and its share; its rank in the bigram; its depth;
    how often the history has said it. Returns its kind: source and longest match.
    """
    num_scopes = 0
    for voter in range(NUM_VOTERS):
        longest = scratch.longest_CV[child, voter]
        total = scratch.totals_V[voter]
        bucket = 0
        if longest:
            share = scratch.votes_CV[child, voter] / total
            part = (
                0
                if share < 0.1
                else 1
                if share < 0.25
                else 2
                if share < 0.5
                else 3
                if share < 0.8
                else 4
                if share < 0.99
                else 5
            )
            bucket = 2 + SIZES[longest] * 6 + part
            if voter != GAP:
                num_scopes += 1
                if longest > candidate.match:
                    candidate.match = longest
                    candidate.source = voter
        elif total > 0:
            bucket = 1
        features[voter] = voter * NUM_BUCKETS + bucket
    features[4] = 4 * NUM_BUCKETS + (min(candidate.rank, 7) + 1) * 2 + (num_scopes > 0)
    features[5] = 5 * NUM_BUCKETS + min(candidate.depth - 1, 7) * 4 + num_scopes
    features[6] = 6 * NUM_BUCKETS + SAID[said[candidate.token & (NUM_SAID - 1)]] * 4 + candidate.source
    return int((SIZES[candidate.match] + 1 if candidate.match > 0 else 0) * 4 + candidate.source)


@compiled_lean
def set_biases(features: Int32, token: int, kind: int, last: int, pair: int) -> None:
    """Where what is known of these tokens lies: the last, it and the kind of candidate, the two last and the
    kind, the drafted one and the kind, the last and the drafted one, all of them.
    """
    drafted = mix(0, token)
    pair = mix(pair, kind)
    for bias, key in enumerate(
        (last, mix(last, kind), pair, mix(drafted, kind), mix(last, token), mix(pair, token))
    ):
        features[NUM_TABLES + bias] = (
            NUM_TABLES * NUM_BUCKETS + bias * NUM_HASHES + ((key * MULTIPLIER >> 32) & (NUM_HASHES - 1))
        )
