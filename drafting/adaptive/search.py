"""What may come next: the compiled half of the adaptive proposer.

Owns the search for earlier occurrences of the last tokens and the growth of trees. Does not know how histories
end, nor how weights are learned. A node's occurrences are places (chains.py).
"""

from typing import Any

import numpy as np

from drafting.adaptive.chains import head_of, mix, place_after, place_before, write_recent
from drafting.adaptive.features import set_biases, set_buckets
from drafting.adaptive.layout import (
    BIGRAM,
    GAP,
    GROUP,
    MAX_CANDIDATES,
    MAX_CHILDREN,
    MAX_MATCH,
    NONE,
    NUM_FEATURES,
    ORDERS,
    OWN,
    SCOPES,
    SEGMENT_TOKENS,
    SHORT_WALK,
    WALK,
    Arena,
    Int64,
    Model,
    Records,
    Scratch,
)
from drafting.compiled import compiled_lean
from drafting.tree import Int32, UInt8

# a node with fewer than these, none so long, looks for its own
FEW_POINTERS = 16
LONG_MATCH = 16
MAX_CERTAINTY = (
    0.7  # a node whose children would survive less often than asked for, were they this sure, gets none
)


@compiled_lean
def _gather(
    arena: Arena, history: Any, recent: Int32, size: int, walk: int, first: int, scratch: Scratch
) -> int:
    """Lists occurrences of the `size` recent tokens in pointers[first:], newest first in each chain; returns
    where the list ends.
    """
    for chain in range(scratch.num_chains[0]):
        known = size >= ORDERS[chain] and (SCOPES[chain] != GROUP or history.group > 0)
        scratch.places_WC[0, chain] = (
            arena.heads_CH[chain, head_of(arena.heads_CH, chain, history, recent)] if known else NONE
        )
    return _keep(arena, history, recent, 0, size, walk, first, scratch)


@compiled_lean
def _gather_gaps(arena: Arena, history: Any, size: int, first: int, scratch: Scratch) -> int:
    """The same for occurrences of what came before the last token, where another token than the last one
    followed.

    After 1 2 3 8 4 5 and 1 2 3 9 the 8 stands where 9 does, and 4 may come next.
    """
    for chain in range(scratch.num_chains[0]):
        known = size > ORDERS[chain] > 1 and (SCOPES[chain] != GROUP or history.group > 0)
        scratch.places_WC[0, chain] = arena.chains_CP[chain, history.last] if known else NONE
    return _keep(arena, history, scratch.context, 1, size, SHORT_WALK, first, scratch)


@compiled_lean
def _keep(
    arena: Arena, history: Any, recent: Int32, gap: int, size: int, walk: int, first: int, scratch: Scratch
) -> int:
    """Lists what follows the matches of recent[gap:size] down the chains that begin at places_WC[0]; where
    the list ends.

    Chains overlap; each occurrence is taken from the first that should have it.
    """
    last = first
    places_WC = scratch.places_WC
    pointers = scratch.pointers
    # All chains at once: each link is somewhere else in memory, and these are waited for together.
    for i in range(1, walk):
        for chain in range(scratch.num_chains[0]):
            place = places_WC[i - 1, chain]
            places_WC[i, chain] = arena.chains_CP[chain, place] if place >= 0 else NONE
    for chain in range(scratch.num_chains[0]):
        for i in range(walk):
            place = places_WC[i, chain]
            if place < 0:
                break
            match = _match(arena, history, place, SCOPES[chain], recent, gap, size)
            if match >= ORDERS[chain] and (chain != 1 or match < ORDERS[0]):
                if gap:
                    place = place_after(arena, place) if arena.tokens[place] != recent[0] else NONE
                if place >= 0 and arena.tokens[place] >= 0:
                    pointer = pointers[last]
                    last = last + 1
                    pointer.place = place
                    pointer.match = match
                    pointer.scope = SCOPES[chain]
                    pointer.gap = gap
    return last


