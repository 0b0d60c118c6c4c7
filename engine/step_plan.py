"""The packed tokens of one step: what goes into the model, where K/V is written, who attends to what.

Host side, numpy only. The packed tokens of a sequence are its chunk of known tokens, then the nodes of its
draft tree. The K/V of a chunk is written straight to its final slots, since its tokens are committed already;
the K/V of a node goes to a staging page, from where accepted nodes are copied later. So every packed token
sees the committed slots up to its own position, and the staged nodes on its path.

Letters: C chunks, T packed tokens of the step, B sequences of an attention call, Q packed tokens of its
widest sequence, P pages (committed, then staging), S slots per page, L = P x S key columns.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from drafting.compiled import compiled, record
from drafting.tree import DraftTrees, Int32
from engine.page_table import PageTable
from engine.scheduler import Chunk

Ints = NDArray[np.int64]
Masks = NDArray[np.float32]
Records = NDArray[np.void]
Windows = tuple[int | None, ...]
# One more attention call costs about as much as attending to this many pages in vain (measured on a CPU).
CALL_COST_IN_PAGES = 64

# Where the packed tokens of one sequence lie. It owns packed tokens first .. first + width - 1: its chunk,
# then its nodes. Their positions begin at `start`; `node` is its first node in the packed trees; `num_pages`
# of its pages hold committed tokens, and its nodes begin in page `staging_page`.
SPAN = record(int64="first start width num_nodes node num_pages staging_page", bool="is_last")


class AttentionCall(NamedTuple):
    """Sequences that attend in one call.

    tokens int64 [B, Q]: indices of their packed tokens; a short sequence repeats its last. in_order: the
    tokens follow each other, none twice. pages int64 [B, P]. masks float32 [B, Q, L] by attention window
    (None = unlimited): 0 is seen, -inf is hidden. Two kinds of calls need neither
    pages nor masks. visible: the one packed token of a sequence sees `count` slots from `first` on; causal: a
    fresh prompt sees its own tokens only.
    """

    tokens: Ints
    in_order: bool
    pages: Ints
    masks: dict[int | None, Masks]
    visible: tuple[int, int] | None = None
    causal: bool = False


class Packed(NamedTuple):
    """What goes into the model. token_ids, positions, write_slots int64 [T]: of the packed tokens.

    logits_indices int64 [R]: for each chunk that is the last of its sequence, its last packed token and its
    nodes, in the order of the chunks. staged_slots int64 [N]: where the K/V of each node waits.
    """

    token_ids: Ints
    positions: Ints
    write_slots: Ints
    logits_indices: Ints
    staged_slots: Ints


class StepPlan(NamedTuple):
    """The packed tokens of a step, and the calls by which they attend."""

    packed: Packed
    calls: list[AttentionCall]


class Planner:
    """Plans the steps of one cache: pages of page_size slots, staging pages from first_staging_page on."""

    def __init__(self, page_size: int, first_staging_page: int) -> None:
        self.page_size = page_size
        self.first_staging_page = first_staging_page
        self._page_table = PageTable()

    def plan(self, chunks: list[Chunk], trees: DraftTrees, windows: Windows) -> StepPlan:
        """The packed tokens of a step; trees: one per chunk, empty where the chunk is not the last."""
        starts = [chunk.sequence.num_cached for chunk in chunks]
        sizes = [chunk.num_tokens for chunk in chunks]
        is_last = [chunk.last for chunk in chunks]
        known = np.array([starts, sizes, is_last], np.int64)
        page_table = self._page_table.of([chunk.sequence.page_ids for chunk in chunks])
        spans = np.empty(len(chunks), SPAN)
        packed, members, ends = _arrange(
            spans,
            known,
            page_table,
            _chunk_ids(chunks),
            trees.offsets,
            trees.token_ids,
            trees.depths,
            self.page_size,
            self.first_staging_page,
        )
        calls = []
        first = 0
        for end in ends.tolist():
            calls.append(self._call(spans, page_table, members[first:end], trees, windows))
            first = end
        return StepPlan(packed, calls)

    def _call(
        self, spans: Records, page_table: Ints, members: Ints, trees: DraftTrees, windows: Windows
    ) -> AttentionCall:
        if len(members) == 1:
            simple = self._simple_call(spans[members[0]], page_table[members[0]], windows)
            if simple:
                return simple
        limits = _limits(windows)
        tokens, in_order, pages, masks = _arrays(
            spans, page_table, members, trees.parents, trees.depths, self.page_size, limits
        )
        return AttentionCall(tokens, in_order, pages, dict(zip(windows, masks, strict=True)))

    def _simple_call(self, span: Any, own_pages: Ints, windows: Windows) -> AttentionCall | None:
        """A call without pages and masks, where a single sequence can do without."""
        first, start, width, num_nodes, _, num_pages, _, _ = span.item()
        if num_nodes or any(window is not None and window < start + width for window in windows):
            return None
        tokens = np.arange(first, first + width)[None]
        none = np.zeros((1, 0), np.int64)
        if start == 0:
            return AttentionCall(tokens, True, none, {}, causal=True)
        first_page = int(own_pages[0])
        if width == 1 and (own_pages[:num_pages] == np.arange(first_page, first_page + num_pages)).all():
            visible = (first_page * self.page_size, start + 1)
            return AttentionCall(tokens, True, none, {}, visible=visible)
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
    parts = [sequence.token_ids[start : start + count] for sequence, start, count in starts]
    return np.concatenate(parts).astype(np.int64)


@compiled  # one call from Python in place of three: each takes some microseconds with an array of records
def _arrange(
    spans: Records,
    known: Ints,
    page_table: Ints,
    chunk_ids: Ints,
    node_offsets: Ints,
    node_ids: Int32,
    depths: Int32,
    page_size: int,
    staging_page: int,
) -> tuple[Packed, Ints, Ints]:
    """Lays out the spans, packs the tokens, and groups the chunks into attention calls."""
    _lay_out(spans, known, node_offsets, page_size, staging_page)
    packed = _pack(spans, page_table, chunk_ids, node_ids, depths, page_size)
    members, ends = _group(spans)
    return packed, members, ends


@compiled
def _lay_out(
    spans: Records,
    known: Ints,
    node_offsets: Ints,
    page_size: int,
    staging_page: int,
) -> None:
    """Fills in the spans. known [3, C]: start, number of tokens and `last` of each chunk."""
    starts = known[0]
    sizes = known[1]
    is_last = known[2]
    first = 0
    for c in range(len(spans)):
        span = spans[c]
        num_nodes = node_offsets[c + 1] - node_offsets[c]
        span.first = first
        span.start = starts[c]
        span.width = sizes[c] + num_nodes
        span.num_nodes = num_nodes
        span.node = node_offsets[c]
        span.num_pages = -(-(starts[c] + sizes[c]) // page_size)
        span.staging_page = staging_page
        span.is_last = is_last[c] > 0
        first += span.width
        staging_page += -(-num_nodes // page_size)


@compiled
def _pack(
    spans: Records, page_table: Ints, chunk_ids: Ints, node_ids: Int32, depths: Int32, page_size: int
) -> Packed:
    num_tokens = spans[-1].first + spans[-1].width
    token_ids = np.empty(num_tokens, np.int64)
    positions = np.empty(num_tokens, np.int64)
    slots = np.empty(num_tokens, np.int64)
    logits_indices = np.empty(num_tokens, np.int64)
    staged_slots = np.empty(len(node_ids), np.int64)
    taken = 0
    num_logits = 0
    for c in range(len(spans)):
        span = spans[c]
        size = span.width - span.num_nodes
        for i in range(size):
            position = span.start + i
            token_ids[span.first + i] = chunk_ids[taken + i]
            positions[span.first + i] = position
            page = page_table[c, position // page_size]
            slots[span.first + i] = page * page_size + position % page_size
        taken += size
        for i in range(span.num_nodes):
            token = span.first + size + i
            node = span.node + i
            token_ids[token] = node_ids[node]
            positions[token] = span.start + size - 1 + depths[node]
            slots[token] = span.staging_page * page_size + i
            staged_slots[node] = slots[token]
        if span.is_last:
            for token in range(span.first + size - 1, span.first + span.width):
                logits_indices[num_logits] = token
                num_logits += 1
    return Packed(token_ids, positions, slots, logits_indices[:num_logits], staged_slots)


@compiled
def _group(spans: Records) -> tuple[Ints, Ints]:
    """Puts decoding sequences of like width and length together; a prefill chunk is wide enough to attend
    alone.

    Returns the chunks of all attention calls, and where each call ends in them.
    """
    members = np.empty(len(spans), np.int64)
    ends = np.empty(len(spans), np.int64)
    keys = np.empty(len(spans), np.int64)
    count = 0
    num_calls = 0
    for c in range(len(spans)):
        if spans[c].width - spans[c].num_nodes > 1:
            members[count] = c
            count += 1
            ends[num_calls] = count
            num_calls += 1
    first = count
    for c in range(len(spans)):
        span = spans[c]
        if span.width - span.num_nodes == 1:
            width_class = 0  # 1 | 2 | 3-4 | 5-8 | ... packed tokens
            while span.width > 1 << width_class:
                width_class += 1
            key = (width_class << 32) + span.num_pages
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
        if i == count or (keys[i] >> 32) != (keys[begin] >> 32) or _is_costly(keys, begin, i):
            ends[num_calls] = i
            num_calls += 1
            begin = i
    return members, ends[:num_calls]


@compiled
def _is_costly(keys: Ints, begin: int, i: int) -> bool:
    """Whether it costs more to widen the call of sequences begin to i - 1 to the pages of sequence i than to
    give sequence i a call of its own.
    """
    return bool((i - begin) * (keys[i] - keys[i - 1]) > CALL_COST_IN_PAGES)


@compiled
def _arrays(
    spans: Records,
    page_table: Ints,
    members: Ints,
    parents: Int32,
    depths: Int32,
    page_size: int,
    windows: Ints,
) -> tuple[Ints, bool, Ints, Masks]:
    """tokens, in_order and pages of an AttentionCall, and its masks [W, B, Q, L]; windows [W], 0 = unlimited.

    A sequence with fewer pages than the longest of the call, or with fewer nodes than the widest, gets its
    own first page in their place, and the mask hides it. A page of another sequence will not do: a NaN in
    it would come through the mask, because NaN times zero is NaN.
    """
    num_committed = 0
    num_nodes = 0
    width = 0
    for c in members:
        num_committed = max(num_committed, spans[c].num_pages)
        num_nodes = max(num_nodes, spans[c].num_nodes)
        width = max(width, spans[c].width)
    tokens = np.empty((len(members), width), np.int64)
    pages = np.empty((len(members), num_committed + -(-num_nodes // page_size)), np.int64)
    shape = (len(windows), len(members), width, pages.shape[1] * page_size)
    masks = np.full(shape, -np.inf, np.float32)
    in_order = True
    for b, c in enumerate(members):
        span = spans[c]
        follows = span.first == spans[members[0]].first + b * width
        in_order = in_order and span.width == width and follows
        for q in range(width):
            tokens[b, q] = span.first + min(q, span.width - 1)
        pages[b] = page_table[c, 0]
        for p in range(span.num_pages):
            pages[b, p] = page_table[c, p]
        for p in range(-(-span.num_nodes // page_size)):
            pages[b, num_committed + p] = span.staging_page + p
        for w in range(len(windows)):
            _fill_mask(masks[w, b], span, parents, depths, num_committed * page_size, windows[w])
    return tokens, in_order, pages, masks


@compiled
def _fill_mask(
    mask: Masks, span: Any, parents: Int32, depths: Int32, num_committed_slots: int, window: int
) -> None:
    """Shows each packed token of a sequence what it sees; the mask [Q, L] starts all hidden.

    Windows count positions, not slots: siblings in a tree share a position.
    """
    size = span.width - span.num_nodes
    end = span.start + size
    for q in range(mask.shape[0]):
        token = min(q, span.width - 1)
        node = token - size  # counted from 0; below 0 it is a token of the chunk
        position = span.start + token if node < 0 else end - 1 + depths[span.node + node]
        oldest = max(0, position - window + 1) if window else 0
        mask[q, oldest : min(position + 1, end)] = 0
        while node >= 0:
            if end - 1 + depths[span.node + node] >= oldest:
                mask[q, num_committed_slots + node] = 0
            node = parents[span.node + node] - 1
