"""The pages of a step's sequences as one array, kept from step to step: most steps add few pages or none.

Knows lists of page ids, not sequences.
"""

import numpy as np
from numpy.typing import NDArray


class PageTable:
    """Remembers the lists it was asked for last, and writes only what is new.

    A list may grow; it must not change otherwise.
    """

    def __init__(self) -> None:
        self._table = np.zeros((1, 1), np.int64)
        self._lists: list[list[int]] = []
        self._counts: list[int] = []

    def of(self, lists: list[list[int]]) -> NDArray[np.int64]:
        """An array of at least [C, P] whose line c begins with the pages of lists[c].

        What follows them, and what follows the last line, means nothing. The next call overwrites the array.
        """
        counts = list(map(len, lists))
        before = self._lists
        had = self._counts
        if len(lists) > len(self._table) or max(counts) > self._table.shape[1]:
            before = []
            self._table = np.zeros((len(lists), 2 * max(counts)), np.int64)
        for line, (pages, count) in enumerate(zip(lists, counts, strict=True)):
            first = had[line] if line < len(before) and before[line] is pages else 0
            if first != count:
                self._table[line, first:count] = pages[first:]
        self._lists = lists
        self._counts = counts
        return self._table
