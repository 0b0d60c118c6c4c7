"""The paper's context N-gram: what followed earlier occurrences of the sequence's last tokens.

Owns one sequence's tokens and the chains through their occurrences. Does not know other sequences, tables,
nor trees.

Each position knows the previous position where the same query_len tokens ended, so a token costs O(1) to take
in and a proposal walks only true occurrences: the newest MAX_OCCURRENCES, at most draft_len tokens each.
"""

import numpy as np
from numpy.typing import NDArray

from drafting.compiled import compiled
from drafting.tree import Int32

# The paper counts all occurrences. Beyond the newest 256 the ranking hardly moves, and a token that fills a
# long context must not stall a step.
MAX_OCCURRENCES = 256
MULTIPLIER = np.int64(-7046029254386353131)  # 2^64 / golden ratio, odd
NONE = -1


class ContextIndex:
    """One sequence's tokens, with a chain through the earlier ends of every query_len tokens."""

    __slots__ = ("heads", "length", "previous", "query_len", "tokens")

    def __init__(self, token_ids: Int32, query_len: int) -> None:
        self.query_len = query_len
        self.length = 0
        self.tokens = np.empty(0, np.int32)
        self.previous = np.empty(0, np.int32)
        self.heads = np.empty(0, np.int32)
        self.extend(token_ids)

    def extend(self, token_ids: Int32) -> None:
        """Takes in the tokens that follow."""
        length = self.length + len(token_ids)
        if length > len(self.tokens):
            self._grow(length)
        _append(self.tokens, self.previous, self.heads, self.length, self.query_len, token_ids)
        self.length = length

    def fill(self, depth: int, drafts_BKW: Int32, lengths_BK: Int32, index: int) -> None:
        """Writes the best drafts of at most `depth` tokens into drafts_BKW[index], best first."""
        _fill(self.tokens, self.previous, self.length, depth, drafts_BKW, lengths_BK, index)

    def _grow(self, length: int) -> None:
        capacity = max(64, 1 << (length - 1).bit_length())
        tokens = np.empty(capacity, np.int32)
        previous = np.empty(capacity, np.int32)
        tokens[: self.length] = self.tokens[: self.length]
        previous[: self.length] = self.previous[: self.length]
        self.tokens = tokens
        self.previous = previous
        self.heads = np.full(2 * capacity, NONE, np.int32)
        _rebuild_heads(self.tokens, self.heads, self.length, self.query_len)


@compiled
def _find_head(tokens: Int32, heads: Int32, end: int, query_len: int) -> int:
    """Where in `heads` the newest occurrence of the query_len tokens that end at `end` is kept.

    Probing is linear, and tokens are compared, so there are no collisions.
    """
    begin = end - query_len + 1
    key = np.int64(0)
    for i in range(query_len):
        key = (key + tokens[begin + i] + 1) * MULTIPLIER
    mask = len(heads) - 1
    slot = int((key >> 32) & mask)
    while heads[slot] >= 0:
        other = heads[slot] - query_len + 1
        same = True
        for i in range(query_len):
            same = same and tokens[other + i] == tokens[begin + i]
        if same:
            break
        slot = (slot + 1) & mask
    return slot


@compiled
def _append(
    tokens: Int32, previous: Int32, heads: Int32, length: int, query_len: int, token_ids: Int32
) -> None:
    for i in range(len(token_ids)):
        end = length + i
        tokens[end] = token_ids[i]
        previous[end] = NONE
        if end >= query_len - 1:
            slot = _find_head(tokens, heads, end, query_len)
            previous[end] = heads[slot]
            heads[slot] = end


@compiled
def _rebuild_heads(tokens: Int32, heads: Int32, length: int, query_len: int) -> None:
    for end in range(query_len - 1, length):
        heads[_find_head(tokens, heads, end, query_len)] = end


@compiled
def _fill(
    tokens: Int32, previous: Int32, length: int, depth: int, drafts_BKW: Int32, lengths_BK: Int32, index: int
) -> None:
    starts = np.empty(MAX_OCCURRENCES, np.int32)
    counts = np.empty(MAX_OCCURRENCES, np.int32)
    num_found = _count_continuations(tokens, previous, length, depth, starts, counts)
    best = np.empty(drafts_BKW.shape[1], np.int32)
    for rank in range(_most_frequent(counts[:num_found], best)):
        start = starts[best[rank]]
        size = min(depth, length - start)
        lengths_BK[index, rank] = size
        for i in range(size):
            drafts_BKW[index, rank, i] = tokens[start + i]


@compiled
def _count_continuations(
    tokens: Int32, previous: Int32, length: int, depth: int, starts: Int32, counts: Int32
) -> int:
    """Lists the distinct continuations, latest first: where each starts, and how often it occurred.

    A continuation that the end of the context cuts short counts too. Returns how many there are.
    """
    keys = np.empty(MAX_OCCURRENCES, np.int64)
    found_at = np.full(2 * MAX_OCCURRENCES, NONE, np.int32)
    num_found = 0
    end = previous[length - 1]
    for _ in range(MAX_OCCURRENCES):
        if end < 0:
            break
        size = min(depth, length - end - 1)
        key = np.int64(size)
        for i in range(end + 1, end + 1 + size):
            key = (key + tokens[i] + 1) * MULTIPLIER
        slot = (key >> 32) & (len(found_at) - 1)
        # 64 bits stand for the tokens: a collision would cost one draft, never a wrong token.
        while found_at[slot] >= 0 and keys[found_at[slot]] != key:
            slot = (slot + 1) & (len(found_at) - 1)
        if found_at[slot] < 0:
            found_at[slot] = num_found
            keys[num_found] = key
            starts[num_found] = end + 1
            counts[num_found] = 0
            num_found += 1
        counts[found_at[slot]] += 1
        end = previous[end]
    return num_found


@compiled
def _most_frequent(counts: NDArray[np.int32], best: Int32) -> int:
    """Fills `best` with the indices of the highest counts, highest first; returns how many.

    Equal counts stay in their order.
    """
    num_best = 0
    for candidate in range(len(counts)):
        if num_best < len(best):
            place = num_best
            num_best += 1
        elif counts[candidate] > counts[best[num_best - 1]]:
            place = num_best - 1
        else:
            continue
        while place > 0 and counts[best[place - 1]] < counts[candidate]:
            best[place] = best[place - 1]
            place -= 1
        best[place] = candidate
    return num_best
