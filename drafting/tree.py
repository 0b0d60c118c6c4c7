"""Draft trees: the guesses of many sequences, merged so that equal beginnings are verified once, in packed
arrays.

Owns the layout and the merge of drafts into a tree (numba). Does not know where drafts come from, nor the
model.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from drafting.compiled import compiled

Int32 = NDArray[np.int32]
UInt8 = NDArray[np.uint8]


@dataclass(frozen=True)
class DraftTrees:
    """The draft trees of B sequences; sequence b owns nodes offsets[b] .. offsets[b + 1] - 1 of N.

    token_ids int32 [N]; parents int32 [N]: 0 = the root (the sequence's last token), i = the sequence's i-th
    node, counted from 1, always before its child; depths int32 [N]: 1 = child of the root; sources uint8 [N]:
    index into the proposer's source_names of the first draft that held the node; matches uint8 [N]: how many
    tokens before the node are the same where its source found it (mixed: its query_len), 0 = its source is a
    table; offsets int64 [B + 1].

    Drafts [7 8 9] and [7 8 5] of one sequence: token_ids 7 8 9 5, parents 0 1 2 2, depths 1 2 3 3.
    """

    token_ids: Int32
    parents: Int32
    depths: Int32
    sources: NDArray[np.uint8]
    matches: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    @staticmethod
    @lru_cache(maxsize=512)
    def empty(num_sequences: int) -> "DraftTrees":
        """Trees without nodes: the plain step. The same ones at every call."""
        none = np.zeros(0, np.int32)
        small = np.zeros(0, np.uint8)
        return DraftTrees(none, none, none, small, small, np.zeros(num_sequences + 1, np.int64))

    def num_nodes(self, sequence: int) -> int:
        """Nodes of one sequence's tree, the root not counted."""
        return int(self.offsets[sequence + 1] - self.offsets[sequence])


@dataclass(frozen=True)
class CandidateTrees(DraftTrees):
    """Draft trees of all nodes that are plausible, for choose() to pick from.

    survival float32 [N]: estimated probability that the node is reached and right; never more than its
    parent's. Each sequence's nodes are ordered by it, highest first. guesses: every continuation that was
    weighed, for calibration to score (layout.Guesses); None where the proposer does not calibrate.
    """

    survival: NDArray[np.float32]
    weighed: tuple[NDArray[np.void], Int32, NDArray[np.int64]] | None = None


def certain(trees: DraftTrees) -> CandidateTrees:
    """Trees of which every node shall be verified: survival 1."""
    ones = np.ones(len(trees.token_ids), np.float32)
    return CandidateTrees(
        trees.token_ids, trees.parents, trees.depths, trees.sources, trees.matches, trees.offsets, ones
    )


def prune(trees: DraftTrees, keep: NDArray[np.bool_]) -> DraftTrees:
    """The trees of the nodes where keep bool [N] is true; a node's parent must be kept with it."""
    if keep.all():
        return trees
    return DraftTrees(
        *_prune(
            trees.token_ids, trees.parents, trees.depths, trees.sources, trees.matches, trees.offsets, keep
        )
    )


def merge_drafts(
    drafts_SBKW: Int32,
    lengths_SBK: Int32,
    max_depths_B: Int32,
    num_drafts: int,
    max_nodes: int,
    matches_S: NDArray[np.uint8],
) -> DraftTrees:
    """One tree per sequence of its first num_drafts distinct drafts: source by source, within a source in
    rank order.

    Drafts are cut at max_depths_B first; a draft that equals an earlier one does not count. A tree that has
    reached max_nodes takes no more. lengths_SBK: 0 = no draft. matches_S: of each source's drafts, see
    DraftTrees.
    """
    token_ids, parents, depths, sources, offsets = _merge(
        drafts_SBKW, lengths_SBK, max_depths_B, num_drafts, max_nodes
    )
    return DraftTrees(token_ids, parents, depths, sources, matches_S[sources], offsets)


def walk(trees: DraftTrees, sequence: int, target_ids: Int32) -> Int32:
    """The nodes of one sequence's tree (counted from 1) along the target's tokens, as far as the tree has
    them.
    """
    first = trees.offsets[sequence]
    last = trees.offsets[sequence + 1]
    return _walk(trees.token_ids[first:last], trees.parents[first:last], target_ids)


@compiled
def _merge(
    drafts_SBKW: Int32, lengths_SBK: Int32, max_depths_B: Int32, num_drafts: int, max_nodes: int
) -> tuple[Int32, Int32, Int32, NDArray[np.uint8], NDArray[np.int64]]:
    num_sources, num_sequences, drafts_per_source = lengths_SBK.shape
    capacity = num_sequences * max_nodes
    token_ids = np.empty(capacity, np.int32)
    parents = np.empty(capacity, np.int32)
    depths = np.empty(capacity, np.int32)
    sources = np.empty(capacity, np.uint8)
    offsets = np.zeros(num_sequences + 1, np.int64)
    links = np.empty(
        (max_nodes + 1, 3), np.int32
    )  # by node: first child, next sibling, whether a draft ends here
    for b in range(num_sequences):
        first = offsets[b]
        last = first + max_nodes
        out = (token_ids[first:last], parents[first:last], depths[first:last], sources[first:last])
        num_nodes = 0
        num_taken = 0
        links[0] = 0
        for s in range(num_sources):
            for k in range(drafts_per_source):
                size = min(lengths_SBK[s, b, k], max_depths_B[b])
                if size > 0 and num_taken < num_drafts and num_nodes < max_nodes:
                    num_nodes, is_new = _add_draft(drafts_SBKW[s, b, k, :size], s, num_nodes, links, out)
                    num_taken += is_new
        offsets[b + 1] = first + num_nodes
    total = offsets[num_sequences]
    return token_ids[:total], parents[:total], depths[:total], sources[:total], offsets


@compiled
def _add_draft(
    draft: Int32,
    source: int,
    num_nodes: int,
    links: Int32,
    out: tuple[Int32, Int32, Int32, NDArray[np.uint8]],
) -> tuple[int, bool]:
    """Adds what the tree lacks of one draft; returns the tree's size, and whether no equal draft was there
    before.
    """
    token_ids, parents, depths, sources = out
    node = 0
    for i in range(len(draft)):
        child = links[node, 0]
        while child > 0 and token_ids[child - 1] != draft[i]:
            child = links[child, 1]
        if child == 0:
            if num_nodes == len(token_ids):
                return num_nodes, True
            token_ids[num_nodes] = draft[i]
            parents[num_nodes] = node
            depths[num_nodes] = i + 1
            sources[num_nodes] = source
            num_nodes += 1
            child = num_nodes
            links[child, 0] = 0
            links[child, 1] = links[node, 0]
            links[child, 2] = 0
            links[node, 0] = child
        node = child
    is_new = links[node, 2] == 0
    links[node, 2] = 1
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
def _prune(
    token_ids: Int32,
    parents: Int32,
    depths: Int32,
    sources: UInt8,
    matches: UInt8,
    offsets: NDArray[np.int64],
    keep: NDArray[np.bool_],
) -> tuple[Int32, Int32, Int32, UInt8, UInt8, NDArray[np.int64]]:
    """The arrays of DraftTrees, in its order; parents are counted among the kept."""
    kept = np.flatnonzero(keep)
    kept_offsets = np.zeros(len(offsets), np.int64)
    new_parents = np.empty(len(kept), np.int32)
    numbers = np.zeros(len(parents) + 1, np.int32)
    count = 0
    for b in range(len(offsets) - 1):
        first = count
        for i in range(offsets[b], offsets[b + 1]):
            if keep[i]:
                parent = parents[i]
                numbers[i] = count - first + 1
                new_parents[count] = numbers[offsets[b] + parent - 1] if parent > 0 else 0
                assert new_parents[count] > 0 or parent == 0, "a chosen node without its parent"
                count += 1
        kept_offsets[b + 1] = count
    return token_ids[kept], new_parents, depths[kept], sources[kept], matches[kept], kept_offsets
