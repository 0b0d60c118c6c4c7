"""The histories that drafts come from: running sequences, and finished ones as far as there is room.

Owns which history has which index, which finished history is forgotten first, and how the arrays grow.
segments.py owns where a history lies, chains.py what is written there.
"""

import logging
from array import array
from collections.abc import Iterable
from hashlib import blake2b
from sys import getsizeof

import numpy as np

from drafting.adaptive.chains import append
from drafting.adaptive.layout import (
    HISTORY,
    MAX_ID,
    MAX_ORDER,
    NONE,
    NUM_CHAINS,
    NUM_SAID,
    OWNER,
    OWNER_TOKENS,
    REFERENCES,
    SEGMENT,
    SEGMENT_TOKENS,
    Arena,
    Int64,
    Records,
    Room,
)
from drafting.adaptive.segments import close, num_places, release, withdraw
from drafting.likely import NOTHING_SAID, UInt32, unknown
from drafting.tree import Int32

logger = logging.getLogger(__name__)
FIRST_SEGMENTS = 256
FIRST_HISTORIES = 16
GROWTH = 0.25  # of the segments there are: room that is never used costs at most this share


class TokenArena:
    """Histories of tokens, indexed; of finished ones the newest that fit in max_finished_places are kept.

    Each takes num_places of its length, so the limit bounds the memory however short histories are.
    """

    def __init__(self, max_finished_places: int, num_likely: int = 0) -> None:
        """num_likely: how many of the model's likeliest tokens are kept for each place."""
        self.max_finished_places = max_finished_places
        self.num_finished_places = 0
        self.histories: Records = np.zeros(FIRST_HISTORIES, HISTORY)
        self.arrays, self.room = _grown(*_nothing(num_likely), FIRST_SEGMENTS)
        # First places of finished histories, oldest first; those before `_oldest` are forgotten. An object
        # for each would take more memory than a short history itself.
        self._finished = array("i")
        self._oldest = 0
        self._free = list(range(FIRST_HISTORIES))[::-1]
        self._last_id = 0
        self._recent = np.zeros(MAX_ORDER, np.int32)

    def add(self, group: int) -> int:
        """Begins a history of a group (0 = none) and returns its index."""
        if not self._free:
            size = len(self.histories)
            self.histories = np.concatenate([self.histories, np.zeros(size, HISTORY)])
            self.arrays = self.arrays._replace(
                said_HN=np.concatenate([self.arrays.said_HN, np.zeros_like(self.arrays.said_HN)])
            )
            self._free = list(range(size, 2 * size))[::-1]
        index = self._free.pop()
        self._last_id = self._last_id % MAX_ID + 1
        history = self.histories[index]
        history["id"] = self._last_id
        history["group"] = group
        for name in ("first", "last", "prediction", "prediction_first"):
            history[name] = NONE
        for name in ("length", "num_prompt", "temperature"):
            history[name] = 0
        self.arrays.said_HN[index] = 0
        return index

    def append(self, indices: Int64, token_ids: Int32, offsets: Int64, likely: UInt32 | None = None) -> None:
        """Adds token_ids[offsets[i] : offsets[i + 1]] to the history in indices[i].

        likely: what the model said where it gave each token, packed [N, M] (drafting/likely.py); None = that
        is not known.
        """
        if likely is None:
            likely = NOTHING_SAID
        missing = len(token_ids) // SEGMENT_TOKENS + len(indices) - int(self.room.num_free[0])
        if missing > 0:
            self._grow(max(missing, int(GROWTH * len(self.arrays.segments))))
        append(self.arrays, self.room, self.histories, indices, token_ids, offsets, likely, self._recent)

    def _grow(self, more: int) -> None:
        """Makes room for that many more segments. Where memory is short, what the model said is forgotten
        first, and no longer kept.
        """
        try:
            self.arrays, self.room = _grown(self.arrays, self.room, more)
        except MemoryError:
            if not self.num_likely:
                raise
            logger.warning("memory is short: drafts are made without what the model said at each place")
            self.arrays = self.arrays._replace(likely_PM=unknown(len(self.arrays.tokens), 0))
            self._grow(more)

    @property
    def num_likely(self) -> int:
        """How many of the model's likeliest tokens are kept for each place."""
        return int(self.arrays.likely_PM.shape[1])

    def finish(self, index: int) -> None:
        """Ends a history, which stays as an example for others if it is not too long to be kept."""
        history = self.histories[index]
        places = num_places(int(history["length"]))
        if history["length"] == 0 or places > self.max_finished_places:
            self.drop(index)
            return
        close(self.arrays, self.room, int(history["last"]))
        self._finished.append(int(history["first"]))
        self.num_finished_places += places
        self._free.append(index)
        self._forget(self.max_finished_places)

    def keep_for_good(self, token_ids: Int32) -> None:
        """Adds a reference text, which is never forgotten; it does not count against the limit."""
        index = self.add(REFERENCES)
        self.append(np.array([index]), token_ids, np.array([0, len(token_ids)]))
        close(self.arrays, self.room, int(self.histories[index]["last"]))
        self._free.append(index)

    def drop(self, index: int) -> None:
        """Ends a history and forgets it."""
        withdraw(self.arrays, self.room, int(self.histories[index]["first"]))
        self._free.append(index)

    def clear(self) -> None:
        """Forgets all finished histories."""
        self._forget(0)

    def _forget(self, max_places: int) -> None:
        while self.num_finished_places > max_places:
            length = release(self.arrays, self.room, self._finished[self._oldest])
            self.num_finished_places -= num_places(length)
            self._oldest += 1
        if 2 * self._oldest > len(self._finished):
            del self._finished[: self._oldest]
            self._oldest = 0

    @property
    def num_bytes(self) -> int:
        """Memory of all that is kept of histories, in bytes."""
        arrays = (*self.arrays, *self.room, self.histories)
        return sum(each.nbytes for each in arrays) + getsizeof(self._finished)


