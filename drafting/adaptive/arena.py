"""The rows that drafts come from: those that run, and finished ones as far as there is room for them.

Owns which row has which slot and blocks, and which finished row goes first. What is in the blocks is
chains.py's.
"""

from collections import deque
from collections.abc import Iterable

import numpy as np

from drafting.adaptive.chains import append
from drafting.adaptive.layout import (
    BLOCK,
    BLOCK_TOKENS,
    MAX_ORDER,
    NONE,
    NUM_CHAINS,
    NUM_SAID,
    ROW,
    Arena,
    Int64,
    Records,
)
from drafting.compiled import compiled
from drafting.tree import Int32

FIRST_BLOCKS = 256
FIRST_SLOTS = 16


class TokenArena:
    """Rows of tokens, indexed; of finished rows the newest max_finished_tokens are kept."""

    def __init__(self, max_finished_tokens: int) -> None:
        self.max_finished_tokens = max_finished_tokens
        self.rows: Records = np.zeros(FIRST_SLOTS, ROW)
        self.arrays = _empty(FIRST_BLOCKS)
        self.num_finished_tokens = 0
        self._finished: deque[tuple[int, int, int]] = deque()  # first block, number of tokens, group
        self._free_slots = list(range(FIRST_SLOTS))[::-1]
        self._next_id = 1
        self._recent = np.zeros(MAX_ORDER, np.int32)
        self._next_group = 1
        self._groups: dict[
            str, int
        ] = {}  # those that have rows; a number is never used again, since old blocks bear it
        self._members: dict[int, tuple[str, int]] = {}  # by number: name, and how many rows

    def add(self, group: str) -> int:
        """The slot of a new row."""
        if not self._free_slots:
            size = len(self.rows)
            self.rows = np.concatenate([self.rows, np.zeros(size, ROW)])
            self.arrays = self.arrays._replace(
                said_SN=np.concatenate([self.arrays.said_SN, np.zeros_like(self.arrays.said_SN)])
            )
            self._free_slots = list(range(size, 2 * size))[::-1]
        slot = self._free_slots.pop()
        self.rows[slot] = (self._next_id, self._join(group), NONE, NONE, 0)
        self.arrays.said_SN[slot] = 0
        self._next_id += 1
        return slot

    def append(self, slots: Int64, token_ids: Int32, offsets: Int64) -> None:
        """Adds token_ids[offsets[i] : offsets[i + 1]] to the row in slots[i]."""
        needed = len(token_ids) // BLOCK_TOKENS + len(slots)
        while self.arrays.num_free[0] < needed:
            self.arrays = _doubled(self.arrays)
        append(self.arrays, self.rows, slots, token_ids, offsets, self._recent)

    def finish(self, slot: int) -> None:
        """The row ends and stays as an example for others."""
        row = self.rows[slot]
        self._finished.append((int(row["first_block"]), int(row["length"]), int(row["group"])))
        self.num_finished_tokens += int(row["length"])
        self._free_slots.append(slot)
        self._forget(self.max_finished_tokens)

    def drop(self, slot: int) -> None:
        """The row ends and is forgotten."""
        _release(self.arrays, int(self.rows[slot]["first_block"]))
        self._leave(int(self.rows[slot]["group"]))
        self._free_slots.append(slot)

    def clear(self) -> None:
        """Forgets all finished rows."""
        self._forget(0)

    def _forget(self, max_tokens: int) -> None:
        while self.num_finished_tokens > max_tokens:
            first_block, length, group = self._finished.popleft()
            _release(self.arrays, first_block)
            self._leave(group)
            self.num_finished_tokens -= length

    def _join(self, name: str) -> int:
        """The number of a group that gets one more row; 0 = none."""
        if not name:
            return 0
        if name not in self._groups:
            self._groups[name] = self._next_group
            self._next_group += 1
        number = self._groups[name]
        self._members[number] = (name, self._members.get(number, (name, 0))[1] + 1)
        return number

    def _leave(self, number: int) -> None:
        """One row of a group is gone; a group without rows is forgotten."""
        if number:
            name, count = self._members.pop(number)
            if count > 1:
                self._members[number] = (name, count - 1)
            else:
                del self._groups[name]

    @property
    def num_groups(self) -> int:
        """Groups that have rows."""
        return len(self._members)

    @property
    def num_bytes(self) -> int:
        """Memory of tokens and indexes."""
        return sum(array.nbytes for array in self.arrays) + self.rows.nbytes


def _empty(num_blocks: int) -> Arena:
    places = num_blocks * BLOCK_TOKENS
    return Arena(
        tokens=np.full(places, NONE, np.int32),
        blocks=np.zeros(num_blocks, BLOCK),
        chains_CP=np.full((NUM_CHAINS, places), NONE, np.int32),
        heads_CH=np.full((NUM_CHAINS, places), NONE, np.int32),
        free=np.arange(num_blocks, dtype=np.int32)[::-1].copy(),
        num_free=np.array([num_blocks], np.int64),
        said_SN=np.zeros((FIRST_SLOTS, NUM_SAID), np.uint8),
    )


def _doubled(old: Arena) -> Arena:
    """Twice the blocks and heads.

    A head lies at the low bits of a hash: with one bit more it is in one of two places, so both get it.
    """
    num_blocks = len(old.blocks)
    num_free = int(old.num_free[0])
    new = _empty(num_blocks)
    chains_CP = np.concatenate([old.chains_CP, new.chains_CP], 1)
    heads_CH = np.concatenate([old.heads_CH, old.heads_CH], 1)
    free = np.concatenate(
        [old.free[:num_free], new.free + num_blocks, np.zeros(num_blocks - num_free, np.int32)]
    ).astype(np.int32)
    blocks = np.concatenate([old.blocks, new.blocks])
    tokens = np.concatenate([old.tokens, new.tokens])
    num_free_now = np.array([num_free + num_blocks], np.int64)
    return Arena(tokens, blocks, chains_CP, heads_CH, free, num_free_now, old.said_SN)


def slots_of(states: Iterable[int]) -> Int64:
    """Slots as an array."""
    return np.fromiter(states, np.int64)


@compiled
def _release(arena: Arena, block: int) -> None:
    """Frees a row's blocks, the first given; their tokens are found no more."""
    while block >= 0:
        arena.tokens[block * BLOCK_TOKENS : (block + 1) * BLOCK_TOKENS] = NONE
        arena.free[arena.num_free[0]] = block
        arena.num_free[0] += 1
        block = arena.blocks[block].next
