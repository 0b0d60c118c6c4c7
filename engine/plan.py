"""One step's packed rows: what goes into the model, where K/V is written, who attends to what. Host side, numpy only.

Rows of a sequence: its chunk of known tokens, then the nodes of its draft tree. A chunk's K/V is written straight to its
final slot, for its tokens are committed already; a node's goes to a staging page, from where the accepted ones are
copied later. So every row sees: committed slots up to its own position, and the staged nodes on its path.

Letters: T rows of the step, B sequences of a group, Q rows of a group's widest sequence, P pages (committed, then
staged), S slots per page, L = P * S key columns.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drafting.compiled import compiled
from drafting.tree import DraftTrees, Int32
from engine.scheduler import Chunk

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Masks = NDArray[np.float32]
# Starting one more group costs about as much as attending to this many pages in vain (measured on a CPU).
GROUP_COST_IN_PAGES = 64


@dataclass(frozen=True)
class Group:
    """Sequences that attend in one call.

    rows [B, Q] of the packed step (short ones repeat their last row); pages [B, P]; masks float32 [B, Q, L] by attention
    window (None = unlimited): 0 = seen, -inf = hidden. Without pages and masks: visible = (first, count) of the slots, one
    behind the other, that the one row sees; causal = a fresh prompt that sees its own rows only.
    """

    rows: Ints
    pages: Ints
    masks: dict[int | None, Masks]
    visible: tuple[int, int] | None = None
    causal: bool = False


@dataclass(frozen=True)
class StepPlan:
    """token_ids, positions, write_slots int64 [T]; logits_rows int64 [R]: for each chunk that is the last of its
    sequence, its last row and its nodes, in the order of the chunks; staged_slots int64 [N]: where each node's K/V waits."""

    token_ids: Ints
    positions: Ints
    write_slots: Ints
    logits_rows: Ints
    staged_slots: Ints
    groups: list[Group]


def plan_step(chunks: list[Chunk], trees: DraftTrees, page_size: int, first_staging_page: int, windows: tuple[int | None, ...]) -> StepPlan:
    """The packed rows of a step; trees has one entry per chunk (empty where the chunk is not the last)."""
    layout = _lay_out(chunks, trees, page_size, first_staging_page)
    held = [chunk.sequence.page_array for chunk in chunks]
    page_table = _page_table(np.concatenate(held), np.array([len(pages) for pages in held]), layout)
    chunk_ids = np.concatenate([c.sequence.token_ids[c.sequence.num_cached : c.sequence.num_cached + c.num_rows] for c in chunks])
    last = np.array([chunk.last for chunk in chunks])
    packed = _pack(layout, page_table, chunk_ids, last, trees.token_ids, trees.depths, page_size)
    groups = [_group(layout[members], page_table[members], trees, page_size, windows) for members in _grouped(layout)]
    return StepPlan(*packed, groups)


# Columns of `layout` [C, 7], one line per chunk. A sequence owns rows FIRST .. FIRST + ROWS - 1 (its chunk, then its
# nodes), whose positions begin at START; NODE is its first node in the packed trees; PAGES are committed, STAGED its first staging page.
FIRST, START, ROWS, NODES, NODE, PAGES, STAGED = range(7)


