"""Where the last tokens occurred before, and what may come next: the compiled half of the adaptive proposer.

Owns the chains through the arena's tokens and the growth of trees. Does not know how rows end, nor how weights are learned.
A place is a token's index in the arena. Chain c links each place to the earlier one that followed the same ORDERS[c] tokens in
the same scope. Links may be stale or collide, so every use compares tokens.
"""

from typing import Any

import numpy as np

from drafting.compiled import compiled_lean
from drafting.layout import NUM_BUCKETS, NUM_FEATURES, NUM_HASHES, NUM_TABLES, Arena, Int64, Model, Records, Scratch
from drafting.tree import Int32

BLOCK_TOKENS, NONE = 64, -1  # a row owns whole blocks
OWN, GROUP, ALL, BIGRAM, NUM_SCOPES = 0, 1, 2, 3, 3  # scopes: the row itself, its group, all rows
SIZES = np.searchsorted((1, 2, 3, 4, 6, 9, 15, 31), np.arange(33))  # of matches: 1 2 3 4 5-6 7-9 10-15 16-31 32 -> 0 .. 8
ORDERS, SCOPES = (3, 1, 2, 2), (OWN, OWN, GROUP, ALL)
NUM_CHAINS, MAX_ORDER = 4, 3
WALK, SHORT_WALK = 16, 8  # links of a chain followed at most: for the root, for a node
MAX_POINTERS = NUM_CHAINS * WALK  # occurrences that a node keeps
FEW_POINTERS, LONG_MATCH = 16, 16  # a node with fewer than these, none so long, looks for its own
MAX_CERTAINTY = 0.7  # a node whose children would survive less often than asked for, were they this sure, gets none
MAX_MATCH, MAX_CHILDREN, MAX_GUESSES = 32, 24, 512  # tokens compared backwards; continuations of a node; those weighed per tree
MULTIPLIER = np.int64(-7046029254386353131)  # 2^64 / golden ratio, odd


