"""Grows candidate trees: finds earlier occurrences of the last tokens, and lets what followed them vote.

The compiled half of the adaptive proposer. Does not know how histories end, nor how scores are learned. An
occurrence of some tokens is given as a place in the arena (chains.py): that of the token after them.

Worked example. A history says 1 2 3 4 1 2 3 5 1 2 3, and 9 9 1 2 3 5 6 is a finished history. The root is the
last 3.

- Occurrences of the root: the chain of the last three tokens leads to the places after the two earlier
  "1 2 3" of the history itself, which hold 4 and 5. The chain through all histories leads to the place after
  "1 2 3" in the finished one, which holds 5. Each match is compared backwards as far as it goes.
- Candidates of the root: 4, with one vote of the history itself; and 5, with one vote of it and one of the
  other history. A vote weighs the square of its match length. The model's bigram table may add successors of
  3. Scores, and a softmax over them, give each its probability, say 0.3 for 4 and 0.6 for 5; "none of these"
  has the rest.
- The likeliest candidate of all nodes becomes the next node: 5, with survival 0.6. Its occurrences are those
  of its parent whose token was 5, each moved on by one place: they hold 1 and 6. So 1 and 6 become
  candidates, and their survival is 0.6 times their own probability.
- This goes on, always with the likeliest candidate that is no node yet, until that one survives less often
  than `floor`, or the tree is full.
"""

from typing import Any, NamedTuple

import numpy as np

from drafting.adaptive.chains import head_of, mix, write_recent
from drafting.adaptive.features import NUM_FEATURES, set_biases, set_buckets
from drafting.adaptive.layout import (
    BIGRAM,
    GAP,
    GROUP,
    MAX_CANDIDATES,
    MAX_CHILDREN,
    MAX_MATCH,
    NONE,
    ORDERS,
    OWN,
    OWNER_TOKENS,
    SCOPES,
    SHORT_WALK,
    WALK,
    Arena,
    Int64,
    Model,
    Records,
    Scratch,
)
from drafting.adaptive.segments import place_after, place_before
from drafting.compiled import compiled_lean
from drafting.tree import Int32, UInt8

FEW_POINTERS = 16  # a node that gets fewer occurrences than this from its parent follows the chains itself
LONG_MATCH = 16  # but a node with a match of at least this length does not
# A node gets no candidates if even one this likely would survive less often than asked for.
MAX_CERTAINTY = 0.7


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
def _find(growth: Growth, recent: Int32, size: int, walk: int, first: int) -> int:
    """Lists occurrences of the last `size` tokens, recent[:size], in pointers[first:]; returns where the list
    ends.
    """
    arena = growth.arena
    scratch = growth.scratch
    for chain in range(scratch.num_chains[0]):
        place = NONE
        if size >= ORDERS[chain] and (SCOPES[chain] != GROUP or growth.history.group > 0):
            head = head_of(arena.heads_CH, chain, growth.history, recent)
            place = arena.heads_CH[chain, head]
        scratch.places_WC[0, chain] = place
    return _keep(growth, recent, 0, size, walk, first)


@compiled_lean
def _find_gaps(growth: Growth, first: int) -> int:
    """Lists occurrences of the tokens before the last one, where another token than the last one followed.

    After 1 2 3 8 4 5 and 1 2 3 9 the 8 stands where 9 does, and 4 may come next. Returns where the list ends.
    """
    scratch = growth.scratch
    history = growth.history
    for chain in range(scratch.num_chains[0]):
        known = growth.size > ORDERS[chain] > 1 and (SCOPES[chain] != GROUP or history.group > 0)
        scratch.places_WC[0, chain] = growth.arena.chains_CP[chain, history.last] if known else NONE
    return _keep(growth, scratch.context, 1, growth.size, SHORT_WALK, first)


