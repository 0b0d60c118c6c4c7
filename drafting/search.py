"""Where the last tokens occurred before, and what may come next: the compiled half of the adaptive proposer.

Owns the chains through the arena's tokens and the growth of trees. Does not know how rows end, nor how weights are learned.
A place is a token's index in the arena. Chain c links each place to the earlier one that followed the same ORDERS[c] tokens in
the same scope. Links may be stale or collide, so every use compares tokens.
"""

from typing import Any

import numpy as np

from drafting.compiled import compiled
from drafting.layout import GUESS, NUM_TABLES, Arena, Int64, Model, Records, Scratch
from drafting.tree import Int32

BLOCK_TOKENS, NONE = 64, -1  # a row owns whole blocks
OWN, GROUP, ALL, BIGRAM, NUM_SCOPES = 0, 1, 2, 3, 3  # scopes: the row itself, its group, all rows
SIZES = np.searchsorted((1, 2, 3, 4, 6, 9, 15, 31), np.arange(33))  # of matches: 1 2 3 4 5-6 7-9 10-15 16-31 32 -> 0 .. 8
ORDERS, SCOPES = (3, 1, 2, 2), (OWN, OWN, GROUP, ALL)
NUM_CHAINS, MAX_ORDER = 4, 3
WALK, SHORT_WALK = 32, 8  # links of a chain followed at most: for the root, for a node
MAX_POINTERS = NUM_CHAINS * WALK  # occurrences that a node keeps
MAX_MATCH = 32  # tokens compared backwards at most
FEW_POINTERS, LONG_MATCH = 16, 16  # a node with fewer than these, none so long, looks for its own
MAX_CERTAINTY = 0.7  # a node whose children would survive less often than asked for, were they this sure, gets none
MAX_CHILDREN = 24  # distinct continuations of a node
MAX_GUESSES = 512  # continuations weighed per tree
MULTIPLIER = np.int64(-7046029254386353131)  # 2^64 / golden ratio, odd


