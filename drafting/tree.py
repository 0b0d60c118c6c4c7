"""Draft trees: the drafts of many sequences, merged so that equal beginnings are verified once, in packed
arrays.

Owns the layout, and the merge of drafts into a tree. Does not know where drafts come from, nor the model.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drafting.compiled import compiled

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]


class NodeArrays(NamedTuple):
    """The arrays of a DraftTrees that have an entry for each node, under the names they have there."""

    token_ids: Int32
    parents: Int32
    depths: Int32
    sources: UInt8
    matches: UInt8


@dataclass(frozen=True)
class DraftTrees:
    """The draft trees of B sequences; sequence b owns nodes offsets[b] .. offsets[b + 1] - 1 of N.

    token_ids int32 [N]. parents int32 [N]: 0 is the root (the sequence's last token), i the sequence's i-th
    node, counted from 1; a parent always comes before its child. depths int32 [N]: 1 is a child of the root.
    sources uint8 [N]: the source of the first draft that held the node, as an index into the proposer's
    source_names. matches uint8 [N]: how many tokens before the node are the same where its source found it
    (in mode mixed: query_len); 0 means that its source is a table. offsets int64 [B + 1].

    Drafts [7 8 9] and [7 8 5] of one sequence: token_ids 7 8 9 5, parents 0 1 2 2, depths 1 2 3 3.
    """

    token_ids: Int32
    parents: Int32
    depths: Int32
    sources: UInt8
    matches: UInt8
    offsets: Int64

    @staticmethod
    @lru_cache(maxsize=512)
    def empty(num_sequences: int) -> "DraftTrees":
        """Trees without nodes, which make a plain step; every call returns the same object."""
        ids = np.zeros(0, np.int32)
        small = np.zeros(0, np.uint8)
        offsets = np.zeros(num_sequences + 1, np.int64)
        return DraftTrees(
            token_ids=ids, parents=ids, depths=ids, sources=small, matches=small, offsets=offsets
        )

    @property
    def nodes(self) -> NodeArrays:
        """The arrays that have an entry for each node."""
        return NodeArrays(self.token_ids, self.parents, self.depths, self.sources, self.matches)

    def num_nodes(self, sequence: int) -> int:
        """The nodes of one sequence's tree; the root does not count."""
        return int(self.offsets[sequence + 1] - self.offsets[sequence])


@dataclass(frozen=True)
class CandidateTrees(DraftTrees):
    """Draft trees of all nodes that are plausible, from which the controller chooses.

    survival float32 [N]: the estimated probability that the node is reached and right. It is never more than
    its parent's, and each sequence's nodes are ordered by it, highest first. weighed: every candidate that
    was weighed, for calibration to score (drafting/adaptive/layout.py); None where the proposer does not
    calibrate.
    """

    survival: NDArray[np.float32]
    weighed: tuple[NDArray[np.void], Int32, Int64, NDArray[np.bool_], Int32] | None = None


def certain(trees: DraftTrees) -> CandidateTrees:
    """Trees of which every node shall be verified: their survival is 1."""
    ones = np.ones(len(trees.token_ids), np.float32)
    return CandidateTrees(**trees.nodes._asdict(), offsets=trees.offsets, survival=ones)


def prune(trees: DraftTrees, keep: NDArray[np.bool_]) -> DraftTrees:
    """The trees of the nodes where keep bool [N] is true; a node's parent must be kept with it."""
    if keep.all():
        return trees
    nodes, offsets = _prune(trees.nodes, trees.offsets, keep)
    return DraftTrees(**nodes._asdict(), offsets=offsets)


def merge_drafts(
    drafts_SBKW: Int32,
    lengths_SBK: Int32,
    max_depths_B: Int32,
    num_drafts: int,
    max_nodes: int,
    matches_S: UInt8,
) -> DraftTrees:
    """One tree per sequence of its first num_drafts distinct drafts: source by source, within a source in
    rank order.

    Drafts are cut at max_depths_B first; a draft that equals an earlier one does not count. A tree that has
    reached max_nodes takes no more. lengths_SBK: 0 = no draft. matches_S: of each source's drafts, see
    DraftTrees.
    """
    nodes, offsets = _merge(drafts_SBKW, lengths_SBK, max_depths_B, num_drafts, max_nodes, matches_S)
    return DraftTrees(**nodes._asdict(), offsets=offsets)


def walk(trees: DraftTrees, sequence: int, target_ids: Int32) -> Int32:
    """The nodes of one sequence's tree, counted from 1, along the target's tokens, as far as the tree has
    them.
    """
    first = trees.offsets[sequence]
    last = trees.offsets[sequence + 1]
    return _walk(trees.token_ids[first:last], trees.parents[first:last], target_ids)


@compiled
def empty_nodes(num_nodes: int) -> NodeArrays:
    """Arrays for num_nodes nodes, not filled yet."""
    return NodeArrays(
        np.empty(num_nodes, np.int32),
        np.empty(num_nodes, np.int32),
        np.empty(num_nodes, np.int32),
        np.empty(num_nodes, np.uint8),
        np.empty(num_nodes, np.uint8),
    )


@compiled
def _part(nodes: NodeArrays, first: int, end: int) -> NodeArrays:
    return NodeArrays(
        nodes.token_ids[first:end],
        nodes.parents[first:end],
        nodes.depths[first:end],
        nodes.sources[first:end],
        nodes.matches[first:end],
    )


FIRST_CHILD = 0
NEXT_SIBLING = 1
IS_END = 2  # whether a draft ends at the node


@compiled
def _merge(
    drafts_SBKW: Int32,
    lengths_SBK: Int32,
    max_depths_B: Int32,
    num_drafts: int,
    max_nodes: int,
    matches_S: UInt8,
) -> tuple[NodeArrays, Int64]:
    num_sources, num_sequences, drafts_per_source = lengths_SBK.shape
    nodes = empty_nodes(num_sequences * max_nodes)
    offsets = np.zeros(num_sequences + 1, np.int64)
    links = np.empty((max_nodes + 1, 3), np.int32)  # [node, FIRST_CHILD | NEXT_SIBLING | IS_END]
    for b in range(num_sequences):
        tree = _part(nodes, offsets[b], offsets[b] + max_nodes)
        num_nodes = 0
        num_taken = 0
        links[0] = 0
        for s in range(num_sources):
            for k in range(drafts_per_source):
                size = min(lengths_SBK[s, b, k], max_depths_B[b])
                if size > 0 and num_taken < num_drafts and num_nodes < max_nodes:
                    before = num_nodes
                    num_nodes, is_new = _add_draft(drafts_SBKW[s, b, k, :size], num_nodes, links, tree)
                    tree.sources[before:num_nodes] = s
                    tree.matches[before:num_nodes] = matches_S[s]
                    num_taken += is_new
        offsets[b + 1] = offsets[b] + num_nodes
    return _part(nodes, 0, int(offsets[num_sequences])), offsets


@compiled
def _add_draft(draft: Int32, num_nodes: int, links: Int32, tree: NodeArrays) -> tuple[int, bool]:
    """Adds what the tree lacks of a draft; returns the tree's size, and whether no equal draft was there
    before.
    """
    node = 0
    for i in range(len(draft)):
        child = links[node, FIRST_CHILD]
        while child > 0 and tree.token_ids[child - 1] != draft[i]:
            child = links[child, NEXT_SIBLING]
        if child == 0:
            if num_nodes == len(tree.token_ids):
                return num_nodes, True
            tree.token_ids[num_nodes] = draft[i]
            tree.parents[num_nodes] = node
            tree.depths[num_nodes] = i + 1
            num_nodes += 1
            child = num_nodes
            links[child, FIRST_CHILD] = 0
            links[child, NEXT_SIBLING] = links[node, FIRST_CHILD]
            links[child, IS_END] = 0
            links[node, FIRST_CHILD] = child
        node = child
    is_new = links[node, IS_END] == 0
    links[node, IS_END] = 1
    return num_nodes, is_new


@compiled
def _walk(token_ids: Int32, parents: Int32, target_ids: Int32) -> Int32:
    path = np.empty(len(target_ids), np.int32)
    node = 0
    depth = 0
    # One pass is enough: a child comes after its parent, and siblings differ.
    for i in range(len(token_ids)):
        if depth < len(target_ids) and parents[i] == node and token_ids[i] == target_ids[depth]:
            node = i + 1
            path[depth] = node
            depth += 1
    return path[:depth]


@compiled
def _prune(nodes: NodeArrays, offsets: Int64, keep: NDArray[np.bool_]) -> tuple[NodeArrays, Int64]:
    """The kept nodes; the numbers of their parents count kept nodes only."""
    kept = np.flatnonzero(keep)
    kept_offsets = np.zeros(len(offsets), np.int64)
    new_parents = np.empty(len(kept), np.int32)
    numbers = np.zeros(len(nodes.parents) + 1, np.int32)
    count = 0
    for b in range(len(offsets) - 1):
        first = count
        for i in range(offsets[b], offsets[b + 1]):
            if keep[i]:
                parent = nodes.parents[i]
                numbers[i] = count - first + 1
                new_parents[count] = numbers[offsets[b] + parent - 1] if parent > 0 else 0
                assert new_parents[count] > 0 or parent == 0, "a chosen node without its parent"
                count += 1
        kept_offsets[b + 1] = count
    found = NodeArrays(
        nodes.token_ids[kept], new_parents, nodes.depths[kept], nodes.sources[kept], nodes.matches[kept]
    )
    return found, kept_offsets
