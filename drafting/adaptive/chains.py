"""How histories are written, and the chains to where the last tokens occurred before.

Owns what is written at a place, and hashes. Does not know which places there are (segments.py), nor what is
looked for. A place is a token's index in the arena. Chain c links each place to the earlier one that followed
the same ORDERS[c] tokens in the same scope. Links may be stale or collide, so every use compares tokens.
"""

import numpy as np

from drafting.adaptive.layout import (
    GROUP,
    MAX_ORDER,
    NUM_CHAINS,
    NUM_SAID,
    ORDERS,
    OWN,
    REFERENCE,
    REFERENCES,
    SCOPES,
    Arena,
    Int64,
    Records,
    Room,
)
from drafting.adaptive.segments import new_place, place_before
from drafting.compiled import compiled_lean
from drafting.likely import UNKNOWN, UInt32
from drafting.tree import Int32

MULTIPLIER = np.int64(-7046029254386353131)  # 2^64 / golden ratio, odd


@compiled_lean
def mix(key: int, value: int) -> int:
    """A hash of a hash and one more value."""
    mixed = (key + value + 1) * MULTIPLIER
    return int(mixed ^ (mixed >> 29))


@compiled_lean
def head_of(heads_CH: Int32, chain: int, own: int, group: int, recent: Int32) -> int:
    """Where in heads_CH[chain] the newest place after these recent tokens is kept; own: the id of a
    history.
    """
    scope = SCOPES[chain]
    key = (own if scope == OWN else -group if scope == GROUP else 0) * NUM_CHAINS + chain
    for i in range(ORDERS[chain]):
        key = mix(key, recent[i])
    return int((key * MULTIPLIER >> 32) & (heads_CH.shape[1] - 1))


@compiled_lean
def is_on(chain: int, group: int) -> bool:
    """Whether the histories of a group are on a chain."""
    scope = SCOPES[chain]
    if scope == GROUP:
        return group > 0
    if scope == REFERENCE:
        return group == REFERENCES
    return scope == OWN or group >= 0


@compiled_lean
def write_recent(arena: Arena, place: int, out: Int32) -> int:
    """Writes the tokens that end at `place`, newest first; returns how many there are."""
    for i in range(len(out)):
        if place < 0 or arena.tokens[place] < 0:
            return i
        out[i] = arena.tokens[place]
        place = place_before(arena, place)
    return len(out)


@compiled_lean
def append(
    arena: Arena,
    room: Room,
    histories: Records,
    indices: Int64,
    token_ids: Int32,
    offsets: Int64,
    likely_NM: UInt32,
    recent: Int32,
) -> None:
    """Adds token_ids[offsets[i] : offsets[i + 1]] to history indices[i]; there must be free segments for it.

    likely_NM: what the model said where it gave each token, or no rows where that is not known. recent int32
    [MAX_ORDER] is scratch.
    """
    num_likely = arena.likely_PM.shape[1]
    num_known = min(num_likely, likely_NM.shape[1]) if len(likely_NM) > 0 else 0
    for i in range(len(indices)):
        history = histories[indices[i]]
        said = arena.said_HN[indices[i]]
        size = write_recent(arena, history.last, recent)
        for t in range(offsets[i], offsets[i + 1]):
            place = new_place(arena, room, history)
            arena.tokens[place] = token_ids[t]
            for rank in range(num_known):
                arena.likely_PM[place, rank] = likely_NM[t, rank]
            if num_known < num_likely:
                arena.likely_PM[place, num_known] = UNKNOWN
            counter = token_ids[t] & (NUM_SAID - 1)
            said[counter] = min(said[counter] + 1, 255)
            for chain in range(NUM_CHAINS):
                if size >= ORDERS[chain] and is_on(chain, history.group):
                    head = head_of(arena.heads_CH, chain, history.id, history.group, recent)
                    # A row that was forgotten may have said the same at this place: its link stays, as one to
                    # the place itself would list it again and again, and hide what came before.
                    if arena.heads_CH[chain, head] != place:
                        arena.chains_CP[chain, place] = arena.heads_CH[chain, head]
                        arena.heads_CH[chain, head] = place
            recent[2] = recent[1]
            recent[1] = recent[0]
            recent[0] = token_ids[t]
            size = min(size + 1, MAX_ORDER)
