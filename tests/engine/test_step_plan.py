"""A step's packed rows by hand, and its masks against an oracle that reads the tree node by node."""

import random

import numpy as np
import pytest

from drafting.tree import DraftTrees
from engine.request import Request
from engine.scheduler import Chunk
from engine.sequence import Sequence
from engine.step_plan import AttentionCall, Planner, StepPlan
from tests.engine.harness import packed

STAGING = 100  # the first staging page


def chunk(token_ids: list[int], num_cached: int, num_rows: int, page_ids: list[int]) -> Chunk:
    sequence = Sequence(Request("a", tuple(token_ids), 100), frozenset(), 1000)
    sequence.num_cached = num_cached
    sequence.page_ids = page_ids
    return Chunk(sequence, num_rows, num_rows == sequence.num_uncached)


def plan(
    chunks: list[Chunk],
    trees: DraftTrees | None = None,
    page_size: int = 4,
    windows: tuple[int | None, ...] = (None,),
) -> StepPlan:
    return Planner(page_size, STAGING).plan(chunks, trees or DraftTrees.empty(len(chunks)), windows)


def visible(
    call: AttentionCall, plan: StepPlan, page_size: int, window: int | None = None
) -> dict[int, set[int]]:
    """The slots that each packed token attends to; a repeated token must see what the original sees."""
    seen: dict[int, set[int]] = {}
    for tokens, pages, b in zip(call.tokens, call.pages, range(len(call.tokens)), strict=True):
        slots = (pages[:, None] * page_size + np.arange(page_size)).ravel()
        for q, token in enumerate(tokens.tolist()):
            if call.causal:
                allowed = set(plan.packed.write_slots[tokens[: q + 1]].tolist())
            elif call.masks:
                allowed = set(slots[call.masks[window][b, q] == 0].tolist())
                assert len(allowed) == (call.masks[window][b, q] == 0).sum(), "a slot is seen twice"
            else:
                first, count = call.visible
                allowed = set(range(first, first + count))
            assert seen.setdefault(token, allowed) == allowed
    return seen


def test_a_decoding_sequence_runs_its_last_token_and_sees_all_tokens_up_to_it():
    step = plan([chunk([11, 12, 13, 14, 15, 16], 5, 1, page_ids=[7, 2])])
    assert (step.packed.token_ids.tolist(), step.packed.positions.tolist()) == ([16], [5])
    assert step.packed.write_slots.tolist() == [2 * 4 + 1]
    assert (step.packed.logits_indices.tolist(), step.packed.staged_slots.tolist()) == ([0], [])
    (call,) = step.calls
    assert visible(call, step, 4) == {0: {28, 29, 30, 31, 8, 9}}


def test_a_sequence_alone_whose_pages_follow_each_other_is_read_in_place():
    (call,) = plan([chunk([11, 12, 13, 14, 15, 16], 5, 1, page_ids=[7, 8])]).calls
    assert (call.visible, call.pages.size, call.masks) == ((28, 6), 0, {})
    (scattered,) = plan([chunk([11, 12, 13, 14, 15, 16], 5, 1, page_ids=[8, 7])]).calls
    assert scattered.visible is None
    assert scattered.pages.tolist() == [[8, 7]]


def test_a_fresh_prompt_is_causal_and_touches_no_page_when_it_attends():
    step = plan([chunk([11, 12, 13, 14, 15], 0, 5, page_ids=[3, 9])])
    assert step.packed.token_ids.tolist() == [11, 12, 13, 14, 15]
    assert step.packed.positions.tolist() == [0, 1, 2, 3, 4]
    assert step.packed.write_slots.tolist() == [12, 13, 14, 15, 36]
    assert step.packed.logits_indices.tolist() == [4]
    (call,) = step.calls
    assert call.causal
    assert call.pages.shape == (1, 0)


def test_a_chunk_that_is_not_the_last_needs_no_logits():
    step = plan([chunk([11, 12, 13, 14, 15], 0, 3, page_ids=[3, 9])])
    assert (step.packed.token_ids.tolist(), step.packed.logits_indices.tolist()) == ([11, 12, 13], [])


