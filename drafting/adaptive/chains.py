"""The tokens of all histories in linked segments, and the chains to where the last tokens occurred before.

Owns how histories are written, followed and hashed. Does not know what is looked for, nor how histories end.
A place is a token's index in the arena. Chain c links each place to the earlier one that followed the same
ORDERS[c] tokens in the same scope. Links may be stale or collide, so every use compares tokens.
"""

from typing import Any

import numpy as np

from drafting.adaptive.layout import (
    GROUP,
    MAX_ORDER,
    NONE,
    NUM_CHAINS,
    NUM_SAID,
    ORDERS,
    OWN,
    SCOPES,
    SEGMENT_TOKENS,
    Arena,
    Int64,
    Records,
)
from drafting.compiled import compiled_lean
from drafting.tree import Int32

MULTIPLIER = np.int64(-7046029254386353131)  # 2^64 / golden ratio, odd


@compiled_lean
def mix(key: int, value: int) -> int:
    """A hash of a hash and one more value."""
    mixed = (key + value + 1) * MULTIPLIER
    return int(mixed ^ (mixed >> 29))


@compiled_lean
def head_of(heads_CH: Int32, chain: int, history: Any, recent: Int32) -> int:
    """Where in heads_CH[chain] the newest place after these recent tokens is kept."""
    scope = SCOPES[chain]
    key = (history.id if scope == OWN else -history.group if scope == GROUP else 0) * NUM_CHAINS + chain
    for i in range(ORDERS[chain]):
        key = mix(key, recent[i])
    return int((key * MULTIPLIER >> 32) & (heads_CH.shape[1] - 1))


@compiled_lean
def place_after(arena: Arena, place: int) -> int:
    """The next place of a history; negative where there is none."""
    if (place + 1) & (SEGMENT_TOKENS - 1):
        return place + 1
    return int(arena.segments[place // SEGMENT_TOKENS].next * SEGMENT_TOKENS)


@compiled_lean
def place_before(arena: Arena, place: int) -> int:
    """The place before, in the history; negative where there is none."""
    if place & (SEGMENT_TOKENS - 1):
        return place - 1
    return int(arena.segments[place // SEGMENT_TOKENS].previous * SEGMENT_TOKENS + SEGMENT_TOKENS - 1)


@compiled_lean
def write_recent(arena: Arena, place: int, out: Int32) -> int:
    """Writes the tokens that end at `place`, newest first; returns how many there are."""
    for i in range(len(out)):
        if place < 0:
            return i
        out[i] = arena.tokens[place]
        place = place_before(arena, place)
    return len(out)


@compiled_lean
def append(
    arena: Arena, histories: Records, indices: Int64, token_ids: Int32, offsets: Int64, recent: Int32
) -> None:
    """Adds token_ids[offsets[i] : offsets[i + 1]] to history indices[i]; segments must be free.

    recent int32 [MAX_ORDER] is scratch.
    """
    for i in range(len(indices)):
        history = histories[indices[i]]
        said = arena.said_HN[indices[i]]
        size = write_recent(arena, history.last, recent)
        for t in range(offsets[i], offsets[i + 1]):
            place = _new_place(arena, history)
            arena.tokens[place] = token_ids[t]
            counter = token_ids[t] & (NUM_SAID - 1)
            said[counter] = min(said[counter] + 1, 255)
            for chain in range(NUM_CHAINS):
                if size >= ORDERS[chain] and (SCOPES[chain] != GROUP or history.group > 0):
                    head = head_of(arena.heads_CH, chain, history, recent)
                    arena.chains_CP[chain, place] = arena.heads_CH[chain, head]
                    arena.heads_CH[chain, head] = place
            recent[2] = recent[1]
            recent[1] = recent[0]
            recent[0] = token_ids[t]
            size = min(size + 1, MAX_ORDER)


@compiled_lean
def _new_place(arena: Arena, history: Any) -> int:
    place = history.last + 1
    if place % SEGMENT_TOKENS == 0:
        arena.num_free[0] -= 1
        number = arena.free[arena.num_free[0]]
        previous = history.last // SEGMENT_TOKENS
        segment = arena.segments[number]
        segment.next = NONE
        segment.previous = previous
        segment.history = history.id
        segment.group = history.group
        if previous >= 0:
            arena.segments[previous].next = number
        else:
            history.first_segment = number
        place = number * SEGMENT_TOKENS
        arena.tokens[place : place + SEGMENT_TOKENS] = NONE
    history.last = place
    history.length += 1
    return int(place)
