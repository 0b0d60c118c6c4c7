"""Finds where the last tokens of a history, or of a path in its tree, occurred before.

An occurrence of some tokens is given as a place in the arena (chains.py): that of the token after them. Does
not know what is made of them.
"""

from typing import Any, NamedTuple

from drafting.adaptive.chains import head_of
from drafting.adaptive.layout import (
    ALL,
    GROUP,
    MAX_MATCH,
    NONE,
    NUM_WALKS,
    ORDERS,
    OWN,
    OWNER_TOKENS,
    PREDICTION,
    PREDICTION_WALKS,
    SCOPES,
    SHORT_WALK,
    WALK,
    WALKS,
    Arena,
    Model,
    Scratch,
)
from drafting.adaptive.segments import place_after, place_before
from drafting.compiled import compiled_lean
from drafting.tree import Int32, UInt8

FEW_POINTERS = 16  # a node that gets fewer occurrences than this from its parent follows the chains itself
LONG_MATCH = 16  # but a node with a match of at least this length does not


class Growth(NamedTuple):
    """What the growth of one tree works with. said uint8 [NUM_SAID]: the token counters of the history.

    floor: the least survival of a node. size: how many tokens scratch.context holds.
    """

    arena: Arena
    model: Model
    history: Any
    said: UInt8
    floor: float
    size: int
    scratch: Scratch


@compiled_lean
def set_pointers(growth: Growth, number: int) -> None:
    """Lists the occurrences of a node: those of its parent that went on with its token, or its own if few."""
    scratch = growth.scratch
    node = scratch.nodes[number]
    if number == 0:
        last = _find(growth, scratch.context, growth.size, WALK, 0)
        node.last = _begin_prediction(growth, _find_gaps(growth, last))
        return
    node.last = _move_on(growth, node)
    if node.last - node.first < FEW_POINTERS and node.longest < LONG_MATCH:
        path = 0
        ancestor = number
        while ancestor > 0 and path < MAX_MATCH:
            candidate = scratch.candidates[scratch.nodes[ancestor].candidate]
            scratch.recent[path] = candidate.token
            ancestor = candidate.parent
            path += 1
        size = min(growth.size, MAX_MATCH - path)
        for i in range(size):
            scratch.recent[path + i] = scratch.context[i]
        node.last = _find(growth, scratch.recent, path + size, SHORT_WALK, node.first)


@compiled_lean
def _num_walks(history: Any) -> int:
    return NUM_WALKS if history.prediction > 0 else PREDICTION_WALKS


@compiled_lean
def _is_walked(growth: Growth, walk: int) -> bool:
    """Whether a walk can lead anywhere."""
    if walk >= PREDICTION_WALKS:
        return True
    scope = SCOPES[WALKS[walk]]
    if scope == OWN:
        return True
    if scope == GROUP:
        return bool(growth.history.group > 0)
    return bool(growth.scratch.follows[0 if scope == ALL else 1])


@compiled_lean
def _find(growth: Growth, recent: Int32, size: int, walk: int, first: int) -> int:
    """Lists occurrences of the last `size` tokens, recent[:size], in pointers[first:]; returns where the list
    ends.
    """
    arena = growth.arena
    history = growth.history
    for w in range(_num_walks(history)):
        chain = WALKS[w]
        place = NONE
        if size >= ORDERS[chain] and _is_walked(growth, w):
            own = history.prediction if w >= PREDICTION_WALKS else history.id
            head = head_of(arena.heads_CH, chain, own, history.group, recent)
            place = arena.heads_CH[chain, head]
        growth.scratch.places_WC[0, w] = place
    return _keep(growth, recent, 0, size, walk, first)


@compiled_lean
def _find_gaps(growth: Growth, first: int) -> int:
    """Lists occurrences of the tokens before the last one, where another token than the last one followed.

    After 1 2 3 8 4 5 and 1 2 3 9 the 8 stands where 9 does, and 4 may come next. Returns where the list ends.
    """
    scratch = growth.scratch
    history = growth.history
    for w in range(_num_walks(history)):
        chain = WALKS[w]
        place = NONE
        if growth.size > ORDERS[chain] > 1 and _is_walked(growth, w):
            if w < PREDICTION_WALKS:
                place = growth.arena.chains_CP[chain, history.last]
            else:
                before = scratch.context[1:]
                head = head_of(growth.arena.heads_CH, chain, history.prediction, 0, before)
                place = growth.arena.heads_CH[chain, head]
        scratch.places_WC[0, w] = place
    return _keep(growth, scratch.context, 1, growth.size, SHORT_WALK, first)