@compiled_lean
def _keep(growth: Growth, recent: Int32, gap: int, size: int, walk: int, first: int) -> int:
    """Follows the chains from places_WC[0] and lists what follows matches of recent[gap:size] in
    pointers[first:].

    An occurrence may lie on several chains; it is listed for the first of them only. Returns where the list
    ends.
    """
    arena = growth.arena
    places_WC = growth.scratch.places_WC
    num_chains = growth.scratch.num_chains[0]
    last = first
    # All chains are followed at once: each link is somewhere else in memory, and these are waited for
    # together.
    for i in range(1, walk):
        for chain in range(num_chains):
            place = places_WC[i - 1, chain]
            places_WC[i, chain] = arena.chains_CP[chain, place] if place >= 0 else NONE
    for chain in range(num_chains):
        for i in range(walk):
            place = places_WC[i, chain]
            if place < 0:
                break
            match = _match(arena, growth.history, place, SCOPES[chain], recent, gap, size)
            if match >= ORDERS[chain] and (chain != 1 or match < ORDERS[0]):
                if gap:
                    place = place_after(arena, place) if arena.tokens[place] != recent[0] else NONE
                if place >= 0 and arena.tokens[place] >= 0:
                    pointer = growth.scratch.pointers[last]
                    pointer.place = place
                    pointer.match = match
                    pointer.scope = SCOPES[chain]
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
    in_scope = scope == OWN or (
        owner.history != history.id and (scope == GROUP or history.group == 0 or owner.group != history.group)
    )
    if in_scope:
        earlier = place_before(arena, place)
        while match < size - gap and earlier >= 0 and arena.tokens[earlier] == recent[gap + match]:
            match += 1
            earlier = place_before(arena, earlier)
    return match


@compiled_lean
def _set_pointers(growth: Growth, number: int) -> None:
    """Lists the occurrences of a node: those of its parent that went on with its token, or its own if few."""
    scratch = growth.scratch
    node = scratch.nodes[number]
    if number == 0:
        node.last = _find_gaps(growth, _find(growth, scratch.context, growth.size, WALK, 0))
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


