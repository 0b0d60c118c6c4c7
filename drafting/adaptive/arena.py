"""The histories that drafts come from: running sequences, and finished ones as far as there is room.

Owns which history has which index and segments, and which finished history is forgotten first. chains.py owns
what is in the segments.
"""

from collections import deque
from collections.abc import Iterable

import numpy as np

from drafting.adaptive.chains import append
from drafting.adaptive.layout import (
    HISTORY,
    MAX_ORDER,
    NONE,
    NUM_CHAINS,
    NUM_SAID,
    SEGMENT,
    SEGMENT_TOKENS,
    Arena,
    Int64,
    Records,
)
from drafting.compiled import compiled
from drafting.tree import Int32

FIRST_SEGMENTS = 256
FIRST_HISTORIES = 16


class TokenArena:
    """Histories of tokens, indexed; of finished histories the newest max_finished_tokens are kept."""

    def __init__(self, max_finished_tokens: int) -> None:
        self.max_finished_tokens = max_finished_tokens
        self.histories: Records = np.zeros(FIRST_HISTORIES, HISTORY)
        self.arrays = _empty(FIRST_SEGMENTS)
        self.num_finished_tokens = 0
        self._finished: deque[tuple[int, int, int]] = deque()  # first segment, number of tokens, group
        self._free = list(range(FIRST_HISTORIES))[::-1]
        self._next_id = 1
        self._recent = np.zeros(MAX_ORDER, np.int32)
        self._next_group = 1
        # Numbers of the groups that have histories. A number is never used again, since old segments bear it.
        self._groups: dict[str, int] = {}
        self._members: dict[int, tuple[str, int]] = {}  # by number: name, and how many histories

    def add(self, group: str) -> int:
        """Begins a history and returns its index."""
        if not self._free:
            size = len(self.histories)
            self.histories = np.concatenate([self.histories, np.zeros(size, HISTORY)])
            self.arrays = self.arrays._replace(
                said_HN=np.concatenate([self.arrays.said_HN, np.zeros_like(self.arrays.said_HN)])
            )
            self._free = list(range(size, 2 * size))[::-1]
        index = self._free.pop()
        self.histories[index] = (self._next_id, self._join(group), NONE, NONE, 0)
        self.arrays.said_HN[index] = 0
        self._next_id += 1
        return index

    def append(self, indices: Int64, token_ids: Int32, offsets: Int64) -> None:
        """Adds token_ids[offsets[i] : offsets[i + 1]] to the history in indices[i]."""
        needed = len(token_ids) // SEGMENT_TOKENS + len(indices)
        while self.arrays.num_free[0] < needed:
            self.arrays = _doubled(self.arrays)
        append(self.arrays, self.histories, indices, token_ids, offsets, self._recent)

    def finish(self, index: int) -> None:
        """Ends a history, which stays as an example for others."""
        history = self.histories[index]
        self._finished.append((int(history["first_segment"]), int(history["length"]), int(history["group"])))
        self.num_finished_tokens += int(history["length"])
        self._free.append(index)
        self._forget(self.max_finished_tokens)

    def drop(self, index: int) -> None:
        """Ends a history and forgets it."""
        _release(self.arrays, int(self.histories[index]["first_segment"]))
        self._leave(int(self.histories[index]["group"]))
        self._free.append(index)

    def clear(self) -> None:
        """Forgets all finished histories."""
        self._forget(0)

    def _forget(self, max_tokens: int) -> None:
        while self.num_finished_tokens > max_tokens:
            first_segment, length, group = self._finished.popleft()
            _release(self.arrays, first_segment)
            self._leave(group)
            self.num_finished_tokens -= length

    def _join(self, name: str) -> int:
        """Adds a history to a group and returns the number of the group; 0 = none."""
        if not name:
            return 0
        if name not in self._groups:
            self._groups[name] = self._next_group
            self._next_group += 1
        number = self._groups[name]
        self._members[number] = (name, self._members.get(number, (name, 0))[1] + 1)
        return number

    def _leave(self, number: int) -> None:
        """Takes a history out of a group; a group without histories is forgotten."""
        if number:
            name, count = self._members.pop(number)
            if count > 1:
                self._members[number] = (name, count - 1)
            else:
                del self._groups[name]

    @property
    def num_groups(self) -> int:
        """How many groups have histories."""
        return len(self._members)

    @property
    def num_bytes(self) -> int:
        """Memory of tokens and chains, in bytes."""
        return sum(array.nbytes for array in self.arrays) + self.histories.nbytes


def _empty(num_segments: int) -> Arena:
    places = num_segments * SEGMENT_TOKENS
    return Arena(
        tokens=np.full(places, NONE, np.int32),
        segments=np.zeros(num_segments, SEGMENT),
        chains_CP=np.full((NUM_CHAINS, places), NONE, np.int32),
        heads_CH=np.full((NUM_CHAINS, places), NONE, np.int32),
        free=np.arange(num_segments, dtype=np.int32)[::-1].copy(),
        num_free=np.array([num_segments], np.int64),
        said_HN=np.zeros((FIRST_HISTORIES, NUM_SAID), np.uint8),
    )


def _doubled(old: Arena) -> Arena:
    """Doubles the segments and the heads.

    The index of a head is the low bits of a hash. Doubling adds a bit to the index, so a head belongs at one
    of two indices, and it is copied to both.
    """
    num_segments = len(old.segments)
    num_free = int(old.num_free[0])
    new = _empty(num_segments)
    unused = np.zeros(num_segments - num_free, np.int32)
    return old._replace(
        tokens=np.concatenate([old.tokens, new.tokens]),
        segments=np.concatenate([old.segments, new.segments]),
        chains_CP=np.concatenate([old.chains_CP, new.chains_CP], 1),
        heads_CH=np.concatenate([old.heads_CH, old.heads_CH], 1),
        free=np.concatenate([old.free[:num_free], new.free + np.int32(num_segments), unused]),
        num_free=np.array([num_free + num_segments], np.int64),
    )


def history_indices(states: Iterable[int]) -> Int64:
    """The indices of histories as an array."""
    return np.fromiter(states, np.int64)


@compiled
def _release(arena: Arena, segment: int) -> None:
    """Frees the segments of a history, from its first one on; their tokens are found no more."""
    while segment >= 0:
        arena.tokens[segment * SEGMENT_TOKENS : (segment + 1) * SEGMENT_TOKENS] = NONE
        arena.free[arena.num_free[0]] = segment
        arena.num_free[0] += 1
        segment = arena.segments[segment].next
