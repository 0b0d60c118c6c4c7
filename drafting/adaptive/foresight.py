"""Lists what may follow a node: the tokens that followed its occurrences, and those that the model found
likely there and after the node's token; foresees which of them the draw prefers.

Does not know how occurrences are found, nor how likely a candidate turns out to be.

Worked example. After `1 2` the model once said 5 with 0.6 and 7 with 0.3, and 5 followed. Now the row says `1
2` again, and is drawn at temperature 1. The shares are 0.6 and 0.3. The noise of this row at this position
(drafting/gumbel.py) is 0.1 for 5 and 1.4 for 7: log 0.6 + 0.1 = -0.41, log 0.3 + 1.4 = 0.20. So 7 is
foreseen, with a lead of 0.61 over 5. A greedy row has no noise: 5 leads by log 0.6 - log 0.3 = 0.69.
"""

import math
from typing import Any

import numpy as np

from drafting.adaptive.layout import (
    BIGRAM,
    GAP,
    MAX_CHILDREN,
    NONE,
    NUM_SLOTS,
    Records,
    Scratch,
)
from drafting.adaptive.occurrences import Growth
from drafting.compiled import compiled_lean
from drafting.gumbel import gumbel, row_key
from drafting.likely import PROBABILITIES, UNKNOWN, UInt32, level_of, token_of

# What the model said at the places with the longest matches is asked for, and one token less.
ROOT_PLACES = 8
PLACES = 4
# In a row without noise only where the longest match is no longer than this: what followed a longer one says
# as much, and on repetitive text more questions cost 2 % of the tokens per call.
ASKED_MATCH = 4
# A place weighs 8 times as much as one whose match is shorter by one token. The bigram table weighs like a
# match of one.
WEIGHTS = (8.0 ** np.minimum(np.arange(33), 10)).astype(np.float32)
BIGRAM_WEIGHT = WEIGHTS[1]
# Of a place without logits, its token has this share, by the length of the match.
FOLLOWED = (np.arange(33) / (np.arange(33) + 2.0)).astype(np.float32)
LEAST_SCORE = -20.0  # of a candidate without any share
# A candidate that is this far behind the best one does not come true.
HOPELESS = 4.0


@compiled_lean
def _child(token: int, source: int, match: int, first: int, count: int, scratch: Scratch) -> int:
    """The number of the candidate with this token among the `count` candidates from `first` on.

    Without one it is added as number `count`; without room the answer is MAX_CHILDREN.
    """
    slot = token & (NUM_SLOTS - 1)
    while scratch.slots[slot] >= 0:
        child = scratch.slots[slot]
        if scratch.candidates[first + child].token == token:
            return int(child)
        slot = (slot + 1) & (NUM_SLOTS - 1)
    if count < MAX_CHILDREN:
        scratch.slots[slot] = count
        candidate = scratch.candidates[first + count]
        candidate.token = token
        candidate.source = source
        candidate.match = match
        candidate.rank = NONE
        candidate.share = 0.0
        scratch.votes_CV[count] = 0
        scratch.longest_CV[count] = 0
    return count


@compiled_lean
def list_candidates(growth: Growth, number: int, token: int, num_successors: int, first: int) -> int:
    """Lists the distinct candidates that follow a node, with their votes and shares; returns their number.

    token: of the node. num_successors: entries of the bigram table that are looked at.
    """
    scratch = growth.scratch
    scratch.slots[:] = NONE
    scratch.totals_V[:] = 0
    node = scratch.nodes[number]
    count = _ask_followers(growth, node, first)
    node.said = 0
    weight = 0.0
    if growth.history.temperature > 0 or node.longest <= ASKED_MATCH:
        count, weight = _ask_places(growth, node, first, count)
    for rank in range(num_successors):
        packed = growth.model.bigram_VR[token, rank]
        if packed == UNKNOWN:
            break
        if rank == 0:
            weight += BIGRAM_WEIGHT
        child = _child(token_of(packed), BIGRAM, 0, first, count, scratch)
        if child < MAX_CHILDREN:
            count = max(count, child + 1)
            scratch.candidates[first + child].rank = rank
            scratch.candidates[first + child].share += BIGRAM_WEIGHT * PROBABILITIES[level_of(packed)]
    if weight > 0:
        for child in range(first, first + count):
            scratch.candidates[child].share /= weight
    return count


@compiled_lean
def _ask_followers(growth: Growth, node: Any, first: int) -> int:
    """Lists the tokens that followed the node's occurrences, with the votes for them; sets its longest
    match.
    """
    scratch = growth.scratch
    count = 0
    node.longest = 0
    for i in range(node.first, node.last):
        pointer = scratch.pointers[i]
        match = pointer.match
        voter = GAP if pointer.gap else pointer.scope
        if not pointer.gap:
            node.longest = max(node.longest, match)
        token = growth.arena.tokens[pointer.place]
        child = _child(token, pointer.scope, 0, first, count, scratch)
        if child < MAX_CHILDREN:
            count = max(count, child + 1)
            scratch.totals_V[voter] += match * match
            scratch.votes_CV[child, voter] += match * match
            scratch.longest_CV[child, voter] = max(scratch.longest_CV[child, voter], match)
    return count