@compiled_lean
def _child(token: int, source: int, first: int, count: int, scratch: Scratch) -> int:
    """The place of the candidate with this token among the `count` candidates from `first` on.

    Without one it is added at place `count`; without room the answer is MAX_CHILDREN.
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
def _tally(growth: Growth, node: Any, token: int, num_successors: int, first: int) -> int:
    """Lists the distinct candidates that follow a node, with the votes for them; returns their number."""
    scratch = growth.scratch
    bigram_VR = growth.model.bigram_VR
    count = 0
    scratch.totals_V[:] = 0
    for i in range(node.first, node.last):
        pointer = scratch.pointers[i]
        child = _child(growth.arena.tokens[pointer.place], pointer.scope, first, count, scratch)
        if child < MAX_CHILDREN:
            count = max(count, child + 1)
            voter = GAP if pointer.gap else pointer.scope
            match = pointer.match
            scratch.totals_V[voter] += match * match
            scratch.votes_CV[child, voter] += match * match
            scratch.longest_CV[child, voter] = max(scratch.longest_CV[child, voter], match)
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
def _num_successors(growth: Growth, node: Any, token: int) -> int:
    """How many successors of the bigram table are worth a look: the n-th likeliest has a probability of at
    most 1 / n.
    """
    if token >= len(growth.model.bigram_VR):
        return 0
    num_ranks = int(growth.model.bigram_VR.shape[1])
    most = min(2, num_ranks) if node.longest >= LONG_MATCH else num_ranks
    return min(most, int(node.survival / growth.floor))


@compiled_lean
def _weigh(growth: Growth, number: int, before: int, token: int, first: int) -> int:
    """Finds and weighs the candidates that follow a node, in candidates[first:]; returns how many there are.

    token: of the node; before: the token before it. Probabilities are a softmax over the candidates and "none
    of these".
    """
    scratch = growth.scratch
    candidates = scratch.candidates
    scores = growth.model.scores
    node = scratch.nodes[number]
    count = _tally(growth, node, token, _num_successors(growth, node, token), first)
    last = mix(0, token)
    pair = mix(last, before)
    total = np.float32(1.0)
    for child in range(count):
        candidate = candidates[first + child]
        features = scratch.features_GF[first + child]
        candidate.parent = number
        candidate.node = NONE
        candidate.depth = node.depth + 1
        kind = set_buckets(candidate, features, child, growth.said, scratch)
        set_biases(features, candidate.token, kind, last, pair)
        score = np.float32(0.0)
        for i in range(NUM_FEATURES):
            score += scores[features[i]]
        candidate.probability = np.exp(score)
        total += candidate.probability
    for child in range(first, first + count):
        candidates[child].probability /= total
        candidates[child].survival = node.survival * candidates[child].probability
    return count


@compiled_lean
def _set_best(node: Any, candidates: Records) -> None:
    """Finds the likeliest candidate of a node that is no node yet."""
    node.best = NONE
    node.best_survival = 0.0
    for i in range(node.first_candidate, node.last_candidate):
        if candidates[i].node == NONE and candidates[i].survival > node.best_survival:
            node.best = i
            node.best_survival = candidates[i].survival


@compiled_lean
def _likeliest(nodes: Records, number: int) -> int:
    """The node, up to `number`, that has the likeliest candidate which is no node yet."""
    parent = 0
    for i in range(1, number + 1):
        if nodes[i].best_survival > nodes[parent].best_survival:
            parent = i
    return parent


@compiled_lean
def _open(growth: Growth, number: int, max_depth: int, before: int, token: int, first: int, end: int) -> int:
    """Begins a node: finds its candidates, in candidates[end:], while there is room; returns where they end.

    first: where the candidates of the tree begin.
    """
    nodes = growth.scratch.nodes
    node = nodes[number]
    node.first = nodes[number - 1].last if number else 0
    node.last = node.first
    node.first_candidate = end
    node.longest = 0
    has_room = node.depth < max_depth and end + MAX_CHILDREN <= first + MAX_CANDIDATES
    if has_room and node.survival * MAX_CERTAINTY >= growth.floor:
        _set_pointers(growth, number)
        end += _weigh(growth, number, before, token, end)
    node.last_candidate = end
    _set_best(node, growth.scratch.candidates)
    return end


@compiled_lean
def _grow(growth: Growth, max_depth: int, first: int) -> tuple[int, int]:
    """Grows a tree from its root: the likeliest candidate becomes a node, again and again (example at the
    top).

    Its candidates are written from `first` on. Returns the number of nodes, and where the candidates end.
    """
    nodes = growth.scratch.nodes
    candidates = growth.scratch.candidates
    context = growth.scratch.context
    nodes[0].depth = 0
    nodes[0].survival = 1.0
    token = context[0]
    before = context[min(1, growth.size - 1)]
    number = 0
    end = first
    while True:
        end = _open(growth, number, max_depth, before, token, first, end)
        parent = _likeliest(nodes, number)
        if nodes[parent].best_survival <= growth.floor or number == len(nodes) - 1:
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
    """Grows one tree for each of these histories, none deeper than max_depths [B] (0 = no tree).

    The candidates of all trees are written to scratch. offsets_2B int64 [2, B + 1] gets where the candidates
    of each history begin, and then where its nodes begin.
    """
    candidate_offsets = offsets_2B[0]
    node_offsets = offsets_2B[1]
    for b in range(len(indices)):
        num_nodes = 0
        end = candidate_offsets[b]
        if max_depths[b] > 0:
            history = histories[indices[b]]
            size = write_recent(arena, history.last, scratch.context)
            growth = Growth(arena, model, history, arena.said_HN[indices[b]], floor, size, scratch)
            num_nodes, end = _grow(growth, max_depths[b], end)
        node_offsets[b + 1] = node_offsets[b] + num_nodes
        candidate_offsets[b + 1] = end