@compiled_lean
def _begin_prediction(growth: Growth, first: int) -> int:
    """Lists the first token of the prediction where no token of the output has come yet; returns where the
    list ends.
    """
    history = growth.history
    if history.prediction <= 0 or history.length > history.num_prompt:
        return first
    pointer = growth.scratch.pointers[first]
    pointer.place = history.prediction_first
    pointer.match = 1
    pointer.scope = PREDICTION
    pointer.gap = 0
    return first + 1


@compiled_lean
def _keep(growth: Growth, recent: Int32, gap: int, size: int, walk: int, first: int) -> int:
    """Follows the chains from places_WC[0] and lists what follows matches of recent[gap:size] in
    pointers[first:].

    An occurrence may lie on several chains; it is listed for the first of them only. Returns where the list
    ends.
    """
    arena = growth.arena
    places_WC = growth.scratch.places_WC
    last = first
    num_walks = _num_walks(growth.history)
    # All chains are followed at once: each link is somewhere else in memory, and these are waited for
    # together.
    for i in range(1, walk):
        for w in range(num_walks):
            place = places_WC[i - 1, w]
            places_WC[i, w] = arena.chains_CP[WALKS[w], place] if place >= 0 else NONE
    for w in range(num_walks):
        chain = WALKS[w]
        for i in range(walk):
            place = places_WC[i, w]
            if place < 0:
                break
            scope = PREDICTION if w >= PREDICTION_WALKS else SCOPES[chain]
            match = _match(arena, growth.history, place, scope, recent, gap, size)
            if match >= ORDERS[chain] and (chain != 1 or match < ORDERS[0]):
                if gap:
                    place = place_after(arena, place) if arena.tokens[place] != recent[0] else NONE
                if place >= 0 and arena.tokens[place] >= 0:
                    pointer = growth.scratch.pointers[last]
                    pointer.place = place
                    pointer.match = match
                    pointer.scope = scope
                    pointer.gap = gap
                    last += 1
    return last


@compiled_lean
def _match(
    arena: Arena, history: Any, place: int, scope: int, recent: Int32, gap: int, size: int
) -> int:  # called most often, and every array of a Growth that is handed on costs time
    """How many tokens before a place are those of recent[gap:size]; 0 where the place is not in the scope."""
    owner = arena.owners[place // OWNER_TOKENS]
    match = 0
    # The scope of all histories leaves out the history itself and its group, which have chains of their own.
    in_scope = scope in (OWN, PREDICTION) or (
        owner.history != history.id and (scope == GROUP or history.group == 0 or owner.group != history.group)
    )
    if in_scope:
        earlier = place_before(arena, place)
        while match < size - gap and earlier >= 0 and arena.tokens[earlier] == recent[gap + match]:
            match += 1
            earlier = place_before(arena, earlier)
    return match


@compiled_lean
def _move_on(growth: Growth, node: Any) -> int:
    """Lists the occurrences of the node's parent that went on with the node's token, each one place further.

    Sets the node's longest match; returns where the list ends.
    """
    arena = growth.arena
    pointers = growth.scratch.pointers
    candidate = growth.scratch.candidates[node.candidate]
    parent = growth.scratch.nodes[candidate.parent]
    last = node.last
    for i in range(parent.first, parent.last):
        if arena.tokens[pointers[i].place] == candidate.token:
            place = place_after(arena, pointers[i].place)
            if place >= 0 and arena.tokens[place] >= 0:
                match = min(pointers[i].match + 1, MAX_MATCH)
                pointers[last].place = place
                pointers[last].match = match
                pointers[last].scope = pointers[i].scope
                pointers[last].gap = pointers[i].gap
                node.longest = max(node.longest, 0 if pointers[i].gap else match)
                last += 1
    return int(last)
