"""How likely a candidate is: weights by bucket, learned from every candidate whose truth became known.

Owns the weights, their learning and their file. Does not know how candidates are found, nor what the buckets
mean.

A candidate's score is the sum of its buckets' weights and of its biases. Its probability is a softmax over
the scores of its siblings and 0, the score of "none of these". After a step the true tokens are known, so
every candidate whose parent came true is scored, verified or not: each of its weights and biases moves by
(outcome - probability) x rate, where the outcome is 1 if the candidate came true and else 0. A bucket's rate
falls as it is seen, but never below MIN_RATE, so what was learned long ago fades.

A row whose noise is known teaches twice. What a candidate has before the noise (`plain`) begins from its
share, and is compared with what the model gave it, where that is known. What it has after the noise
(`probability`) is compared with the outcome. Each has weights of its own.
"""

import os
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drafting.adaptive.features import (
    FIRST_BIAS,
    FIRST_EXTRA,
    NUM_BIASES,
    NUM_BUCKETS,
    NUM_HASHES,
    NUM_NOISY,
    NUM_PLAIN,
    NUM_ROWS,
    NUM_WEIGHTS,
    prior,
)
from drafting.adaptive.layout import Int64, WeighedCandidates
from drafting.compiled import compiled_lean
from drafting.likely import NOTHING_SAID, PROBABILITIES, UNKNOWN, UInt32, level_of, token_of
from drafting.tree import Int32

FIRST_RATE = 0.3
# In rows whose noise is known: the first rates of what the model gives a candidate, and of what the draw
# prefers; and biases move by this share of their rates. The first is told by log-probabilities, not by single
# outcomes.
SHARE_RATE = 0.05
NOISY_RATE = 0.1
NOISY_BIASES = 0.5
MIN_RATE = 0.01
RATE_FALLS_AT = 20.0  # after this many sightings a bucket has half of the first rate
BIAS_RATES = (0.1, 0.1, 0.15, 0.15, 0.3, 0.3)


class Calibration:
    """What candidates have taught.

    weights float32 [NUM_ROWS, NUM_BUCKETS]: what each bucket adds to a score; seen: how often it was
    scored. biases float32 [NUM_BIASES, NUM_HASHES]: what tokens add. scores: weights and biases as one array,
    for features to point into.
    """

    def __init__(self) -> None:
        self.scores = np.zeros(NUM_WEIGHTS + NUM_BIASES * NUM_HASHES, np.float32)
        self.weights = self.scores[:NUM_WEIGHTS].reshape(NUM_ROWS, NUM_BUCKETS)
        self.weights[:] = prior()
        self.seen = np.zeros_like(self.weights)
        self.biases = self.scores[NUM_WEIGHTS:].reshape(NUM_BIASES, NUM_HASHES)

    def learn(
        self, weighed: WeighedCandidates, token_ids: Int32, offsets: Int64, likely: UInt32 | None = None
    ) -> None:
        """Scores the candidates of each sequence along its true tokens, token_ids[offsets[b] : offsets[b +
        1]].

        likely: what the model said where it gave each token, packed [N, M]; None = that is not known.
        """
        likely = NOTHING_SAID if likely is None else likely
        _learn(self.scores, self.seen.reshape(-1), weighed, token_ids, offsets, likely)

    def save(self, path: Path) -> None:
        """Writes weights and seen, so that a reader finds a whole file or none.

        Biases hold traces of a job's texts and are not written.
        """
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with open(temporary, "wb") as file:
            np.savez_compressed(file, weights=self.weights, seen=self.seen)
        os.replace(temporary, path)

    def load(self, path: Path) -> bool:
        """Takes over a saved state; returns False where there is none, it is torn, or other code made it."""
        try:
            with np.load(path, allow_pickle=False) as file:
                weights = file["weights"]
                seen = file["seen"]
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
            return False
        if any(new.shape != self.seen.shape or new.dtype != self.seen.dtype for new in (weights, seen)):
            return False
        self.weights[:] = weights
        self.seen[:] = seen
        return True


@compiled_lean
def _learn(
    scores: NDArray[np.float32],
    seen: NDArray[np.float32],
    weighed: WeighedCandidates,
    token_ids: Int32,
    offsets: Int64,
    likely_NM: UInt32,
) -> None:
    candidates = weighed.candidates
    for b in range(len(offsets) - 1):
        node = 0
        at = weighed.offsets[b]
        last = weighed.offsets[b + 1]
        for t in range(offsets[b], offsets[b + 1]):
            while at < last and candidates[at].parent < node:
                at += 1
            next_node = -1
            while at < last and candidates[at].parent == node:
                candidate = candidates[at]
                features = weighed.features_GF[at]
                outcome = 1.0 if candidate.token == token_ids[t] else 0.0
                if outcome > 0:
                    next_node = candidate.node
                if weighed.noisy[b]:
                    is_known = len(likely_NM) > 0 and likely_NM[t, 0] != UNKNOWN
                    share = _share(likely_NM[t], candidate.token) if is_known else outcome
                    error = share - candidate.plain
                    _move(scores, seen, features, NUM_PLAIN, SHARE_RATE, NOISY_BIASES, error)
                    error = outcome - candidate.probability
                    if candidate.probability > 0:
                        noisy = weighed.noisy_GF[at]
                        _move(scores, seen, noisy, NUM_NOISY, NOISY_RATE, NOISY_BIASES, error)
                else:
                    error = outcome - candidate.probability
                    _move(scores, seen, features, candidate.num_features, FIRST_RATE, 1.0, error)
                at += 1
            node = next_node
            if node < 0:
                break


@compiled_lean
def _share(said: UInt32, token: int) -> float:
    """What the model gave a token; 0 where it is not among the likeliest."""
    for i in range(len(said)):
        if said[i] == UNKNOWN:
            break
        if token_of(said[i]) == token:
            return float(PROBABILITIES[level_of(said[i])])
    return 0.0


@compiled_lean
def _move(
    scores: NDArray[np.float32],
    seen: NDArray[np.float32],
    features: Int32,
    count: int,
    first_rate: float,
    bias_scale: float,
    error: float,
) -> None:
    """Moves the weights and biases of a candidate's first `count` features."""
    for i in range(count):
        entry = features[i]
        if FIRST_BIAS <= i < FIRST_EXTRA:
            rate = bias_scale * BIAS_RATES[i - FIRST_BIAS]
        else:
            seen[entry] += 1
            rate = MIN_RATE + (first_rate - MIN_RATE) * RATE_FALLS_AT / (RATE_FALLS_AT + seen[entry])
        scores[entry] += rate * error