@compiled_lean
def _after(arena: Arena, place: int) -> int:
    if (place + 1) & (BLOCK_TOKENS - 1):
        return place + 1
    return int(arena.blocks[place // BLOCK_TOKENS].next * BLOCK_TOKENS)  # negative where there is none


@compiled_lean
def _before(arena: Arena, place: int) -> int:
    if place & (BLOCK_TOKENS - 1):
        return place - 1
    return int(arena.blocks[place // BLOCK_TOKENS].previous * BLOCK_TOKENS + BLOCK_TOKENS - 1)


@compiled_lean
def _head(heads_CH: Int32, chain: int, row: Any, recent: Int32) -> int:
    scope = SCOPES[chain]
    key = (row.id if scope == OWN else -row.group if scope == GROUP else 0) * NUM_CHAINS + chain
    for i in range(ORDERS[chain]):
        key = (key + recent[i] + 1) * MULTIPLIER
        key ^= key >> 29
    return int((key * MULTIPLIER >> 32) & (heads_CH.shape[1] - 1))


@compiled_lean
def _recent(arena: Arena, place: int, out: Int32) -> int:
    """Writes the tokens that end at `place`, newest first; returns how many there are."""
    for i in range(len(out)):
        if place < 0:
            return i
        out[i] = arena.tokens[place]
        place = _before(arena, place)
    return len(out)


@compiled_lean
def append(arena: Arena, rows: Records, slots: Int64, token_ids: Int32, offsets: Int64, recent: Int32) -> None:
    """Adds token_ids[offsets[i] : offsets[i + 1]] to the row in slots[i]; free blocks and scratch `recent` must be enough."""
    for i in range(len(slots)):
        row = rows[slots[i]]
        size = _recent(arena, row.last, recent)
        for t in range(offsets[i], offsets[i + 1]):
            place = _new_place(arena, row)
            arena.tokens[place] = token_ids[t]
            for chain in range(NUM_CHAINS):
                if size >= ORDERS[chain] and (SCOPES[chain] != GROUP or row.group > 0):
                    head = _head(arena.heads_CH, chain, row, recent)
                    arena.chains_CP[chain, place] = arena.heads_CH[chain, head]
                    arena.heads_CH[chain, head] = place
            recent[2], recent[1], recent[0] = recent[1], recent[0], token_ids[t]
            size = min(size + 1, MAX_ORDER)


@compiled_lean
def _new_place(arena: Arena, row: Any) -> int:
    place = row.last + 1
    if place % BLOCK_TOKENS == 0:
        arena.num_free[0] -= 1
        number, previous = arena.free[arena.num_free[0]], row.last // BLOCK_TOKENS
        block = arena.blocks[number]
        block.next, block.previous, block.row, block.group = NONE, previous, row.id, row.group
        if previous >= 0:
            arena.blocks[previous].next = number
        else:
            row.first_block = number
        place = number * BLOCK_TOKENS
        arena.tokens[place : place + BLOCK_TOKENS] = NONE
    row.last, row.length = place, row.length + 1
    return int(place)


@compiled_lean
def _gather(arena: Arena, row: Any, recent: Int32, size: int, walk: int, first: int, scratch: Scratch) -> int:
    """Lists occurrences of the `size` recent tokens in pointers[first:], newest first in each chain; returns where the list ends.

    Chains overlap; each occurrence is taken from the first that should have it.
    """
    last, places_WC, pointers = first, scratch.places_WC, scratch.pointers
    for chain in range(NUM_CHAINS):
        known = size >= ORDERS[chain] and (SCOPES[chain] != GROUP or row.group > 0)
        places_WC[0, chain] = arena.heads_CH[chain, _head(arena.heads_CH, chain, row, recent)] if known else NONE
    # All chains at once: each link is somewhere else in memory, and these are waited for together.
    for i in range(1, walk):
        for chain in range(NUM_CHAINS):
            place = places_WC[i - 1, chain]
            places_WC[i, chain] = arena.chains_CP[chain, place] if place >= 0 else NONE
    for chain in range(NUM_CHAINS):
        order, scope = ORDERS[chain], SCOPES[chain]
        for i in range(walk):
            place = places_WC[i, chain]
            if place < 0:
                break
            block = arena.blocks[place // BLOCK_TOKENS]
            wanted = scope == OWN or (block.row != row.id and (scope == GROUP or row.group == 0 or block.group != row.group))
            if wanted and arena.tokens[place] >= 0:
                match, earlier = 0, _before(arena, place)
                while match < size and earlier >= 0 and arena.tokens[earlier] == recent[match]:
                    match, earlier = match + 1, _before(arena, earlier)
                if match >= order and (chain != 1 or match < ORDERS[0]):
                    pointers[last].place, pointers[last].match, pointers[last].scope = place, match, scope
                    last += 1
    return last


@compiled_lean
def _open(arena: Arena, row: Any, number: int, size: int, scratch: Scratch) -> None:
    """Finds a node's occurrences: those of its parent that went on with its token or, where these are few, its own."""
    node, pointers, recent = scratch.nodes[number], scratch.pointers, scratch.recent
    if number == 0:
        node.last = _gather(arena, row, scratch.context, size, WALK, 0, scratch)
        return
    guess = scratch.guesses[node.guess]
    parent, last = scratch.nodes[guess.parent], node.last
    for i in range(parent.first, parent.last):
        if arena.tokens[pointers[i].place] == guess.token:
            place = _after(arena, pointers[i].place)
            if place >= 0 and arena.tokens[place] >= 0:
                match = min(pointers[i].match + 1, MAX_MATCH)
                pointers[last].place, pointers[last].scope, pointers[last].match = place, pointers[i].scope, match
                node.longest = max(node.longest, match)
                last += 1
    if last - node.first < FEW_POINTERS and node.longest < LONG_MATCH:
        path, ancestor = 0, number
        while ancestor > 0 and path < MAX_MATCH:
            guess = scratch.guesses[scratch.nodes[ancestor].guess]
            recent[path], ancestor, path = guess.token, guess.parent, path + 1
        size = min(size, MAX_MATCH - path)
        for i in range(size):
            recent[path + i] = scratch.context[i]
        last = _gather(arena, row, recent, path + size, SHORT_WALK, node.first, scratch)
    node.last = last


@compiled_lean
def _child(token: int, first: int, count: int, scratch: Scratch) -> int:
    """Which of a node's guesses, from `first` on, holds the token; a new one while there is room, else MAX_CHILDREN."""
    guesses = scratch.guesses
    for child in range(count):
        if guesses[first + child].token == token:
            return child
    if count < MAX_CHILDREN:
        guesses[first + count].token, guesses[first + count].rank = token, NONE
        scratch.votes_CS[count], scratch.longest_CS[count], scratch.counts_CS[count] = 0, 0, 0
    return count


@compiled_lean
def _tally(arena: Arena, bigram_VR: Int32, node: Any, token: int, num_successors: int, first: int, scratch: Scratch) -> int:
    """Lists a node's distinct continuations in guesses, with their votes by scope; returns how many."""
    count, votes_CS, longest_CS, counts_CS, totals = 0, scratch.votes_CS, scratch.longest_CS, scratch.counts_CS, scratch.totals_S
    totals[:] = 0
    for i in range(node.first, node.last):
        pointer = scratch.pointers[i]
        child = _child(arena.tokens[pointer.place], first, count, scratch)
        if child < MAX_CHILDREN:
            count = max(count, child + 1)
            scope, match = pointer.scope, pointer.match
            totals[scope] += match * match
            votes_CS[child, scope] += match * match
            longest_CS[child, scope] = max(longest_CS[child, scope], match)
            counts_CS[child, scope] += 1
    for rank in range(num_successors):
        successor = bigram_VR[token, rank]
        if successor < 0:
            break
        child = _child(successor, first, count, scratch)
        if child < MAX_CHILDREN:
            count = max(count, child + 1)
            scratch.guesses[first + child].rank = rank
    return count


@compiled_lean
def _set_buckets(guess: Any, features: Int32, child: int, scratch: Scratch) -> None:
    """What is known of a guess: by scope its longest match, its share and number of votes; its rank in the bigram; its depth."""
    num_scopes = 0
    guess.source, guess.match = BIGRAM, 0
    for scope in range(NUM_SCOPES):
        longest, count, total = scratch.longest_CS[child, scope], scratch.counts_CS[child, scope], scratch.totals_S[scope]
        by_share = by_count = 1 if total > 0 else 0
        if count:
            share = scratch.votes_CS[child, scope] / total
            part = 0 if share < 0.1 else 1 if share < 0.25 else 2 if share < 0.5 else 3 if share < 0.8 else 4 if share < 0.99 else 5
            by_share, by_count = 2 + SIZES[longest] * 6 + part, 2 + SIZES[longest] * 4 + min(count, 4) - 1
            num_scopes += 1
            if longest > guess.match:
                guess.match, guess.source = longest, scope
        features[2 * scope], features[2 * scope + 1] = 2 * scope * NUM_BUCKETS + by_share, (2 * scope + 1) * NUM_BUCKETS + by_count
    features[6] = 6 * NUM_BUCKETS + (min(guess.rank, 7) + 1) * 2 + (num_scopes > 0)
    features[7] = 7 * NUM_BUCKETS + min(guess.depth - 1, 7) * 4 + num_scopes


@compiled_lean
def _expand(arena: Arena, model: Model, number: int, before: int, token: int, first: int, floor: float, scratch: Scratch) -> int:
    """Weighs what may follow a node: a softmax over its guesses, from `first` on, and "none of these"; returns how many."""
    node, guesses, scores = scratch.nodes[number], scratch.guesses, model.scores
    num_successors = 0 if token >= len(model.bigram_VR) else 2 if node.longest >= LONG_MATCH else model.bigram_VR.shape[1]
    # The n-th likeliest of them comes at most once in n times.
    num_successors = min(num_successors, int(node.survival / floor))
    count = _tally(arena, model.bigram_VR, node, token, num_successors, first, scratch)
    # Biases: what may follow anything, the last token, the two last; and how sure anything is after the last one.
    last, total = (token + 1) * MULTIPLIER, np.float32(1.0)
    pair = (last ^ (last >> 29)) + (before + 1) * MULTIPLIER
    for child in range(count):
        guess, features = guesses[first + child], scratch.features_GF[first + child]
        guess.parent, guess.node, guess.depth = number, NONE, node.depth + 1
        _set_buckets(guess, features, child, scratch)
        own = (guess.token + 1) * MULTIPLIER
        for bias, key in enumerate((own, own + (last ^ (last >> 31)) * 3, (own ^ (own >> 29)) * MULTIPLIER + pair * MULTIPLIER, last)):
            features[NUM_TABLES + bias] = NUM_TABLES * NUM_BUCKETS + bias * NUM_HASHES + ((key >> 32) & (NUM_HASHES - 1))
    for child in range(first, first + count):
        score = np.float32(0.0)
        for i in range(NUM_FEATURES):
            score += scores[scratch.features_GF[child, i]]
        guesses[child].probability = np.exp(score)
        total += guesses[child].probability
    for child in range(first, first + count):
        guesses[child].probability /= total
        guesses[child].survival = node.survival * guesses[child].probability
    return count


@compiled_lean
def _set_best(node: Any, guesses: Records) -> None:
    """Of a node's guesses that are no nodes yet the likeliest."""
    node.best, node.best_survival = NONE, 0.0
    for i in range(node.first_guess, node.last_guess):
        if guesses[i].node == NONE and guesses[i].survival > node.best_survival:
            node.best, node.best_survival = i, guesses[i].survival


@compiled_lean
def _grow(arena: Arena, model: Model, row: Any, max_depth: int, floor: float, first: int, scratch: Scratch) -> tuple[int, int]:
    """Grows a tree from its root, the likeliest guess becoming a node next; its number of nodes, and where its guesses end."""
    size = _recent(arena, row.last, scratch.context)
    nodes, guesses, context = scratch.nodes, scratch.guesses, scratch.context
    nodes[0].depth, nodes[0].survival = 0, 1.0
    before, token, number, end = context[min(1, size - 1)], context[0], 0, first
    while True:
        node = nodes[number]
        node.first = node.last = nodes[number - 1].last if number else 0
        node.first_guess, node.last_guess, node.longest = end, end, 0
        if node.depth < max_depth and end + MAX_CHILDREN <= first + MAX_GUESSES and node.survival * MAX_CERTAINTY >= floor:
            _open(arena, row, number, size, scratch)
            end += _expand(arena, model, number, before, token, end, floor, scratch)
            node.last_guess = end
        _set_best(node, guesses)
        parent = 0
        for i in range(1, number + 1):
            if nodes[i].best_survival > nodes[parent].best_survival:
                parent = i
        if nodes[parent].best_survival <= floor or number == len(nodes) - 1:
            return number, end
        number += 1
        best = nodes[parent].best
        guesses[best].node, token = number, guesses[best].token
        before = guesses[nodes[parent].guess].token if parent else context[0]
        nodes[number].guess, nodes[number].depth, nodes[number].survival = best, guesses[best].depth, guesses[best].survival
        _set_best(nodes[parent], guesses)


@compiled_lean
def propose(
    arena: Arena, model: Model, rows: Records, slots: Int64, max_depths: Int32, floor: float, scratch: Scratch, offsets_2B: Int64
) -> None:
    """Lists the guesses of each row's tree in scratch, and by row where its guesses and its nodes begin in offsets_2B."""
    guess_offsets, node_offsets = offsets_2B[0], offsets_2B[1]
    for b in range(len(slots)):
        num_nodes, end = 0, guess_offsets[b]
        if max_depths[b] > 0:
            num_nodes, end = _grow(arena, model, rows[slots[b]], max_depths[b], floor, end, scratch)
        node_offsets[b + 1], guess_offsets[b + 1] = node_offsets[b] + num_nodes, end
