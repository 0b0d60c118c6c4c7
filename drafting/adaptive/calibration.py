"""How likely a candidate is: weights by bucket, learned from every candidate whose truth became known, verified or
not.

Owns the weights, what they are before anything was seen, their learning and their file. Does not know how
candidates are found.

A candidate lies in one bucket of each table; its score is the sum of the buckets' weights and of biases that know
tokens, and its probability a softmax over its siblings' scores and 0, the score of "none of these". A step's
truth moves each of them by (right - probability) x rate. A bucket's rate falls as it is seen, never below
MIN_RATE: what was learned long ago fades.
"""

import os
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drafting.adaptive.layout import (
    NUM_BIASES,
    NUM_BUCKETS,
    NUM_HASHES,
    NUM_TABLES,
    NUM_VOTERS,
    Int64,
    WeighedCandidates,
)
from drafting.compiled import compiled
from drafting.tree import Int32

FIRST_RATE = 0.3
MIN_RATE = 0.01
RATE_FALLS_AT = 20.0
BIAS_RATES = (0.1, 0.1, 0.15, 0.15, 0.3, 0.3)


class Calibration:
    """What candidates have taught: weights, seen float32 [tables, buckets]: what each bucket adds to a score,
    and how often it was scored; biases float32 [biases, hashes]: what tokens add, each under a hash: the last
    one, it and the kind of candidate, the last two and the kind, the drafted one and the kind, the last and the
    drafted one, all three and the kind.
    """

    def __init__(self) -> None:
        num_weights = NUM_TABLES * NUM_BUCKETS
        self.scores = np.zeros(
            num_weights + NUM_BIASES * NUM_HASHES, np.float32
        )  # all of them, for features to point into
        self.weights = self.scores[:num_weights].reshape(NUM_TABLES, NUM_BUCKETS)
        self.weights[:] = prior()
        self.seen = np.zeros((NUM_TABLES, NUM_BUCKETS), np.float32)
        self.biases = self.scores[num_weights:].reshape(NUM_BIASES, NUM_HASHES)

    def learn(self, candidates: WeighedCandidates, token_ids: Int32, offsets: Int64) -> None:
        """Scores the candidates of each sequence along its true tokens."""
        _learn(self.scores, self.seen.reshape(-1), candidates, token_ids, offsets)

    def save(self, path: Path) -> None:
        """Writes weights and seen so that a reader sees all of it or nothing; biases hold traces of a job's
        texts and stay with it.
        """
        torn = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with open(torn, "wb") as file:
            np.savez_compressed(file, weights=self.weights, seen=self.seen)
        os.replace(torn, path)

    def load(self, path: Path) -> bool:
        """Takes over a saved state; False where there is none, it is torn, or it was made by other code."""
        try:
            with np.load(path, allow_pickle=False) as file:
                loaded = [file[name] for name in ("weights", "seen")]
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
            return False
        own = (self.weights, self.seen)
        if any(
            new.shape != old.shape or new.dtype != old.dtype for new, old in zip(loaded, own, strict=True)
        ):
            return False
        for new, old in zip(loaded, own, strict=True):
            old[:] = new
        return True


def prior() -> NDArray[np.float32]:
    """Weights before anything was seen: longer matches, larger shares and better ranks are likelier.

    Straight lines through what four kinds of recorded text taught; each also helps the kinds it was not taken
    from.
    """
    weights = np.zeros((NUM_TABLES, NUM_BUCKETS), np.float32)
    for voter in range(NUM_VOTERS):
        weights[voter, 2:56] = (-1.8 + 0.33 * np.arange(9)[:, None] + 0.42 * np.arange(6)).ravel()
    weights[4, 1] = -0.5
    weights[4, 2:18:2] = -1.6 - 0.25 * np.arange(8)
    weights[4, 3:18:2] = -0.1
    weights[5, :32] = np.tile([0.1, -0.2, 0.1, 0.2], 8)
    return weights


@compiled
def _learn(
    scores: NDArray[np.float32],
    seen: NDArray[np.float32],
    found: WeighedCandidates,
    token_ids: Int32,
    offsets: Int64,
) -> None:
    candidates = found.candidates
    features_GF = found.features_GF
    for b in range(len(offsets) - 1):
        node = 0
        at = found.offsets[b]
        last = found.offsets[b + 1]
        for t in range(offsets[b], offsets[b + 1]):
            while at < last and candidates[at].parent < node:
                at += 1
            next_node = -1
            while at < last and candidates[at].parent == node:
                candidate = candidates[at]
                if candidate.token == token_ids[t]:
                    next_node = candidate.node
                error = (candidate.token == token_ids[t]) - candidate.probability
                for i in range(NUM_TABLES):
                    bucket = features_GF[at, i]
                    seen[bucket] += 1
                    rate = MIN_RATE + (FIRST_RATE - MIN_RATE) * RATE_FALLS_AT / (RATE_FALLS_AT + seen[bucket])
                    scores[bucket] += rate * error
                for i in range(NUM_BIASES):
                    scores[features_GF[at, NUM_TABLES + i]] += BIAS_RATES[i] * error
                at += 1
            node = next_node
            if node < 0:
                break