@compiled_lean
def _match(arena: Arena, history: Any, place: int, scope: int, recent: Int32, gap: int, size: int) -> int:
    """How many tokens before a place are those of recent[gap:size]; none where it is not in the scope."""
    segment = arena.segments[place // SEGMENT_TOKENS]
    match = 0
    if scope == OWN or (
        segment.history != history.id
        and (scope == GROUP or history.group == 0 or segment.group != history.group)
    ):
        earlier = place_before(arena, place)
        while match < size - gap and earlier >= 0 and arena.tokens[earlier] == recent[gap + match]:
            match = match + 1
            earlier = place_before(arena, earlier)
    return match


@compiled_lean
def _open(arena: Arena, history: Any, number: int, size: int, scratch: Scratch) -> None:
    """Finds a node's occurrences: those of its parent that went on with its token or, where these are few,
    its own.
    """
    node = scratch.nodes[number]
    pointers = scratch.pointers
    recent = scratch.recent
    if number == 0:
        node.last = _gather_gaps(
            arena, history, size, _gather(arena, history, scratch.context, size, WALK, 0, scratch), scratch
        )
        return
    candidate = scratch.candidates[node.candidate]
    parent = scratch.nodes[candidate.parent]
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
    if last - node.first < FEW_POINTERS and node.longest < LONG_MATCH:
        path = 0
        ancestor = number
        while ancestor > 0 and path < MAX_MATCH:
            candidate = scratch.candidates[scratch.nodes[ancestor].candidate]
            recent[path] = candidate.token
            ancestor = candidate.parent
            path = path + 1
        size = min(size, MAX_MATCH - path)
        for i in range(size):
            recent[path + i] = scratch.context[i]
        last = _gather(arena, history, recent, path + size, SHORT_WALK, node.first, scratch)
    node.last = last


@compiled_lean
def _child(token: int, source: int, first: int, count: int, scratch: Scratch) -> int:
    """Which of a node's candidates, from `first` on, holds the token; a new one while there is room, else
    MAX_CHILDREN.
    """
    candidates = scratch.candidates
    for child in range(count):
        if candidates[first + child].token == token:
            return child
    if count < MAX_CHILDREN:
        candidate = candidates[first + count]
        candidate.token = token
        candidate.source = source
        candidate.match = 0
        candidate.rank = NONE
        scratch.votes_CV[count] = 0
        scratch.longest_CV[count] = 0
    return count


@compiled_lean
def _tally(
    arena: Arena, bigram_VR: Int32, node: Any, token: int, num_successors: int, first: int, scratch: Scratch
) -> int:
    """Lists a node's distinct continuations in candidates, with their votes by voter; returns how many."""
    count = 0
    votes_CV = scratch.votes_CV
    longest_CV = scratch.longest_CV
    totals = scratch.totals_V
    totals[:] = 0
    for i in range(node.first, node.last):
        pointer = scratch.pointers[i]
        child = _child(arena.tokens[pointer.place], pointer.scope, first, count, scratch)
        if child < MAX_CHILDREN:
            count = max(count, child + 1)
            voter = GAP if pointer.gap else pointer.scope
            match = pointer.match
            totals[voter] += match * match
            votes_CV[child, voter] += match * match
            longest_CV[child, voter] = max(longest_CV[child, voter], match)
    for rank in range(num_successors):
        successor = bigram_VR[token, rank]
        if successor < 0:
            break
        child = _child(successor, BIGRAM, first, count, scratch)
        if child < MAX_CHILDREN:
            count = max(count, child + 1)
            scratch.candidates[first + child].rank = rank
    return count


@compiled_lean
def _expand(
    arena: Arena,
    model: Model,
    said: UInt8,
    number: int,
    before: int,
    token: int,
    first: int,
    floor: float,
    scratch: Scratch,
) -> int:
    """Weighs what may follow a node: a softmax over its candidates, from `first` on, and "none of these";
    returns how many.
    """
    node = scratch.nodes[number]
    candidates = scratch.candidates
    scores = model.scores
    num_successors = (
        0 if token >= len(model.bigram_VR) else 2 if node.longest >= LONG_MATCH else model.bigram_VR.shape[1]
    )
    # The n-th likeliest of them comes at most once in n times.
    num_successors = min(num_successors, int(node.survival / floor))
    count = _tally(arena, model.bigram_VR, node, token, num_successors, first, scratch)
    last = mix(0, token)
    total = np.float32(1.0)
    pair = mix(last, before)
    for child in range(count):
        candidate = candidates[first + child]
        features = scratch.features_GF[first + child]
        candidate.parent = number
        candidate.node = NONE
        candidate.depth = node.depth + 1
        kind = set_buckets(candidate, features, child, said, scratch)
        set_biases(features, candidate.token, kind, last, pair)
    for child in range(first, first + count):
        score = np.float32(0.0)
        for i in range(NUM_FEATURES):
            score += scores[scratch.features_GF[child, i]]
        candidates[child].probability = np.exp(score)
        total += candidates[child].probability
    for child in range(first, first + count):
        candidates[child].probability /= total
        candidates[child].survival = node.survival * candidates[child].probability
    return count


@compiled_lean
def _set_best(node: Any, candidates: Records) -> None:
    """Of a node's candidates that are no nodes yet the likeliest."""
    node.best = NONE
    node.best_survival = 0.0
    for i in range(node.first_candidate, node.last_candidate):
        if candidates[i].node == NONE and candidates[i].survival > node.best_survival:
            node.best = i
            node.best_survival = candidates[i].survival


@compiled_lean
def _grow(
    arena: Arena,
    model: Model,
    history: Any,
    said: UInt8,
    max_depth: int,
    floor: float,
    first: int,
    scratch: Scratch,
) -> tuple[int, int]:
    """Grows a tree from its root, the likeliest candidate becoming a node next; its number of nodes, and where
    its candidates end.
    """
    size = write_recent(arena, history.last, scratch.context)
    nodes = scratch.nodes
    candidates = scratch.candidates
    context = scratch.context
    nodes[0].depth = 0
    nodes[0].survival = 1.0
    before = context[min(1, size - 1)]
    token = context[0]
    number = 0
    end = first
    while True:
        node = nodes[number]
        node.first = node.last = nodes[number - 1].last if number else 0
        node.first_candidate = end
        node.last_candidate = end
        node.longest = 0
        if (
            node.depth < max_depth
            and end + MAX_CHILDREN <= first + MAX_CANDIDATES
            and node.survival * MAX_CERTAINTY >= floor
        ):
            _open(arena, history, number, size, scratch)
            end += _expand(arena, model, said, number, before, token, end, floor, scratch)
            node.last_candidate = end
        _set_best(node, candidates)
        parent = 0
        for i in range(1, number + 1):
            if nodes[i].best_survival > nodes[parent].best_survival:
                parent = i
        if nodes[parent].best_survival <= floor or number == len(nodes) - 1:
            return number, end
        number += 1
        best = nodes[parent].best
        candidates[best].node = number
        token = candidates[best].token
        before = candidates[nodes[parent].candidate].token if parent else context[0]
        nodes[number].candidate = best
        nodes[number].depth = candidates[best].depth
        nodes[number].survival = candidates[best].survival
        _set_best(nodes[parent], candidates)


@compiled_lean
def propose(
    arena: Arena,
    model: Model,
    histories: Records,
    indices: Int64,
    max_depths: Int32,
    floor: float,
    scratch: Scratch,
    offsets_2B: Int64,
) -> None:
    """Lists the candidates of each history's tree in scratch, and by history where its candidates and its nodes begin in
    offsets_2B.
    """
    candidate_offsets = offsets_2B[0]
    node_offsets = offsets_2B[1]
    for b in range(len(indices)):
        num_nodes = 0
        end = candidate_offsets[b]
        if max_depths[b] > 0:
            said = arena.said_HN[indices[b]]
            num_nodes, end = _grow(
                arena, model, histories[indices[b]], said, max_depths[b], floor, end, scratch
            )
        node_offsets[b + 1] = node_offsets[b] + num_nodes
        candidate_offsets[b + 1] = end
