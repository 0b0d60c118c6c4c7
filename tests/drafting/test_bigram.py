"""Bigram tables and the drafts chained from them, and the unigram list."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from drafting.bigram import (
    BY_RANK,
    NO_TOKEN,
    empty_table,
    fill_bigram_drafts,
    learn_packed,
    learn_successors,
    packed_table,
    recycle_successors,
)
from drafting.likely import LOGPROB_BITS, MAX_ID, NUM_LEVELS, UNKNOWN, UInt32
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


def tokens_of(table: UInt32) -> list[list[int]]:
    """The successors of a packed table, NO_TOKEN where there is none."""
    return np.where(table == UNKNOWN, NO_TOKEN, (table >> LOGPROB_BITS).astype(np.int64)).tolist()


@given(st.lists(st.integers(0, 5), max_size=60), st.lists(st.integers(0, 5), max_size=60), st.integers(0, 4))
def test_a_packed_table_learns_from_text_what_a_plain_one_does(
    text: list[int], more: list[int], num_successors: int
) -> None:
    plain = empty_table(6, num_successors)
    table = packed_table(plain, None)
    for part in (text, more):
        learn_successors(plain, ids(*part))
        learn_packed(table, ids(*part))
        assert tokens_of(table) == plain.tolist()
    known = table != UNKNOWN
    ranks = np.broadcast_to(np.arange(num_successors), table.shape)[known]
    levels = (table & (NUM_LEVELS - 1))[known] / 256
    np.testing.assert_allclose(levels, -BY_RANK[ranks], atol=1 / 256)


def test_where_only_the_order_is_known_log_probabilities_follow_from_the_rank() -> None:
    # 0.4, 0.4 / 2^1.3 = 0.1625, 0.4 / 3^1.3 = 0.0959: logarithms -0.9163, -1.8174, -2.3445, in 256ths.
    packed = packed_table(np.array([[7, 4, 9]], np.int32), None)
    assert packed.tolist() == [[7 * 4096 + 235, 4 * 4096 + 465, 9 * 4096 + 600]]


def test_an_id_too_large_to_be_packed_is_left_out() -> None:
    table = packed_table(np.full((2, 2), -1, np.int32), None)
    learn_packed(table, ids(1, MAX_ID + 1))
    assert table[1].tolist() == [UNKNOWN, UNKNOWN]
    learn_packed(table, ids(1, MAX_ID))
    assert table[1, 0] >> LOGPROB_BITS == MAX_ID


def test_log_probabilities_that_are_known_are_kept() -> None:
    packed = packed_table(np.array([[7, -1]], np.int32), np.array([[-0.25, 0.0]], np.float32))
    assert packed.tolist() == [[7 * 4096 + 64, UNKNOWN]]


def test_what_the_model_says_takes_the_place_of_what_was_known_and_of_equal_tokens_the_last_counts() -> None:
    table = packed_table(np.array([[1, 2, 3], [4, 5, 6]], np.int32), None)
    before = table[1].tolist()
    said = np.array([[9, 8], [7, 6], [5, 4]], np.uint32)
    recycle_successors(table, ids(0, 0, 2), said)  # 2 has no row
    assert table.tolist() == [[7, 6, UNKNOWN], before], "a rank that the model did not name is none"


def test_of_more_than_a_row_holds_the_likeliest_are_kept() -> None:
    table = packed_table(np.array([[1]], np.int32), None)
    recycle_successors(table, ids(0), np.array([[9, 8, 7]], np.uint32))
    assert table.tolist() == [[9]]