@compiled_lean
def _ask_places(growth: Growth, node: Any, first: int, count: int) -> tuple[int, float]:
    """Adds what the model said at the occurrences with the longest matches.

    Returns the number of candidates, and the weight of all places.
    """
    scratch = growth.scratch
    weight = np.float32(0.0)
    places = ROOT_PLACES if node.depth == 0 else PLACES
    for i in range(node.first, node.last):
        pointer = scratch.pointers[i]
        if pointer.match >= node.longest - 1 and not pointer.gap:
            weight += WEIGHTS[pointer.match]
            count = _ask_place(growth, node, pointer, first, count)
            places -= 1
            if places == 0:
                break
    return count, float(weight)


@compiled_lean
def _ask_place(growth: Growth, node: Any, pointer: Any, first: int, count: int) -> int:
    """Adds what the model said at one occurrence, or without that the token that followed."""
    scratch = growth.scratch
    arena = growth.arena
    place = pointer.place
    weight = WEIGHTS[pointer.match]
    num_likely = arena.likely_PM.shape[1]
    if num_likely == 0 or arena.likely_PM[place, 0] == UNKNOWN:
        child = _child(arena.tokens[place], pointer.scope, pointer.match, first, count, scratch)
        if child < MAX_CHILDREN:
            scratch.candidates[first + child].share += weight * FOLLOWED[pointer.match]
            count = max(count, child + 1)
        return count
    node.said += 1
    return _ask(growth, arena.likely_PM[place], pointer.scope, pointer.match, weight, first, count)


@compiled_lean
def _ask(growth: Growth, said: UInt32, source: int, match: int, weight: float, first: int, count: int) -> int:
    """Adds what the model said somewhere, packed [M]; returns the number of candidates."""
    scratch = growth.scratch
    for i in range(len(said)):
        if said[i] == UNKNOWN:
            break
        child = _child(token_of(said[i]), source, match, first, count, scratch)
        if child < MAX_CHILDREN:
            count = max(count, child + 1)
            scratch.candidates[first + child].share += weight * PROBABILITIES[level_of(said[i])]
    return count


@compiled_lean
def set_plain_scores(candidates: Records, first: int, count: int) -> None:
    """Scores candidates by their shares, without noise."""
    for child in range(first, first + count):
        share = candidates[child].share
        candidates[child].score = max(math.log(share), LEAST_SCORE) if share > 0 else LEAST_SCORE


@compiled_lean
def add_noise(growth: Growth, number: int, first: int, count: int) -> None:
    """Scores a node's candidates as the draw will do it, by what the model probably gives them."""
    scratch = growth.scratch
    history = growth.history
    if history.top_k or history.top_p < 1 or history.min_p > 0:
        _filter(growth, first, count)
    position = history.length - history.num_prompt + scratch.nodes[number].depth
    key = row_key(history.seed, position)
    for child in range(first, first + count):
        candidate = scratch.candidates[child]
        candidate.score = -math.inf
        if candidate.share > 0:
            candidate.score = math.log(candidate.share) / history.temperature + gumbel(key, candidate.token)


@compiled_lean
def _filter(growth: Growth, first: int, count: int) -> None:
    """Takes the share of the candidates that the row's filters will probably remove.

    Shares are compared with the largest, which has a power of 1: at a low temperature, powers of the shares
    themselves would all be 0.
    """
    candidates = growth.scratch.candidates
    history = growth.history
    steepness = 1.0 / history.temperature
    max_rank = history.top_k if history.top_k > 0 else count
    largest, _ = _next_share(candidates, first, count, np.float32(math.inf))
    last = np.float32(math.inf)  # the smallest share that top_k leaves
    total = 0.0  # top_p is a part of what top_k leaves
    rank = 0
    while rank < max_rank and last > 0:
        last, number = _next_share(candidates, first, count, last)
        total += number * (last / largest) ** steepness if last > 0 else 0.0
        rank += number
    bar = np.float32(math.inf)
    before = 0.0
    while True:
        share, number = _next_share(candidates, first, count, bar)
        if share <= 0 or share < last or before >= history.top_p * total:
            break
        power = (share / largest) ** steepness
        if power < history.min_p:
            break
        before += number * power
        bar = share
    for child in range(first, first + count):
        if candidates[child].share < bar:
            candidates[child].share = 0.0


@compiled_lean
def _next_share(candidates: Records, first: int, count: int, bar: np.float32) -> tuple[np.float32, int]:
    """The largest share below a bar, and how many candidates have it; 0 where there is none."""
    largest = np.float32(0.0)
    number = 0
    for child in range(first, first + count):
        share = candidates[child].share
        if share < bar:
            if share > largest:
                largest = share
                number = 0
            number += share == largest
    return largest, number
