"""Verification: which drafted nodes the target agrees with.

A pure function of trees and targets: no model, no cache, no config.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drafting.compiled import compiled
from drafting.tree import DraftTrees, Int32

Ints = NDArray[np.int64]
NO_NODES: Ints = np.zeros(0, np.int64)


class Verified(NamedTuple):
    """What the target agrees with.

    nodes int64 [A]: accepted nodes, from root to leaf, as indices into the packed trees; sequence b owns
    nodes[offsets[b] : offsets[b + 1]]. bonus int64 [B]: the target's own token after each path, or
    NOT_FINITE (engine/targets.py), which no node equals.
    """

    nodes: Ints
    offsets: Ints
    bonus: Ints

    def first(self, num_tokens: Ints) -> Ints:
        """The accepted nodes among the first num_tokens [B] tokens: an output may end inside a path."""
        sizes = np.diff(self.offsets)
        places = np.arange(len(self.nodes)) - self.offsets[:-1].repeat(sizes)
        return self.nodes[places < num_tokens.repeat(sizes)]


def verify(trees: DraftTrees, targets: Ints) -> Verified:
    """Walks each tree from its root: on to the child that equals the target token, until there is none.

    targets int64 [N + B]: for each sequence the target after its root, then after each of its nodes. Example:
    a tree with paths [7 8] and [7 5], nodes 7 8 5, targets [7, 5, 1, 4] (after the root, 7, 8, 5): accepts 7
    and 5, bonus 4. Of equal children the first is taken; a proposer that merges drafts never makes two.
    """
    if not len(trees.token_ids):
        return Verified(NO_NODES, trees.offsets, targets)
    nodes, offsets, bonus = _walk(trees.token_ids, trees.parents, trees.offsets, targets)
    return Verified(nodes, offsets, bonus)


@compiled
def _walk(token_ids: Int32, parents: Int32, offsets: Ints, targets: Ints) -> tuple[Ints, Ints, Ints]:
    num_sequences = len(offsets) - 1
    accepted = np.empty(len(token_ids), np.int64)
    accepted_offsets = np.zeros(num_sequences + 1, np.int64)
    bonus = np.empty(num_sequences, np.int64)
    count = 0
    for b in range(num_sequences):
        first = offsets[b]
        at = 0  # 0 = the root, i = the sequence's i-th node; children come after their parents
        target = targets[first + b]
        for node in range(1, offsets[b + 1] - first + 1):
            if parents[first + node - 1] == at and token_ids[first + node - 1] == target:
                at = node
                target = targets[first + b + node]
                accepted[count] = first + node - 1
                count += 1
        accepted_offsets[b + 1] = count
        bonus[b] = target
    return accepted[:count], accepted_offsets, bonus