def _lay_out(chunks: list[Chunk], trees: DraftTrees, page_size: int, staging_page: int) -> Ints:
    layout, first, node = [], 0, 0
    for chunk, end_node in zip(chunks, trees.offsets[1:].tolist(), strict=True):
        start, num_nodes = chunk.sequence.num_cached, end_node - node
        num_pages = -(-(start + chunk.num_rows) // page_size)
        layout.append((first, start, chunk.num_rows + num_nodes, num_nodes, node, num_pages, staging_page))
        first, node = first + chunk.num_rows + num_nodes, end_node
        staging_page += -(-num_nodes // page_size)
    return np.array(layout, np.int64)


@compiled
def _pack(
    layout: Ints, page_table: Ints, chunk_ids: Int32, last: Bools, node_ids: Int32, depths: Int32, page_size: int
) -> tuple[Ints, Ints, Ints, Ints, Ints]:
    """The arrays of StepPlan, in its order."""
    num_rows = layout[-1, FIRST] + layout[-1, ROWS]
    token_ids, positions, slots = np.empty(num_rows, np.int64), np.empty(num_rows, np.int64), np.empty(num_rows, np.int64)
    logits_rows, staged_slots = np.empty(num_rows, np.int64), np.empty(len(node_ids), np.int64)
    taken, num_logits = 0, 0
    for c in range(len(layout)):
        first, start, num_nodes, node = layout[c, FIRST], layout[c, START], layout[c, NODES], layout[c, NODE]
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
        if last[c]:
            for row in range(first + num_chunk - 1, first + num_chunk + num_nodes):
                logits_rows[num_logits] = row
                num_logits += 1
    return token_ids, positions, slots, logits_rows[:num_logits], staged_slots


def _grouped(layout: Ints) -> list[list[int]]:
    """Decoding sequences of like width and length together; each prefill chunk its own group, as it is wide enough alone."""
    rows, nodes, pages = (layout[:, column].tolist() for column in (ROWS, NODES, PAGES))
    groups = [[c] for c in range(len(rows)) if rows[c] - nodes[c] > 1]
    widths = [(count - 1).bit_length() for count in rows]  # 1 | 2 | 3-4 | 5-8 | ... rows
    decoding = sorted((c for c in range(len(rows)) if rows[c] - nodes[c] == 1), key=lambda c: (widths[c], pages[c], c))
    current: list[int] = []
    for c in decoding:
        if current and (widths[c] != widths[current[0]] or len(current) * (pages[c] - pages[current[-1]]) > GROUP_COST_IN_PAGES):
            groups.append(current)
            current = []
        current.append(c)
    return groups + ([current] if current else [])


def _group(layout: Ints, page_table: Ints, trees: DraftTrees, page_size: int, windows: tuple[int | None, ...]) -> Group:
    first, start, width, num_nodes, _, num_pages, _ = layout[0].tolist()
    if len(layout) == 1 and not num_nodes and all(window is None or window >= start + width for window in windows):
        rows = np.arange(first, first + width)[None]
        if start == 0:
            return Group(rows, page_table[:, :0], {}, causal=True)
        first_page = int(page_table[0, 0])
        if width == 1 and (page_table[0, :num_pages] == np.arange(first_page, first_page + num_pages)).all():
            return Group(rows, page_table[:, :0], {}, visible=(first_page * page_size, start + 1))
    rows, pages, num_committed = _rows_and_pages(layout, page_table, page_size)
    masks: dict[int | None, Masks] = {}
    for window in windows:
        masks[window] = np.full((*rows.shape, pages.shape[1] * page_size), -np.inf, np.float32)
        _fill_mask(masks[window], layout, trees.parents, trees.depths, num_committed * page_size, window or 0)
    return Group(rows, pages, masks)


@compiled
def _rows_and_pages(layout: Ints, page_table: Ints, page_size: int) -> tuple[Ints, Ints, int]:
    """rows and pages of a Group, and how many of a sequence's pages are committed ones.

    A sequence with fewer nodes than the widest repeats page 0 where it has no staging page: masked, but never beyond the cache.
    """
    num_committed, num_staged = layout[:, PAGES].max(), -(-layout[:, NODES].max() // page_size)
    rows = np.empty((len(layout), layout[:, ROWS].max()), np.int64)
    pages = np.zeros((len(layout), num_committed + num_staged), np.int64)
    for b in range(len(layout)):
        for q in range(rows.shape[1]):
            rows[b, q] = layout[b, FIRST] + min(q, layout[b, ROWS] - 1)
        for p in range(num_committed):
            pages[b, p] = page_table[b, p]
        for p in range(-(-layout[b, NODES] // page_size)):
            pages[b, num_committed + p] = layout[b, STAGED] + p
    return rows, pages, num_committed


@compiled
def _page_table(held: Ints, counts: Ints, layout: Ints) -> Ints:
    """The pages that each chunk's rows may see [C, P], of those that its sequence holds, counts[c] each."""
    table = np.zeros((len(layout), layout[:, PAGES].max()), np.int64)
    first = 0
    for c in range(len(layout)):
        for p in range(layout[c, PAGES]):
            table[c, p] = held[first + p]
        first += counts[c]
    return table


@compiled
def _fill_mask(mask: Masks, layout: Ints, parents: Int32, depths: Int32, num_committed_slots: int, window: int) -> None:
    """mask [B, Q, L] starts all hidden. Windows count positions, not slots: siblings in a tree share a position."""
    for b in range(mask.shape[0]):
        start, num_rows, num_nodes, first_node = layout[b, START], layout[b, ROWS], layout[b, NODES], layout[b, NODE]
        num_chunk = num_rows - num_nodes
        end = start + num_chunk
        for q in range(mask.shape[1]):
            row = min(q, num_rows - 1)
            node = row - num_chunk  # from 0; below 0: a row of the chunk
            position = start + row if node < 0 else end - 1 + depths[first_node + node]
            oldest = max(0, position - window + 1) if window else 0
            for slot in range(oldest, min(position + 1, end)):
                mask[b, q, slot] = 0
            while node >= 0:
                if end - 1 + depths[first_node + node] >= oldest:
                    mask[b, q, num_committed_slots + node] = 0
                node = parents[first_node + node] - 1