def test_a_later_chunk_sees_what_was_cached_before_it_and_itself_causally():
    step = plan([chunk([11, 12, 13, 14, 15], 3, 2, page_ids=[3, 9])])
    assert step.packed.positions.tolist() == [3, 4]
    assert step.packed.write_slots.tolist() == [15, 36]
    assert step.packed.logits_indices.tolist() == [1]
    (call,) = step.calls
    assert visible(call, step, 4) == {0: {12, 13, 14, 15}, 1: {12, 13, 14, 15, 36}}


# 21 -> 22, 21 -> 23 -> 24, and 25 beside 21: depths 1 2 2 3 1.
TREE = [(21, 0, 0), (22, 1, 0), (23, 1, 0), (24, 3, 0), (25, 0, 0)]


def test_the_nodes_of_a_tree_are_staged_at_positions_by_depth_and_see_their_ancestors_only():
    step = plan([chunk([11, 12, 13], 2, 1, page_ids=[6])], packed([TREE]))
    assert step.packed.token_ids.tolist() == [13, 21, 22, 23, 24, 25]
    assert step.packed.positions.tolist() == [2, 3, 4, 4, 5, 3]  # 22 and 23 share a position, as do 21 and 25
    assert step.packed.write_slots.tolist() == [26, 400, 401, 402, 403, 404]
    assert step.packed.staged_slots.tolist() == [400, 401, 402, 403, 404]
    assert step.packed.logits_indices.tolist() == [0, 1, 2, 3, 4, 5]
    (call,) = step.calls
    prefix = {24, 25, 26}
    assert visible(call, step, 4) == {
        0: prefix,
        1: prefix | {400},
        2: prefix | {400, 401},
        3: prefix | {400, 402},  # not 401, its sibling
        4: prefix | {400, 402, 403},
        5: prefix | {404},
    }


def test_a_window_counts_positions_not_slots():
    step = plan([chunk([11, 12, 13], 2, 1, page_ids=[6])], packed([TREE]), windows=(3,))
    (call,) = step.calls
    assert visible(call, step, 4, window=3) == {
        0: {24, 25, 26},
        1: {25, 26, 400},  # position 3 sees positions 1, 2, 3
        2: {26, 400, 401},
        3: {26, 400, 402},  # position 4: counted by slots, sibling 401 would have pushed 26 out
        4: {400, 402, 403},  # position 5 sees no committed token any more
        5: {25, 26, 404},
    }


def test_a_window_shorter_than_the_path_hides_ancestors_too():
    step = plan(
        [chunk([11], 0, 1, page_ids=[6])], packed([[(21, 0, 0), (22, 1, 0), (23, 2, 0)]]), windows=(2,)
    )
    (call,) = step.calls
    assert visible(call, step, 4, window=2) == {0: {24}, 1: {24, 400}, 2: {400, 401}, 3: {401, 402}}


def test_a_prompt_longer_than_the_window_is_not_plainly_causal():
    step = plan([chunk([11, 12, 13, 14], 0, 4, page_ids=[0])], windows=(2,))
    (call,) = step.calls
    assert not call.causal
    assert visible(call, step, 4, window=2) == {0: {0}, 1: {0, 1}, 2: {1, 2}, 3: {2, 3}}


def test_each_kind_of_layer_gets_its_own_mask():
    step = plan([chunk([11, 12, 13, 14], 3, 1, page_ids=[0])], packed([[(21, 0, 0)]]), windows=(None, 2))
    (call,) = step.calls
    assert visible(call, step, 4) == {0: {0, 1, 2, 3}, 1: {0, 1, 2, 3, 400}}
    assert visible(call, step, 4, window=2) == {0: {2, 3}, 1: {3, 400}}


def test_sequences_of_a_step_lie_behind_one_another_and_stage_on_pages_of_their_own():
    chunks = [chunk([11, 12], 1, 1, [0]), chunk([13, 14, 15], 2, 1, [1]), chunk([16, 17, 18, 19], 0, 3, [2])]
    trees = packed([[(21, 0, 0), (22, 1, 0)], [(23, 0, 0)], []])
    step = plan(chunks, trees, page_size=4)
    assert step.packed.token_ids.tolist() == [12, 21, 22, 15, 23, 16, 17, 18]
    assert step.packed.positions.tolist() == [1, 2, 3, 2, 3, 0, 1, 2]
    assert step.packed.staged_slots.tolist() == [400, 401, 404]  # the second sequence's node on the next page
    assert step.packed.logits_indices.tolist() == [0, 1, 2, 3, 4]  # the prompt's chunk is not its last