@compiled
def _after(arena: Arena, place: int) -> int:
    if (place + 1) & (BLOCK_TOKENS - 1):
        return place + 1
    return int(arena.blocks[place // BLOCK_TOKENS].next * BLOCK_TOKENS)  # negative where there is none


@compiled
def _before(arena: Arena, place: int) -> int:
    if place & (BLOCK_TOKENS - 1):
        return place - 1
    return int(arena.blocks[place // BLOCK_TOKENS].previous * BLOCK_TOKENS + BLOCK_TOKENS - 1)


@compiled
def _head(heads_CH: Int32, chain: int, row: Any, recent: Int32) -> int:
    scope = SCOPES[chain]
    key = (row.id if scope == OWN else -row.group if scope == GROUP else 0) * NUM_CHAINS + chain
    for i in range(ORDERS[chain]):
        key = (key + recent[i] + 1) * MULTIPLIER
        key ^= key >> 29
    return int((key * MULTIPLIER >> 32) & (heads_CH.shape[1] - 1))


@compiled
def _recent(arena: Arena, place: int, out: Int32) -> int:
    """Writes the tokens that end at `place`, newest first; returns how many there are."""
    for i in range(len(out)):
        if place < 0:
            return i
        out[i] = arena.tokens[place]
        place = _before(arena, place)
    return len(out)


@compiled
def append(arena: Arena, rows: Records, slots: Int64, token_ids: Int32, offsets: Int64) -> None:
    """Adds token_ids[offsets[i] : offsets[i + 1]] to the row in slots[i]; the arena must have free blocks enough."""
    recent = np.empty(MAX_ORDER, np.int32)
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
            recent[1:] = recent[:-1].copy()
            recent[0] = token_ids[t]
            size = min(size + 1, MAX_ORDER)


@compiled
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


@compiled
def _gather(arena: Arena, row: Any, recent: Int32, walk: int, first: int, pointers: Records) -> int:
    """Lists occurrences of the recent tokens in pointers[first:], newest first in each chain; returns where the list ends.

    Chains overlap; each occurrence is taken from the first that should have it.
    """
    last = first
    for chain in range(NUM_CHAINS):
        if len(recent) < ORDERS[chain] or (SCOPES[chain] == GROUP and row.group == 0):
            continue
        place = arena.heads_CH[chain, _head(arena.heads_CH, chain, row, recent)]
        for _ in range(walk):
            if place < 0:
                break
            if arena.tokens[place] >= 0:
                scope, block = SCOPES[chain], arena.blocks[place // BLOCK_TOKENS]
                wanted = scope == OWN or (block.row != row.id and (scope == GROUP or row.group == 0 or block.group != row.group))
                match = _match(arena, place, recent) if wanted else 0
                if match >= ORDERS[chain] and (chain != 1 or match < ORDERS[0]):
                    pointers[last].place, pointers[last].match, pointers[last].scope = place, match, scope
                    last += 1
            place = arena.chains_CP[chain, place]
    return last


@compiled
def _match(arena: Arena, place: int, recent: Int32) -> int:
    """How many tokens before `place` equal the recent ones."""
    match = 0
    place = _before(arena, place)
    while match < len(recent) and place >= 0 and arena.tokens[place] == recent[match]:
        match += 1
        place = _before(arena, place)
    return match


@compiled
def _open(arena: Arena, row: Any, number: int, context: Int32, scratch: Scratch) -> None:
    """Finds a node's occurrences: those of its parent that went on with its token or, where these are few, its own."""
    node, pointers = scratch.nodes[number], scratch.pointers
    if number == 0:
        node.last = _gather(arena, row, context, WALK, 0, pointers)
        return
    guess = scratch.guesses[node.guess]
    parent = scratch.nodes[guess.parent]
    for i in range(parent.first, parent.last):
        if arena.tokens[pointers[i].place] == guess.token:
            place = _after(arena, pointers[i].place)
            if place >= 0 and arena.tokens[place] >= 0:
                pointers[node.last].place, pointers[node.last].scope = place, pointers[i].scope
                pointers[node.last].match = min(pointers[i].match + 1, MAX_MATCH)
                node.longest = max(node.longest, pointers[node.last].match)
                node.last += 1
    if node.last - node.first < FEW_POINTERS and node.longest < LONG_MATCH:
        size, ancestor = 0, number
        while ancestor > 0 and size < MAX_MATCH:
            guess = scratch.guesses[scratch.nodes[ancestor].guess]
            scratch.recent[size], ancestor, size = guess.token, guess.parent, size + 1
        more = min(len(context), MAX_MATCH - size)
        scratch.recent[size : size + more] = context[:more]
        node.last = _gather(arena, row, scratch.recent[: size + more], SHORT_WALK, node.first, pointers)


@compiled
def _tally(arena: Arena, node: Any, successors: Int32, guesses: Records, scratch: Scratch) -> int:
    """Lists a node's distinct continuations in guesses, with their votes by scope; returns how many."""
    num_pointers, count, room = node.last - node.first, 0, min(MAX_CHILDREN, len(guesses))
    scratch.totals[:] = 0
    for i in range(num_pointers + len(successors)):
        rank, pointer = i - num_pointers, scratch.pointers[min(node.first + i, len(scratch.pointers) - 1)]
        token = successors[rank] if rank >= 0 else arena.tokens[pointer.place]
        if token < 0:
            break
        child = 0
        while child < count and guesses[child].token != token:
            child += 1
        if child == room:
            continue
        if child == count:
            guesses[child].token, guesses[child].rank = token, NONE
            scratch.votes[:, child], scratch.longest[:, child], scratch.counts[:, child] = 0, 0, 0
            count += 1
        if rank >= 0:
            guesses[child].rank = rank
        else:
            scratch.totals[pointer.scope] += pointer.match * pointer.match
            scratch.votes[pointer.scope, child] += pointer.match * pointer.match
            scratch.longest[pointer.scope, child] = max(scratch.longest[pointer.scope, child], pointer.match)
            scratch.counts[pointer.scope, child] += 1
    return count


@compiled
def _set_buckets(guess: Any, child: int, scratch: Scratch) -> None:
    """What is known of a guess: by scope its longest match, its share and number of votes; its rank in the bigram; its depth."""
    num_scopes = 0
    guess.source, guess.match = BIGRAM, 0
    for scope in range(NUM_SCOPES):
        longest, count = scratch.longest[scope, child], scratch.counts[scope, child]
        if count == 0:
            guess.buckets[2 * scope] = guess.buckets[2 * scope + 1] = 1 if scratch.totals[scope] > 0 else 0
            continue
        share = scratch.votes[scope, child] / scratch.totals[scope]
        part = 0 if share < 0.1 else 1 if share < 0.25 else 2 if share < 0.5 else 3 if share < 0.8 else 4 if share < 0.99 else 5
        guess.buckets[2 * scope] = 2 + SIZES[longest] * 6 + part
        guess.buckets[2 * scope + 1] = 2 + SIZES[longest] * 4 + min(count, 4) - 1
        num_scopes += 1
        if longest > guess.match:
            guess.match, guess.source = longest, scope
    guess.buckets[6] = (min(guess.rank, 7) + 1) * 2 + (num_scopes > 0)
    guess.buckets[7] = min(guess.depth - 1, 7) * 4 + num_scopes


@compiled
def _expand(arena: Arena, model: Model, number: int, before: int, token: int, first: int, scratch: Scratch) -> int:
    """Weighs what may follow a node: a softmax over its guesses, from `first` on, and "none of these"; returns how many."""
    node, guesses = scratch.nodes[number], scratch.guesses[first:]
    num_successors = 0 if token >= len(model.bigram) else 2 if node.longest >= LONG_MATCH else model.bigram.shape[1]
    successors = model.bigram[min(token, len(model.bigram) - 1), :num_successors]
    count = _tally(arena, node, successors, guesses, scratch)
    total = 1.0
    for child in range(count):
        guess = guesses[child]
        guess.parent, guess.node, guess.depth = number, NONE, node.depth + 1
        _set_buckets(guess, child, scratch)
        score = np.float32(0.0)
        for table in range(NUM_TABLES):
            score += model.weights[table, guess.buckets[table]]
        # What may follow the token before the last one, the last one, anything; and how sure anything is after the last one.
        key, mask = np.int64(0), model.biases.shape[1] - 1
        for bias, part in enumerate((guess.token, token, before)):
            key = (key + part + 1) * MULTIPLIER
            guess.hashes[bias] = (key >> 32) & mask
            score += model.biases[bias, guess.hashes[bias]]
        guess.hashes[3] = ((token + 1) * MULTIPLIER >> 32) & mask
        score += model.biases[3, guess.hashes[3]]
        guess.probability = np.exp(score)
        total += guess.probability
    for child in range(count):
        guesses[child].probability /= total
        guesses[child].survival = node.survival * guesses[child].probability
    return count


@compiled
def _likeliest(node: Any, guesses: Records) -> None:
    """Sets a node's best: of its guesses that are no nodes yet the likeliest, or NONE."""
    node.best = NONE
    for guess in range(node.first_guess, node.last_guess):
        if guesses[guess].node == NONE and (node.best < 0 or guesses[guess].survival > guesses[node.best].survival):
            node.best = guess


@compiled
def _grow(arena: Arena, model: Model, row: Any, max_depth: int, max_nodes: int, floor: float, scratch: Scratch) -> tuple[int, int]:
    """Grows a tree from its root, the likeliest guess becoming a node next; returns its number of nodes and of guesses."""
    context = scratch.context[: _recent(arena, row.last, scratch.context)]
    nodes, guesses = scratch.nodes, scratch.guesses
    nodes[0].depth, nodes[0].survival = 0, 1.0
    before, token, number, num_guesses = context[min(1, len(context) - 1)], context[0], 0, 0
    while True:
        node = nodes[number]
        node.first = node.last = nodes[number - 1].last if number else 0
        node.first_guess, node.last_guess, node.longest = num_guesses, num_guesses, 0
        if node.depth < max_depth and num_guesses < len(guesses) and node.survival * MAX_CERTAINTY >= floor:
            _open(arena, row, number, context, scratch)
            num_guesses += _expand(arena, model, number, before, token, num_guesses, scratch)
            node.last_guess = num_guesses
        _likeliest(node, guesses)
        parent, best = 0, np.float32(floor)
        for i in range(number + 1):
            if nodes[i].best >= 0 and guesses[nodes[i].best].survival > best:
                parent, best = i, guesses[nodes[i].best].survival
        if nodes[parent].best < 0 or guesses[nodes[parent].best].survival <= floor or number == max_nodes:
            return number, num_guesses
        number += 1
        guess = nodes[parent].best
        guesses[guess].node, token = number, guesses[guess].token
        before = guesses[nodes[parent].guess].token if parent else context[0]
        nodes[number].guess, nodes[number].depth, nodes[number].survival = guess, guesses[guess].depth, guesses[guess].survival
        _likeliest(nodes[parent], guesses)


@compiled
def propose(
    arena: Arena, model: Model, rows: Records, slots: Int64, max_depths: Int32, max_nodes: int, floor: float, scratch: Scratch
) -> tuple[Records, Int64, Int64]:
    """The guesses of each row's tree, and the offsets by row of guesses and nodes."""
    guesses = np.empty(len(slots) * len(scratch.guesses), GUESS)
    guess_offsets, node_offsets = np.zeros(len(slots) + 1, np.int64), np.zeros(len(slots) + 1, np.int64)
    for b in range(len(slots)):
        num_nodes, num_guesses = 0, 0
        if max_depths[b] > 0:
            num_nodes, num_guesses = _grow(arena, model, rows[slots[b]], max_depths[b], max_nodes, floor, scratch)
        node_offsets[b + 1], guess_offsets[b + 1] = node_offsets[b] + num_nodes, guess_offsets[b] + num_guesses
        guesses[guess_offsets[b] : guess_offsets[b + 1]] = scratch.guesses[:num_guesses]
    return guesses[: guess_offsets[-1]], guess_offsets, node_offsets
