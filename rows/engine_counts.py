"""What engines counted, as numbers by kind and name: added up over parts, and handed out so that each is
counted once.

Does not know what is counted: see EngineStats.counts.
"""

import threading
from collections.abc import Callable

EngineCounts = dict[str, dict[str, float]]
DECIMALS = 6  # of seconds: what is smaller only lengthens a part's footer


def add_counts(one: EngineCounts, other: EngineCounts, sign: int = 1) -> EngineCounts:
    """The sum, or with sign -1 the difference; without zeros."""
    found: EngineCounts = {}
    for kind in {**one, **other}:
        mine = one.get(kind, {})
        theirs = other.get(kind, {})
        sums = {
            name: round(mine.get(name, 0) + sign * theirs.get(name, 0), DECIMALS)
            for name in {**mine, **theirs}
        }
        found[kind] = {name: count for name, count in sums.items() if count}
    return {kind: named for kind, named in found.items() if named}


class NewCounts:
    """Gives what was counted since it was last asked, so that the parts of a worker add up to what its engine
    did.

    read: the counts since the engine was made. Threads may ask at once.
    """

    def __init__(self, read: Callable[[], EngineCounts]) -> None:
        self._read = read
        self._given: EngineCounts = {}
        self._lock = threading.Lock()

    def take(self) -> EngineCounts:
        """What nobody has been given yet."""
        with self._lock:
            counts = self._read()
            new = add_counts(counts, self._given, sign=-1)
            self._given = counts
            return new
