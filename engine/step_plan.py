"""One step's packed rows: what goes into the model, where K/V is written, who attends to what.

Host side, numpy only.

Rows of a sequence: its chunk of known tokens, then the nodes of its draft tree. A chunk's K/V is written
straight to its final slot, for its tokens are committed already; a node's goes to a staging page, from where
the accepted ones are copied later. So every row sees: committed slots up to its own position, and the staged
nodes on its path.

Letters: T rows of the step, B sequences of a group, Q rows of a group's widest sequence, P pages (committed,
then staged), S slots per page, L = P * S key columns.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drafting.compiled import compiled
from drafting.tree import DraftTrees, Int32
from engine.page_table import PageTable
from engine.scheduler import Chunk

Ints = NDArray[np.int64]
Masks = NDArray[np.float32]
Windows = tuple[int | None, ...]
# Starting one more group costs about as much as attending to this many pages in vain (measured on a CPU).
GROUP_COST_IN_PAGES = 64


class Group(NamedTuple):
    """Sequences that attend in one call.

    rows [B, Q] of the packed step (short ones repeat their last row); in_order: they follow each other, none
    twice; pages [B, P]; masks float32 [B, Q, L] by attention window (None = unlimited): 0 = seen, -inf =
    hidden. Without pages and masks: visible = (first, count) of the slots, one behind the other, that the one
    row sees; causal = a fresh prompt that sees its own rows only.
    """

    rows: Ints
    in_order: bool
    pages: Ints
    masks: dict[int | None, Masks]
    visible: tuple[int, int] | None = None
    causal: bool = False


class StepPlan(NamedTuple):
    """token_ids, positions, write_slots int64 [T]; logits_indices int64 [R]: for each chunk that is the last
    of its sequence, its last row and its nodes, in the order of the chunks; staged_slots int64 [N]: where
    each node's K/V waits.
    """

    token_ids: Ints
    positions: Ints
    write_slots: Ints
    logits_indices: Ints
    staged_slots: Ints
    groups: list[Group]


class Planner:
    """Plans the steps of one cache: pages of page_size slots, staging pages from first_staging_page."""

    def __init__(self, page_size: int, first_staging_page: int) -> None:
        self.page_size = page_size
        self.first_staging_page = first_staging_page
        self._page_table = PageTable()

    def plan(self, chunks: list[Chunk], trees: DraftTrees, windows: Windows) -> StepPlan:
        """The packed rows of a step; trees has one entry per chunk (empty where the chunk is not the "
        "last)."""
        sequences = [chunk.sequence for chunk in chunks]
        rows = [chunk.num_tokens for chunk in chunks]
        known = np.array(
            [s.num_cached for s in sequences] + rows + [chunk.last for chunk in chunks], np.int64
        )
        page_table = self._page_table.of([s.page_ids for s in sequences])
        layout = _lay_out(known, trees.offsets, self.page_size, self.first_staging_page)
        packed = _pack(layout, page_table, _chunk_ids(chunks), trees.token_ids, trees.depths, self.page_size)
        members, ends = _grouped(layout)
        groups = []
        first = 0
        for end in ends.tolist():
            groups.append(self._group(layout, page_table, members[first:end], trees, windows))
            first = end
        return StepPlan(*packed, groups)

    def _group(
        self, layout: Ints, page_table: Ints, members: Ints, trees: DraftTrees, windows: Windows
    ) -> Group:
        if len(members) == 1 and (
            simple := self._simple_group(layout[members[0]].tolist(), page_table[members[0]], windows)
        ):
            return simple
        limits = _limits(windows)
        rows, in_order, pages, masks = _arrays(
            layout, page_table, members, trees.parents, trees.depths, self.page_size, limits
        )
        return Group(rows, in_order, pages, dict(zip(windows, masks, strict=True)))

    def _simple_group(self, layout: list[int], own_pages: Ints, windows: Windows) -> Group | None:
        """A group without pages and masks, where a sequence alone can do without."""
        first, start, width, num_nodes, _, num_pages, _, _ = layout
        if num_nodes or any(window is not None and window < start + width for window in windows):
            return None
        rows = np.arange(first, first + width)[None]
        none = np.zeros((1, 0), np.int64)
        if start == 0:
            return Group(rows, True, none, {}, causal=True)
        first_page = int(own_pages[0])
        if width == 1 and (own_pages[:num_pages] == np.arange(first_page, first_page + num_pages)).all():
            return Group(rows, True, none, {}, visible=(first_page * self.page_size, start + 1))
        return None


@lru_cache
def _limits(windows: Windows) -> Ints:
    """Windows as an array, 0 = unlimited."""
    return np.array([window or 0 for window in windows], np.int64)


def _chunk_ids(chunks: list[Chunk]) -> Ints:
    """The known tokens that run, of all chunks."""
    if all(chunk.last and chunk.num_tokens == 1 for chunk in chunks):
        return np.array([chunk.sequence.last_token for chunk in chunks], np.int64)
    starts = [(chunk.sequence, chunk.sequence.num_cached, chunk.num_tokens) for chunk in chunks]
    return np.concatenate(
        [sequence.token_ids[start : start + count] for sequence, start, count in starts]
    ).astype(np.int64)


# Columns of `layout` [C, 8], one line per chunk. A sequence owns rows FIRST .. FIRST + ROWS - 1 (its chunk,
# then its nodes), whose positions begin at START; NODE is its first node in the packed trees; PAGES are
# committed, STAGED its first staging page; LAST says whether the chunk is the last of its sequence.
FIRST, START, ROWS, NODES, NODE, PAGES, STAGED, LAST = range(8)


@compiled
def _lay_out(known: Ints, node_offsets: Ints, page_size: int, staging_page: int) -> Ints:
    """known [3 * C]: of each chunk its start, then of each its rows, then whether it is the last."""
    num_chunks = len(known) // 3
    first = 0
    layout = np.empty((num_chunks, 8), np.int64)
    for c in range(num_chunks):
        start = known[c]
        num_rows = known[num_chunks + c]
        num_nodes = node_offsets[c + 1] - node_offsets[c]
        layout[c, FIRST] = first
        layout[c, START] = start
        layout[c, ROWS] = num_rows + num_nodes
        layout[c, NODES] = num_nodes
        layout[c, NODE] = node_offsets[c]
        layout[c, LAST] = known[2 * num_chunks + c]
        layout[c, PAGES] = -(-(start + num_rows) // page_size)
        layout[c, STAGED] = staging_page
        first += num_rows + num_nodes
        staging_page += -(-num_nodes // page_size)
    return layout


@compiled
def _pack(
    layout: Ints, page_table: Ints, chunk_ids: Ints, node_ids: Int32, depths: Int32, page_size: int
) -> tuple[Ints, Ints, Ints, Ints, Ints]:
    """The arrays of StepPlan, in its order."""
    num_rows = layout[-1, FIRST] + layout[-1, ROWS]
    token_ids = np.empty(num_rows, np.int64)
    positions = np.empty(num_rows, np.int64)
    slots = np.empty(num_rows, np.int64)
    logits_indices = np.empty(num_rows, np.int64)
    staged_slots = np.empty(len(node_ids), np.int64)
    taken = 0
    num_logits = 0
    for c in range(len(layout)):
        first = layout[c, FIRST]
        start = layout[c, START]
        num_nodes = layout[c, NODES]
        node = layout[c, NODE]
        num_chunk = layout[c, ROWS] - num_nodes
        for i in range(num_chunk):
            token_ids[first + i] = chunk_ids[taken + i]
            positions[first + i] = start + i
            slots[first + i] = page_table[c, (start + i) // page_size] * page_size + (start + i) % page_size
        taken += num_chunk
        for i in range(num_nodes):
            row = first + num_chunk + i
            token_ids[row] = node_ids[node + i]
            positions[row] = start + num_chunk - 1 + depths[node + i]
            staged_slots[node + i] = slots[row] = layout[c, STAGED] * page_size + i
        if layout[c, LAST]:
            for row in range(first + num_chunk - 1, first + num_chunk + num_nodes):
                logits_indices[num_logits] = row
                num_logits += 1
    return token_ids, positions, slots, logits_indices[:num_logits], staged_slots


@compiled
def _grouped(layout: Ints) -> tuple[Ints, Ints]:
    """Decoding sequences of like width and length together; each prefill chunk its own group, as it is wide
    enough alone.

    Returns the chunks of all groups, and where each group ends in them.
    """
    members = np.empty(len(layout), np.int64)
    ends = np.empty(len(layout), np.int64)
    keys = np.empty(len(layout), np.int64)
    count = 0
    num_groups = 0
    for c in range(len(layout)):
        if layout[c, ROWS] - layout[c, NODES] > 1:
            members[count] = c
            count += 1
            ends[num_groups] = count
            num_groups += 1
    first = count
    for c in range(len(layout)):
        if layout[c, ROWS] - layout[c, NODES] == 1:
            width = 0  # 1 | 2 | 3-4 | 5-8 | ... rows
            while layout[c, ROWS] > 1 << width:
                width += 1
            key = (width << 32) + layout[c, PAGES]
            place = count
            while place > first and keys[place - 1] > key:  # they come almost in order
                keys[place] = keys[place - 1]
                members[place] = members[place - 1]
                place -= 1
            keys[place] = key
            members[place] = c
            count += 1
    begin = first
    for i in range(first + 1, count + 1):
        if (
            i == count
            or (keys[i] >> 32) != (keys[begin] >> 32)
            or (i - begin) * (keys[i] - keys[i - 1]) > GROUP_COST_IN_PAGES
        ):
            ends[num_groups] = begin = i
            num_groups += 1
    return members, ends[:num_groups]


@compiled
def _arrays(
    layout: Ints,
    page_table: Ints,
    members: Ints,
    parents: Int32,
    depths: Int32,
    page_size: int,
    windows: Ints,
) -> tuple[Ints, bool, Ints, Masks]:
    """rows, in_order and pages of a Group, and its masks [W, B, Q, L]; windows [W], 0 = unlimited.

    A sequence with fewer nodes than the widest repeats page 0 where it has no staging page: masked, but never
    beyond the cache.
    """
    num_committed = 0
    num_nodes = 0
    width = 0
    for c in members:
        num_committed = max(num_committed, layout[c, PAGES])
        num_nodes = max(num_nodes, layout[c, NODES])
        width = max(width, layout[c, ROWS])
    rows = np.empty((len(members), width), np.int64)
    pages = np.zeros((len(members), num_committed + -(-num_nodes // page_size)), np.int64)
    masks = np.full((len(windows), len(members), width, pages.shape[1] * page_size), -np.inf, np.float32)
    in_order = True
    for b, c in enumerate(members):
        in_order = (
            in_order
            and layout[c, ROWS] == width
            and layout[c, FIRST] == layout[members[0], FIRST] + b * width
        )
        for q in range(width):
            rows[b, q] = layout[c, FIRST] + min(q, layout[c, ROWS] - 1)
        for p in range(layout[c, PAGES]):
            pages[b, p] = page_table[c, p]
        for p in range(-(-layout[c, NODES] // page_size)):
            pages[b, num_committed + p] = layout[c, STAGED] + p
        for w in range(len(windows)):
            _fill_mask(masks[w, b], layout[c], parents, depths, num_committed * page_size, windows[w])
    return rows, in_order, pages, masks


@compiled
def _fill_mask(
    mask: Masks, layout: Ints, parents: Int32, depths: Int32, num_committed_slots: int, window: int
) -> None:
    """mask [Q, L] of one sequence starts all hidden.

    Windows count positions, not slots: siblings in a tree share a position.
    """
    start = layout[START]
    num_rows = layout[ROWS]
    num_nodes = layout[NODES]
    first_node = layout[NODE]
    num_chunk = num_rows - num_nodes
    end = start + num_chunk
    for q in range(mask.shape[0]):
        row = min(q, num_rows - 1)
        node = row - num_chunk  # from 0; below 0: a row of the chunk
        position = start + row if node < 0 else end - 1 + depths[first_node + node]
        oldest = max(0, position - window + 1) if window else 0
        mask[q, oldest : min(position + 1, end)] = 0
        while node >= 0:
            if end - 1 + depths[first_node + node] >= oldest:
                mask[q, num_committed_slots + node] = 0
            node = parents[first_node + node] - 1
