"""The merge of drafts into trees against trees made by hand, and against a merge of prefixes in
plain Python.
"""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from drafting.tree import DraftTrees, merge_drafts, walk

NO_LIMIT = 1000


def merged(
    *by_source: list[list[list[int]]],
    max_depths: list[int] | None = None,
    num_drafts: int = 10,
    max_nodes: int = 100,
) -> DraftTrees:
    """by_source[s][b]: the drafts of sequence b from source s, best first."""
    num_sequences = len(by_source[0])
    most = max([len(drafts) for source in by_source for drafts in source] + [1])
    longest = max([len(draft) for source in by_source for drafts in source for draft in drafts] + [1])
    drafts_SBKW = np.full((len(by_source), num_sequences, most, longest), -7, np.int32)
    lengths_SBK = np.zeros((len(by_source), num_sequences, most), np.int32)
    for s, source in enumerate(by_source):
        for b, drafts in enumerate(source):
            for k, draft in enumerate(drafts):
                drafts_SBKW[s, b, k, : len(draft)] = draft
                lengths_SBK[s, b, k] = len(draft)
    depths = np.array(max_depths or [NO_LIMIT] * num_sequences, np.int32)
    return merge_drafts(
        drafts_SBKW, lengths_SBK, depths, num_drafts, max_nodes, np.zeros(len(lengths_SBK), np.uint8)
    )


def as_lists(trees: DraftTrees) -> tuple[list[int], ...]:
    return (
        trees.token_ids.tolist(),
        trees.parents.tolist(),
        trees.depths.tolist(),
        trees.sources.tolist(),
        trees.offsets.tolist(),
    )


def test_equal_beginnings_become_one_node() -> None:
    assert as_lists(merged([[[7, 8, 9], [7, 8, 5]]])) == (
        [7, 8, 9, 5],
        [0, 1, 2, 2],
        [1, 2, 3, 3],
        [0, 0, 0, 0],
        [0, 4],
    )


def test_equal_tokens_under_different_parents_stay_apart() -> None:
    assert as_lists(merged([[[7, 9], [8, 9]]]))[:2] == ([7, 9, 8, 9], [0, 1, 0, 3])


def test_a_node_belongs_to_the_first_source_that_held_it() -> None:
    assert as_lists(merged([[[7, 8]]], [[[7, 9]]]))[3] == [0, 0, 1]


def test_parents_count_from_each_sequences_own_root() -> None:
    trees = merged([[[1, 2]], [], [[3, 4]]])
    assert as_lists(trees) == ([1, 2, 3, 4], [0, 1, 0, 1], [1, 2, 1, 2], [0, 0, 0, 0], [0, 2, 2, 4])
    assert [trees.num_nodes(b) for b in range(3)] == [2, 0, 2]


def test_a_draft_that_came_before_does_not_count() -> None:
    assert merged([[[7, 8]]], [[[7, 8], [5, 5], [6, 6]]], num_drafts=2).token_ids.tolist() == [7, 8, 5, 5]


def test_a_draft_that_only_begins_an_earlier_one_counts_without_adding_nodes() -> None:
    assert merged([[[7, 8], [7], [6]]], num_drafts=2).token_ids.tolist() == [7, 8]


def test_drafts_that_depth_makes_equal_count_once() -> None:
    assert merged([[[7, 8], [7, 9], [5, 5]]], max_depths=[1], num_drafts=2).token_ids.tolist() == [7, 5]


def test_depth_zero_means_no_tree() -> None:
    assert as_lists(merged([[[7, 8]], [[5]]], max_depths=[0, 1]))[::4] == ([5], [0, 0, 1])


def test_earlier_drafts_get_the_nodes_that_are_allowed() -> None:
    assert as_lists(merged([[[7, 8], [7, 9, 9], [5]]], max_nodes=3))[:2] == ([7, 8, 9], [0, 1, 1])


def test_the_empty_batch_has_no_trees() -> None:
    assert as_lists(DraftTrees.empty(2)) == ([], [], [], [], [0, 0, 0])


def test_the_walk_follows_the_target_as_far_as_the_tree_goes() -> None:
    trees = merged([[[1]], [[7, 8, 9], [7, 5, 4]]])
    assert walk(trees, 1, np.array([7, 5, 4, 3], np.int32)).tolist() == [1, 4, 5]
    assert walk(trees, 1, np.array([7, 5, 9], np.int32)).tolist() == [1, 4]  # 9 is there, but under 8
    assert walk(trees, 1, np.array([7], np.int32)).tolist() == [1]  # the recording ends inside the draft
    assert walk(trees, 1, np.array([8, 9], np.int32)).tolist() == []
    assert walk(trees, 0, np.array([7], np.int32)).tolist() == []


def prefixes_in_order(
    by_source: list[list[list[int]]], depth: int, num_drafts: int, max_nodes: int
) -> list[tuple[tuple[int, ...], int]]:
    nodes: dict[tuple[int, ...], int] = {}
    taken: set[tuple[int, ...]] = set()
    for source, drafts in enumerate(by_source):
        for draft in drafts:
            cut = tuple(draft[:depth])
            if cut and len(taken) < num_drafts:
                taken.add(cut)
                for size in range(1, len(cut) + 1):
                    if len(nodes) < max_nodes:
                        nodes.setdefault(cut[:size], source)
    return list(nodes.items())


sequence_drafts = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), max_size=5)


@given(
    st.lists(st.tuples(sequence_drafts, sequence_drafts, st.integers(0, 5)), min_size=1, max_size=3),
    st.integers(1, 6),
    st.integers(1, 12),
)
def test_trees_hold_the_distinct_beginnings_in_order(
    sequences: list[tuple[list[list[int]], list[list[int]], int]], num_drafts: int, max_nodes: int
) -> None:
    first, second, depths = (list(column) for column in zip(*sequences, strict=True))
    trees = merged(first, second, max_depths=depths, num_drafts=num_drafts, max_nodes=max_nodes)
    for b, (drafts, more, depth) in enumerate(sequences):
        own = slice(trees.offsets[b], trees.offsets[b + 1])
        paths: list[tuple[int, ...]] = [()]
        for token, parent in zip(trees.token_ids[own], trees.parents[own], strict=True):
            paths.append((*paths[parent], int(token)))
        found = list(zip(paths[1:], trees.sources[own].tolist(), strict=True))
        assert found == prefixes_in_order([drafts, more], depth, num_drafts, max_nodes)
        assert trees.depths[own].tolist() == [len(path) for path in paths[1:]]
