"""Which sources earn their keep: what part of the guesses accepted lately each of them gave.

Owns the sums. What is saved where a source does not earn, the proposer decides.
"""

import numpy as np
from numpy.typing import NDArray

# Accepted guesses that each source begins with; after about 256 steps they are forgotten.
PRIOR = 8.0
MEMORY_STEPS = 256.0
PROBE_EVERY = 16  # steps: now and then a source is used that does not earn, or nobody would see that it could


class Earnings:
    """One per proposer; sources are numbered as its names are."""

    def __init__(self, num_sources: int) -> None:
        self._accepted = np.full(num_sources, PRIOR)
        self._num_asked = [0] * num_sources

    def add(self, sources: NDArray[np.uint8]) -> None:
        """The guesses of these sources were accepted in a step that verified some."""
        self._accepted *= 1.0 - 1.0 / MEMORY_STEPS
        self._accepted += np.bincount(sources, minlength=len(self._accepted))

    def uses(self, source: int, least_share: float) -> bool:
        """Whether a source is to be used now, asked before each use: it gives its share, or its turn to be
        tried has come.
        """
        self._num_asked[source] += 1
        return (
            bool(self._accepted[source] >= least_share * self._accepted.sum())
            or self._num_asked[source] % PROBE_EVERY == 0
        )
