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

from typing import Any

import numpy as np

from drafting.adaptive.chains import mix, write_recent
from drafting.adaptive.features import (
    FIRST_EXTRA,
    NUM_KINDS,
    NUM_NOISY,
    NUM_PLAIN,
    set_biases,
    set_buckets,
    set_noisy_features,
    set_score_buckets,
)
from drafting.adaptive.foresight import HOPELESS, add_noise, list_candidates, set_plain_scores
from drafting.adaptive.layout import (
    MAX_CANDIDATES,
    MAX_CHILDREN,
    NONE,
    PREDICTION,
    REFERENCE,
    Arena,
    Int64,
    Model,
    Records,
    Scratch,
)
from drafting.adaptive.occurrences import LONG_MATCH, Growth, set_pointers
from drafting.compiled import compiled_lean
from drafting.tree import Int32

# A node gets no candidates if even one this likely would survive less often than asked for.
MAX_CERTAINTY = 0.7
LEAST_REST = np.float32(0.01)  # the share of tokens that are no candidates is at least this
LEAST_OFFSET = -7.0  # and the logarithm of a candidate's share this
NOISY_RANKS = 8  # of the bigram table, in a row whose noise is known


@compiled_lean
def _num_successors(growth: Growth, node: Any, token: int) -> int:
    """How many successors of the bigram table are worth a look.

    Without noise the n-th likeliest has a probability of at most 1 / n; with noise each may be the next.
    """
    if token >= len(growth.model.bigram_VR):
        return 0
    num_ranks = int(growth.model.bigram_VR.shape[1])
    if growth.history.temperature > 0:
        return min(NOISY_RANKS, num_ranks)
    most = min(2, num_ranks) if node.longest >= LONG_MATCH else num_ranks
    return min(most, int(node.survival / growth.floor))


@compiled_lean
def _weigh(growth: Growth, number: int, before: int, token: int, first: int) -> int:
    """Finds and weighs the candidates that follow a node, in candidates[first:]; returns how many there are.

    token: of the node; before: the token before it.
    """
    scratch = growth.scratch
    candidates = scratch.candidates
    node = scratch.nodes[number]
    count = list_candidates(growth, number, token, _num_successors(growth, node, token), first)
    last = mix(0, token)
    pair = mix(last, before)
    _weigh_shares(growth, number, last, pair, first, count)
    if growth.history.temperature > 0:
        _weigh_scores(growth, number, last, pair, first, count)
    for child in range(first, first + count):
        candidates[child].survival = node.survival * candidates[child].probability
    return count


@compiled_lean
def _weigh_shares(growth: Growth, number: int, last: int, pair: int, first: int, count: int) -> None:
    """Sets the probability of each candidate by what is known without noise: a softmax over the candidates
    and "none of these".
    """
    scratch = growth.scratch
    candidates = scratch.candidates
    scores = growth.model.scores
    node = scratch.nodes[number]
    mode = 1 if growth.history.temperature > 0 else 0
    total = _rest(candidates, first, count) if mode else np.float32(1.0)
    # Without noise, shares that are made of followers alone repeat what the votes say.
    is_extended = mode == 1 or node.said > 0 or scratch.totals_V[PREDICTION] + scratch.totals_V[REFERENCE] > 0
    best = second = 0.0
    if is_extended:
        set_plain_scores(candidates, first, count)
        best, second = _two_best(candidates, first, count)
    for child in range(count):
        candidate = candidates[first + child]
        features = scratch.features_GF[first + child]
        candidate.parent = number
        candidate.node = NONE
        candidate.depth = node.depth + 1
        candidate.kind = set_buckets(candidate, features, child, mode, growth.said, scratch)
        set_biases(features, candidate.token, candidate.kind + mode * NUM_KINDS, mix(last, mode), pair)
        candidate.num_features = NUM_PLAIN if is_extended else FIRST_EXTRA
        score = np.float32(max(candidate.score, LEAST_OFFSET) if mode else 0.0)
        if is_extended:
            lead = candidate.score - (second if candidate.score == best else best)
            set_score_buckets(features, mode, lead, candidate.score, node.longest)
        for i in range(candidate.num_features):
            score += scores[features[i]]
        candidate.probability = np.exp(score)
        total += candidate.probability
    for child in range(first, first + count):
        candidates[child].probability /= total
        candidates[child].plain = candidates[child].probability
        candidates[child].share = candidates[child].probability


@compiled_lean
def _rest(candidates: Records, first: int, count: int) -> np.float32:
    """The share of all other tokens."""
    rest = np.float32(1.0)
    for child in range(first, first + count):
        rest -= candidates[child].share
    return max(rest, LEAST_REST)


@compiled_lean
def _weigh_scores(growth: Growth, number: int, last: int, pair: int, first: int, count: int) -> None:
    """Sets the probability of each candidate by its share and the noise of the draw: a softmax over the
    candidates that can still come true, and "none of these".
    """
    scratch = growth.scratch
    candidates = scratch.candidates
    scores = growth.model.scores
    longest = scratch.nodes[number].longest
    rest = np.log(_rest(candidates, first, count))
    add_noise(growth, number, first, count)
    best, second = _two_best(candidates, first, count)
    total = np.float32(1.0)
    for child in range(first, first + count):
        candidate = candidates[child]
        candidate.probability = 0.0
        if candidate.score > best - HOPELESS:
            features = scratch.features_GF[child]
            noisy = scratch.noisy_GF[child]
            lead = candidate.score - (second if candidate.score == best else best)
            set_noisy_features(candidate, features, noisy, lead, candidate.score - rest, longest, last, pair)
            score = np.float32(0.0)
            for i in range(NUM_NOISY):
                score += scores[noisy[i]]
            candidate.probability = np.exp(score)
            total += candidate.probability
    for child in range(first, first + count):
        candidates[child].probability /= total


@compiled_lean
def _two_best(candidates: Records, first: int, count: int) -> tuple[float, float]:
    """The two highest scores."""
    best = -np.inf
    second = -np.inf
    for child in range(first, first + count):
        score = candidates[child].score
        if score > best:
            second = best
            best = score
        elif score > second:
            second = score
    return best, second


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
        set_pointers(growth, number)
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
