"""One step's packed rows: what goes into the model, where K/V is written, who attends to what. Host side, numpy only.

Rows of a sequence: its chunk of known tokens, then the nodes of its draft tree. A chunk's K/V is written straight to its
final slot, for its tokens are committed already; a node's goes to a staging page, from where the accepted ones are
copied later. So every row sees: committed slots up to its own position, and the staged nodes on its path.

Letters: T rows of the step, B sequences of a group, Q rows of a group's widest sequence, P pages (committed, then
staged), S slots per page, L = P * S key columns.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drafting.tree import DraftTrees
from engine.scheduler import Chunk

Ints = NDArray[np.int64]
# Starting one more group costs about as much as attending to this many pages in vain (measured on a CPU).
GROUP_COST_IN_PAGES = 64


@dataclass(frozen=True)
class Group:
    """Sequences that attend in one call. rows [B, Q] of the packed step, short ones repeat their last row; pages [B, P];
    mask bool [B, Q, L] by attention window (None = unlimited); causal: one fresh prompt that sees only its own rows."""

    rows: Ints
    pages: Ints
    masks: dict[int | None, NDArray[np.bool_]]
    causal: bool


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


@dataclass(frozen=True)
class _Rows:
    """One sequence's part of the step: rows [first, first + num_chunk + num_nodes)."""

    first: int
    start: int  # position of the first row
    num_chunk: int
    num_nodes: int
    first_node: int  # in the packed trees
    committed_pages: list[int]
    staged_pages: list[int]

    @property
    def num_rows(self) -> int:
        return self.num_chunk + self.num_nodes


def plan_step(chunks: list[Chunk], trees: DraftTrees, page_size: int, first_staging_page: int, windows: tuple[int | None, ...]) -> StepPlan:
    """The packed rows of a step; trees has one entry per chunk (empty where the chunk is not the last)."""
    parts = _lay_out(chunks, trees, page_size, first_staging_page)
    num_rows = parts[-1].first + parts[-1].num_rows
    token_ids, positions, slots = (np.empty(num_rows, np.int64) for _ in range(3))
    staged_slots = np.empty(len(trees.token_ids), np.int64)
    logits_rows = []
    for chunk, part in zip(chunks, parts, strict=True):
        tokens_end, rows_end = part.first + part.num_chunk, part.first + part.num_rows
        end = part.start + part.num_chunk
        token_ids[part.first : tokens_end] = chunk.sequence.token_ids[part.start : end]
        positions[part.first : tokens_end] = places = np.arange(part.start, end)
        slots[part.first : tokens_end] = _slots(part.committed_pages, places, page_size)
        if part.num_nodes:
            nodes = slice(part.first_node, part.first_node + part.num_nodes)
            token_ids[tokens_end:rows_end] = trees.token_ids[nodes]
            positions[tokens_end:rows_end] = end - 1 + trees.depths[nodes]
            staged_slots[nodes] = slots[tokens_end:rows_end] = _slots(part.staged_pages, np.arange(part.num_nodes), page_size)
        if chunk.last:
            logits_rows.append(np.arange(tokens_end - 1, rows_end))
    groups = [_group(parts_of_group, trees, page_size, windows) for parts_of_group in _grouped(parts)]
    return StepPlan(token_ids, positions, slots, np.concatenate(logits_rows or [np.zeros(0, np.int64)]), staged_slots, groups)


def _lay_out(chunks: list[Chunk], trees: DraftTrees, page_size: int, staging_page: int) -> list[_Rows]:
    parts, first = [], 0
    for index, chunk in enumerate(chunks):
        start, num_nodes = chunk.sequence.num_cached, trees.num_nodes(index)
        num_pages = -(-(start + chunk.num_rows) // page_size)
        num_staged = -(-num_nodes // page_size)
        staged = list(range(staging_page, staging_page + num_staged))
        staging_page += num_staged
        committed = chunk.sequence.page_ids[:num_pages]
        parts.append(_Rows(first, start, chunk.num_rows, num_nodes, int(trees.offsets[index]), committed, staged))
        first += parts[-1].num_rows
    return parts


def _slots(page_ids: list[int], places: Ints, page_size: int) -> Ints:
    return np.asarray(page_ids, np.int64)[places // page_size] * page_size + places % page_size


def _grouped(parts: list[_Rows]) -> list[list[_Rows]]:
    """Decoding sequences of like width and length together; each prefill chunk its own group, as it is wide enough alone."""
    groups = [[part] for part in parts if part.num_chunk > 1]
    decoding = sorted((p for p in parts if p.num_chunk == 1), key=lambda p: (_width(p), len(p.committed_pages)))
    current: list[_Rows] = []
    for part in decoding:
        if current:
            wasted = len(current) * (len(part.committed_pages) - len(current[-1].committed_pages))
            if _width(part) != _width(current[0]) or wasted > GROUP_COST_IN_PAGES:
                groups.append(current)
                current = []
        current.append(part)
    return groups + ([current] if current else [])


def _width(part: _Rows) -> int:
    return (part.num_rows - 1).bit_length()  # 1 | 2 | 3-4 | 5-8 | ...


def _group(parts: list[_Rows], trees: DraftTrees, page_size: int, windows: tuple[int | None, ...]) -> Group:
    width = max(part.num_rows for part in parts)
    first, num_rows = np.array([p.first for p in parts]), np.array([p.num_rows for p in parts])
    rows = first[:, None] + np.minimum(np.arange(width), num_rows[:, None] - 1)
    only = parts[0]
    if len(parts) == 1 and only.start == 0 and not only.num_nodes and all(w is None or w >= width for w in windows):
        return Group(rows, np.zeros((1, 0), np.int64), {}, causal=True)
    num_committed = max(len(part.committed_pages) for part in parts)
    num_staged = max(len(part.staged_pages) for part in parts)
    pages = np.zeros((len(parts), num_committed + num_staged), np.int64)
    for index, part in enumerate(parts):
        pages[index, : len(part.committed_pages)] = part.committed_pages
        pages[index, num_committed : num_committed + len(part.staged_pages)] = part.staged_pages
    layout = np.array([[p.start, p.num_chunk, p.num_nodes, p.first_node] for p in parts])
    masks: dict[int | None, NDArray[Any]] = {}
    for window in windows:
        mask = np.zeros((len(parts), width, pages.shape[1] * page_size), np.bool_)
        _fill_mask(mask, layout, trees.parents, trees.depths, num_committed * page_size, window or 0)
        masks[window] = mask
    return Group(rows, pages, masks, causal=False)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _fill_mask(mask, layout, parents, depths, num_committed_slots, window):  # type: ignore[no-untyped-def]
    """mask [B, Q, L] starts all False. Windows count positions, not slots: siblings in a tree share a position."""
    for b in range(mask.shape[0]):
        start, num_chunk, num_nodes, first_node = layout[b]
        end = start + num_chunk
        num_rows = num_chunk + num_nodes
        for q in range(mask.shape[1]):
            row = min(q, num_rows - 1)
            node = row - num_chunk  # from 0; below 0: a row of the chunk
            position = start + row if node < 0 else end - 1 + depths[first_node + node]
            oldest = max(0, position - window + 1) if window else 0
            for slot in range(oldest, min(position + 1, end)):
                mask[b, q, slot] = True
            while node >= 0:
                if end - 1 + depths[first_node + node] >= oldest:
                    mask[b, q, num_committed_slots + node] = True
                node = parents[first_node + node] - 1
