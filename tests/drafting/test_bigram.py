"""Bigram tables and the drafts chained from them, and the unigram list."""

import numpy as np

from drafting.bigram import NO_TOKEN, empty_table, fill_bigram_drafts, learn_successors
from drafting.tree import Int32
from drafting.unigram import fill_unigram_drafts, nearest_to_mean


def ids(*tokens: int) -> Int32:
    return np.array(tokens, np.int32)


def bigram_drafts(
    table: Int32, last_id: int, depth: int, num_drafts: int, draft_len: int = 3
) -> list[list[int]]:
    drafts = np.full((1, num_drafts, draft_len), -7, np.int32)
    lengths = np.zeros((1, num_drafts), np.int32)
    fill_bigram_drafts(table, ids(last_id), ids(depth), drafts, lengths)
    return [draft[:size].tolist() for draft, size in zip(drafts[0], lengths[0], strict=True) if size]


TABLE = np.array([[1, 2], [3, 0], [0, 3], [3, 1]], np.int32)


def test_each_successor_is_extended_by_first_successors() -> None:
    assert bigram_drafts(TABLE, last_id=0, depth=3, num_drafts=2) == [
        [1, 3, 3],
        [2, 0, 1],
    ]  # not by its own rank


def test_drafts_are_no_deeper_than_allowed_and_no_more_than_the_table_has() -> None:
    assert bigram_drafts(TABLE, last_id=0, depth=2, num_drafts=4) == [[1, 3], [2, 0]]
    assert bigram_drafts(TABLE, last_id=0, depth=0, num_drafts=4) == []
    assert bigram_drafts(TABLE, last_id=0, depth=99, num_drafts=1) == [[1, 3, 3]]  # draft_len is 3


def test_a_token_outside_the_table_gives_no_draft_and_ends_a_chain() -> None:
    assert bigram_drafts(TABLE, last_id=4, depth=3, num_drafts=2) == []
    assert bigram_drafts(np.array([[9]], np.int32), last_id=0, depth=3, num_drafts=2) == [[9]]


def test_text_teaches_the_successor_seen_last_first() -> None:
    table = empty_table(10, 2)
    learn_successors(table, ids(5, 6, 5, 7))
    assert table[5].tolist() == [7, 6]
    assert table[7].tolist() == [NO_TOKEN, NO_TOKEN]


def test_a_successor_seen_again_moves_to_the_front_and_the_oldest_drops_out() -> None:
    table = empty_table(10, 2)
    learn_successors(table, ids(5, 6, 5, 7, 5, 6))
    assert table[5].tolist() == [6, 7]
    learn_successors(table, ids(5, 8))
    assert table[5].tolist() == [8, 6]


def test_unlearned_successors_end_a_chain() -> None:
    table = empty_table(10, 2)
    learn_successors(table, ids(5, 6))
    assert bigram_drafts(table, last_id=5, depth=3, num_drafts=2) == [[6]]


def test_the_unigram_list_ranks_by_distance_to_the_mean_not_by_lowest_inner_product() -> None:
    # Mean output embedding [2, 0]; distances 0, 2, 2, 4, 4. The listing's -<mean, u> would put token 4 first.
    output = np.array([[2, 0], [4, 0], [0, 0], [6, 0], [-2, 0]], np.float32)
    inputs = np.array([[1, 0], [0, 1]], np.float32)
    assert nearest_to_mean(inputs, output, 5).tolist() == [0, 1, 2, 3, 4]


def test_the_unigram_distance_is_measured_by_the_input_embeddings() -> None:
    output = np.array([[1, 0], [-1, 0], [0, 3], [0, -3]], np.float32)  # mean 0
    flat = np.array(
        [[5, 0]], np.float32
    )  # sees the first axis only, so the far tokens 2 and 3 are at distance 0
    assert nearest_to_mean(flat, output, 2).tolist() == [2, 3]
    assert nearest_to_mean(np.eye(2, dtype=np.float32), output, 2).tolist() == [0, 1]


def test_unigram_drafts_are_single_tokens_where_any_are_allowed() -> None:
    drafts = np.full((2, 3, 2), -7, np.int32)
    lengths = np.zeros((2, 3), np.int32)
    fill_unigram_drafts(ids(8, 9), ids(2, 0), drafts, lengths)
    assert lengths.tolist() == [[1, 1, 0], [0, 0, 0]]
    assert drafts[0, :2, 0].tolist() == [8, 9]
