"""Which places of the arena a history gets, which comes after which, and how they become free again.

Does not know chains, nor which history is forgotten. A segment is a block of SEGMENT_TOKENS places. A history
takes segment after segment while it runs. When it has ended, the next one to begin takes what is left of its
last segment: else a row of two tokens would hold a whole segment.

Worked example, with segments of 8 places and owners of 4: the history `1 2 3` ended, and then `4 5 6 7 8`
began and ended. The second segment is open from its place 4 on.

    1 2 3 .  4 5 6 7        8 . . .  . . . .

- At least one place without a token follows a history that ends inside of a segment. There every comparison
  of tokens stops, in both directions, so that no search runs from one history into another.
- A history begins at a multiple of OWNER_TOKENS, so the places of one OWNER never belong to two histories.
- Only the first history of a segment can come from another one, and only the last can go on in another one.
  So one link of each kind per segment is enough.
"""

from typing import Any

from drafting.adaptive.layout import NONE, OWNER_TOKENS, SEGMENT_TOKENS, Arena, Room
from drafting.compiled import compiled, compiled_lean


@compiled_lean
def place_after(arena: Arena, place: int) -> int:
    """The next place of a history; negative, or a place without a token, where there is none."""
    if (place + 1) & (SEGMENT_TOKENS - 1):
        return place + 1
    return int(arena.segments[place // SEGMENT_TOKENS].next * SEGMENT_TOKENS)


@compiled_lean
def place_before(arena: Arena, place: int) -> int:
    """The place before, in the history; negative, or a place without a token, where there is none."""
    if place & (SEGMENT_TOKENS - 1):
        return place - 1
    return int(arena.segments[place // SEGMENT_TOKENS].previous * SEGMENT_TOKENS + SEGMENT_TOKENS - 1)


@compiled_lean
def num_places(length: int) -> int:
    """How many places a history of this length takes: one without a token after it, and whole owners."""
    return (length + OWNER_TOKENS) // OWNER_TOKENS * OWNER_TOKENS


@compiled_lean
def new_place(arena: Arena, room: Room, history: Any) -> int:
    """The place of a history's next token."""
    place = history.last + 1
    if history.last < 0:
        place = _first_place(arena, room)
        history.first = place
    elif place % SEGMENT_TOKENS == 0:
        number = _take_free(arena, room)
        previous = history.last // SEGMENT_TOKENS
        arena.segments[number].previous = previous
        arena.segments[previous].next = number
        place = number * SEGMENT_TOKENS
    if place % OWNER_TOKENS == 0:
        owner = arena.owners[place // OWNER_TOKENS]
        owner.history = history.id
        owner.group = history.group
    history.last = place
    history.length += 1
    return int(place)


@compiled_lean
def _first_place(arena: Arena, room: Room) -> int:
    """Where a history begins: in the segment that was opened last, or in a free one."""
    if room.num_open[0] == 0:
        return _take_free(arena, room) * SEGMENT_TOKENS
    room.num_open[0] -= 1
    number = room.open[room.num_open[0]]
    segment = arena.segments[number]
    place = number * SEGMENT_TOKENS + segment.used
    segment.histories += 1
    segment.used = SEGMENT_TOKENS
    return int(place)


@compiled_lean
def _take_free(arena: Arena, room: Room) -> int:
    room.num_free[0] -= 1
    number = room.free[room.num_free[0]]
    segment = arena.segments[number]
    segment.next = NONE
    segment.previous = NONE
    segment.histories = 1
    segment.used = SEGMENT_TOKENS
    return int(number)


@compiled_lean
def _open(arena: Arena, room: Room, number: int, used: int) -> None:
    """Lets another history begin in a segment after the places that are used, if any are left."""
    segment = arena.segments[number]
    segment.next = NONE
    if used < SEGMENT_TOKENS:
        segment.used = used
        room.open[room.num_open[0]] = number
        room.num_open[0] += 1


@compiled_lean
def _leave(arena: Arena, room: Room, number: int) -> None:
    """Takes one history out of a segment, which becomes free with the last one."""
    segment = arena.segments[number]
    segment.histories -= 1
    if segment.histories > 0:
        return
    if segment.used < SEGMENT_TOKENS:  # It is open. There are never more of these than histories ran at once.
        i = 0
        while room.open[i] != number:
            i += 1
        room.num_open[0] -= 1
        room.open[i] = room.open[room.num_open[0]]
    room.free[room.num_free[0]] = number
    room.num_free[0] += 1


@compiled
def close(arena: Arena, room: Room, last: int) -> None:
    """Ends a history that stays, with its last token at `last`: another may begin after it."""
    _open(arena, room, last // SEGMENT_TOKENS, num_places(last % SEGMENT_TOKENS + 1))


@compiled
def release(arena: Arena, room: Room, place: int) -> int:
    """Forgets a history that has ended, from its first place on; returns how many tokens it had."""
    length = 0
    while place >= 0 and arena.tokens[place] >= 0:
        arena.tokens[place] = NONE
        length += 1
        number = place // SEGMENT_TOKENS
        place = place_after(arena, place)
        if place // SEGMENT_TOKENS != number or arena.tokens[place] < 0:
            _leave(arena, room, number)
    return length


@compiled
def withdraw(arena: Arena, room: Room, place: int) -> None:
    """Forgets a running history, from its first place on; others may begin where it did."""
    if place >= 0:
        release(arena, room, place)
        number = place // SEGMENT_TOKENS
        if arena.segments[number].histories > 0:
            _open(arena, room, number, place % SEGMENT_TOKENS)
