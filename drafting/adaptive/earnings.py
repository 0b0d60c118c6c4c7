"""Which sources earn their time: what share of the nodes accepted lately each of them gave.

Owns the sums. The proposer decides what is saved where a source does not earn its time.
"""

import numpy as np
from numpy.typing import NDArray

PRIOR = 8.0  # accepted nodes that each source begins with
MEMORY_STEPS = 256.0  # after about this many steps, accepted nodes are forgotten
PROBE_EVERY = 16  # steps after which a source that does not earn its time is tried again


class Earnings:
    """The earnings of one proposer's sources; a source has its number in source_names."""

    def __init__(self, num_sources: int) -> None:
        self._accepted = np.full(num_sources, PRIOR)
        self._num_asked = [0] * num_sources

    def add(self, sources: NDArray[np.uint8]) -> None:
        """Takes in the sources of the nodes that were accepted in a step that verified some."""
        self._accepted *= 1.0 - 1.0 / MEMORY_STEPS
        self._accepted += np.bincount(sources, minlength=len(self._accepted))

    def uses(self, source: int, min_share: float) -> bool:
        """Whether a source is used now: it gives min_share of the accepted nodes, or it is probed."""
        self._num_asked[source] += 1
        earns = bool(self._accepted[source] >= min_share * self._accepted.sum())
        return earns or self._num_asked[source] % PROBE_EVERY == 0
