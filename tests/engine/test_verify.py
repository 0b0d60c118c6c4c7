"""Verification on literal trees, and against a walk that knows nothing of packed arrays."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from drafting.tree import DraftTrees, merge_drafts
from engine.verify import verify

Paths = list[list[int]]


def trees_of(*drafts_of_sequences: Paths, max_nodes: int = 64) -> DraftTrees:
    """Merges each sequence's drafts as the drafters do."""
    num_drafts = max((len(drafts) for drafts in drafts_of_sequences), default=0) or 1
    draft_len = max((len(draft) for drafts in drafts_of_sequences for draft in drafts), default=0) or 1
    tokens = np.zeros((1, len(drafts_of_sequences), num_drafts, draft_len), np.int32)
    lengths = np.zeros(tokens.shape[:3], np.int32)
    for b, drafts in enumerate(drafts_of_sequences):
        for k, draft in enumerate(drafts):
            tokens[0, b, k, : len(draft)] = draft
            lengths[0, b, k] = len(draft)
    depths = np.full(len(drafts_of_sequences), draft_len, np.int32)
    return merge_drafts(tokens, lengths, depths, num_drafts, max_nodes, np.zeros(len(tokens), np.uint8))


def accepted(trees: DraftTrees, targets: list[int]) -> list[tuple[list[int], int]]:
    """(accepted node indices within the packed arrays, bonus) of each sequence."""
    result = verify(trees, np.array(targets, np.int64))
    pairs = zip(result.offsets[:-1], result.offsets[1:], strict=True)
    return [
        (result.nodes[a:b].tolist(), int(bonus)) for (a, b), bonus in zip(pairs, result.bonus, strict=True)
    ]


def test_a_draft_that_is_right_to_its_end_is_accepted_whole_and_the_bonus_follows_its_last_node():
    trees = trees_of([[7, 8, 9]])
    assert accepted(trees, [7, 8, 9, 4]) == [([0, 1, 2], 4)]


def test_the_first_wrong_node_ends_the_path_and_the_target_in_its_place_is_the_bonus():
    trees = trees_of([[7, 8, 9]])
    # After 7 the target says 5; that the node after 8 would again be right (9) must not matter.
    assert accepted(trees, [7, 5, 9, 4]) == [([0], 5)]


def test_nothing_is_accepted_when_the_first_token_is_wrong():
    trees = trees_of([[7, 8, 9]])
    assert accepted(trees, [3, 8, 9, 4]) == [([], 3)]


def test_a_sequence_without_drafts_gets_its_bonus_token():
    assert accepted(DraftTrees.empty(1), [6]) == [([], 6)]


def test_no_sequences_give_nothing():
    assert accepted(DraftTrees.empty(0), []) == []


def test_drafts_with_an_equal_beginning_share_nodes_and_the_walk_goes_on_in_the_right_branch():
    trees = trees_of([[7, 8, 9], [7, 5, 6]])
    assert trees.token_ids.tolist() == [7, 8, 9, 5, 6]  # not 7 twice
    assert trees.parents.tolist() == [0, 1, 2, 1, 4]
    # Targets after the root, 7, 8, 9, 5, 6.
    assert accepted(trees, [7, 5, 0, 0, 6, 2]) == [([0, 3, 4], 2)]


def test_of_two_drafts_that_are_both_right_so_far_the_longer_one_is_followed():
    trees = trees_of([[7], [7, 8]])
    assert trees.token_ids.tolist() == [7, 8]
    assert accepted(trees, [7, 8, 1]) == [([0, 1], 1)]


def test_the_same_token_under_another_parent_is_not_mistaken_for_the_right_one():
    trees = trees_of([[7, 8], [5, 9]])
    # After the root 7, after 7 comes 9: a node 9 exists, but under 5.
    assert accepted(trees, [7, 9, 0, 0, 0]) == [([0], 9)]


def test_of_equal_siblings_from_a_proposer_that_does_not_merge_the_first_is_taken():
    one = np.array([7, 7, 8], np.int32)
    two = np.array([0, 0, 2], np.int32)
    trees = DraftTrees(
        one,
        two,
        np.array([1, 1, 2], np.int32),
        np.zeros(3, np.uint8),
        np.zeros(3, np.uint8),
        np.array([0, 3]),
    )
    assert accepted(trees, [7, 8, 0, 0]) == [([0], 8)]


def test_each_sequence_of_a_batch_is_walked_on_its_own():
    trees = trees_of([[7, 8]], [], [[1], [2, 3]])
    assert trees.offsets.tolist() == [0, 2, 2, 5]
    #                        root 7  8 | root | root 1  2  3
    assert accepted(trees, [7, 8, 5, 11, 2, 0, 3, 9]) == [([0, 1], 5), ([], 11), ([3, 4], 9)]


TOKENS = st.integers(0, 3)
DRAFTS = st.lists(st.lists(TOKENS, min_size=1, max_size=5), max_size=6)


@settings(max_examples=200, deadline=None)
@given(st.lists(DRAFTS, max_size=4), st.integers(0, 2**32 - 1))
def test_the_accepted_path_is_the_longest_draft_that_a_plain_decoder_would_have_produced(
    drafts_of_sequences, seed
):
    """The target is a function of the path so far, as a model is; the oracle decodes with it and compares
    whole drafts.
    """
    trees = trees_of(*drafts_of_sequences)

    def target(sequence: int, path: tuple[int, ...]) -> int:
        return hash((seed, sequence, path)) % 4

    targets = []
    expected = []
    for b, drafts in enumerate(drafts_of_sequences):
        paths: list[tuple[int, ...]] = [()]
        for node in range(trees.offsets[b], trees.offsets[b + 1]):
            paths.append((*paths[trees.parents[node]], int(trees.token_ids[node])))
        targets += [target(b, path) for path in paths]
        text: list[int] = []
        while any(draft[: len(text) + 1] == [*text, target(b, tuple(text))] for draft in drafts):
            text.append(target(b, tuple(text)))
        expected.append((text, target(b, tuple(text))))
    found = accepted(trees, targets)
    assert [([int(trees.token_ids[node]) for node in nodes], bonus) for nodes, bonus in found] == expected