def test_decoding_sequences_of_like_length_attend_together_and_each_prompt_alone():
    chunks = [
        chunk([1] * 6, 5, 1, [0, 1]),
        chunk([1] * 7, 6, 1, [2, 3]),
        chunk([1] * 5, 0, 5, [4, 5]),
        chunk([1] * 3, 0, 3, [6]),
    ]
    assert [call.tokens.tolist() for call in plan(chunks).calls] == [
        [[2, 3, 4, 5, 6]],
        [[7, 8, 9]],
        [[0], [1]],
    ]


def test_one_long_context_does_not_pad_many_short_ones():
    short = [chunk([1] * 4, 3, 1, [n]) for n in range(15)]
    long = chunk([1] * 400, 399, 1, list(range(119, 19, -1)))
    widths = [(call.tokens.shape[0], call.pages.shape[1]) for call in plan([*short, long]).calls]
    assert widths == [(15, 1), (1, 100)]


def test_a_narrow_tree_in_a_wider_group_repeats_its_last_row():
    chunks = [chunk([11, 12], 1, 1, [0]), chunk([13, 14], 1, 1, [1])]
    trees = packed([[(21, 0, 0), (22, 1, 0)], [(23, 0, 0), (24, 1, 0), (25, 2, 0)]])
    step = plan(chunks, trees)
    (call,) = step.calls
    assert call.tokens.tolist() == [[0, 1, 2, 2], [3, 4, 5, 6]]


def random_chunks(rng, page_size):
    """One to six sequences at random places of their prompts, on pages in random order; trees for those at
    their last token.
    """
    free = rng.sample(range(STAGING), STAGING)
    chunks = []
    trees = []
    for _ in range(rng.randint(1, 6)):
        length = rng.randint(1, 12)
        num_cached = rng.choice([0, length - 1, rng.randrange(length)])
        num_rows = rng.choice([length - num_cached, rng.randint(1, length - num_cached)])
        pages = [free.pop() for _ in range(-(-length // page_size))]
        chunks.append(chunk([rng.randrange(50) for _ in range(length)], num_cached, num_rows, pages))
        num_nodes = rng.choice([0, 0, rng.randint(1, 9)]) if chunks[-1].last else 0
        trees.append([(rng.randrange(50), rng.randint(0, index), 0) for index in range(num_nodes)])
    return chunks, trees


@pytest.mark.parametrize("seed", range(60))
def test_any_step_shows_each_row_its_own_past_and_nothing_else(seed):
    """The oracle follows parents from node to root, by positions; the plan packs, groups, pages and masks."""
    rng = random.Random(seed)
    page_size = rng.choice([1, 3, 4, 16])
    windows = rng.choice([(None,), (5,), (None, 7), (1,)])
    chunks, trees = random_chunks(rng, page_size)
    step = plan(chunks, packed(trees), page_size, windows)

    expected: dict[int | None, dict[int, set[int]]] = {window: {} for window in windows}
    row = 0
    staged = iter(step.packed.staged_slots.tolist())
    for one, nodes in zip(chunks, trees, strict=True):
        pages = one.sequence.page_ids

        def place(position: int, pages: list[int] = pages) -> int:
            return pages[position // page_size] * page_size + position % page_size

        start = one.sequence.num_cached
        paths = [
            {position: place(position) for position in range(start + i + 1)} for i in range(one.num_tokens)
        ]
        below = [paths[-1]]
        for _, parent, _ in nodes:
            below.append({**below[parent], max(below[parent]) + 1: next(staged)})
        for path in [*paths, *below[1:]]:
            position = max(path)
            assert step.packed.positions[row] == position
            assert step.packed.write_slots[row] == path[position]
            for window in windows:
                expected[window][row] = {
                    slot for p, slot in path.items() if window is None or p > position - window
                }
            row += 1
    assert row == len(step.packed.token_ids)
    assert len(set(step.packed.write_slots.tolist())) == row, "two rows write to one slot"
    for window in windows:
        found: dict[int, set[int]] = {}
        for call in step.calls:
            part = visible(call, step, page_size, window)
            assert not part.keys() & found.keys(), "a row attends twice"
            found |= part
        assert found == expected[window]