def group_number(name: str) -> int:
    """The number of a group, from 1 on; 0 = none.

    It is a digest of the name, so no table of names has to be kept. Of 10,000 groups two have the same number
    once in 40 times, and their rows then count as siblings.
    """
    if not name:
        return 0
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") % MAX_ID + 1


def _nothing(num_likely: int) -> tuple[Arena, Room]:
    """An arena without any segment, with one head for each chain."""
    arrays = Arena(
        tokens=np.empty(0, np.int32),
        likely_PM=unknown(0, num_likely),
        owners=np.empty(0, OWNER),
        segments=np.empty(0, SEGMENT),
        chains_CP=np.empty((NUM_CHAINS, 0), np.int32),
        heads_CH=np.full((NUM_CHAINS, 1), NONE, np.int32),
        said_HN=np.zeros((FIRST_HISTORIES, NUM_SAID), np.uint8),
    )
    none = np.empty(0, np.int32)
    return arrays, Room(none, np.zeros(1, np.int64), none, np.zeros(1, np.int64))


def _grown(old: Arena, room: Room, more: int) -> tuple[Arena, Room]:
    """The arena with that many more segments, which are free, and with heads for them.

    The number of heads is the power of two that is nearest to that of places. The index of a head is the low
    bits of a hash. Doubling adds a bit to the index, so a head belongs at one of two indices, and it is
    copied to both.
    """
    count = len(old.segments)
    places = more * SEGMENT_TOKENS
    heads_CH = old.heads_CH
    while 3 * heads_CH.shape[1] < 2 * SEGMENT_TOKENS * (count + more):
        heads_CH = np.concatenate([heads_CH, heads_CH], 1)
    arrays = old._replace(
        tokens=np.concatenate([old.tokens, np.full(places, NONE, np.int32)]),
        likely_PM=np.concatenate([old.likely_PM, unknown(places, old.likely_PM.shape[1])]),
        owners=np.concatenate([old.owners, np.zeros(places // OWNER_TOKENS, OWNER)]),
        segments=np.concatenate([old.segments, np.zeros(more, SEGMENT)]),
        chains_CP=np.concatenate([old.chains_CP, np.full((NUM_CHAINS, places), NONE, np.int32)], 1),
        heads_CH=heads_CH,
    )
    num_free = int(room.num_free[0])
    new = np.arange(count, count + more, dtype=np.int32)[::-1]  # what is last is taken first
    room = room._replace(
        free=np.concatenate([room.free[:num_free], new, np.zeros(count - num_free, np.int32)]),
        num_free=np.array([num_free + more], np.int64),
        open=np.concatenate([room.open, np.zeros(more, np.int32)]),
    )
    return arrays, room


def history_indices(states: Iterable[int]) -> Int64:
    """The indices of histories as an array."""
    return np.fromiter(states, np.int64)
