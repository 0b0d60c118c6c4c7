"""Context drafts against drafts found by hand, and against a search through the whole context in plain
Python.
"""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drafting.context import MAX_OCCURRENCES, ContextIndex


def drafts_of(index: ContextIndex, num_drafts: int, depth: int) -> list[list[int]]:
    drafts_BKW = np.full((1, num_drafts, depth), -7, np.int32)
    lengths_BK = np.zeros((1, num_drafts), np.int32)
    index.fill(depth, drafts_BKW, lengths_BK, 0)
    return [draft[:size].tolist() for draft, size in zip(drafts_BKW[0], lengths_BK[0], strict=True) if size]


def context_drafts(token_ids: list[int], num_drafts: int, depth: int, query_len: int = 1) -> list[list[int]]:
    return drafts_of(ContextIndex(np.array(token_ids, np.int32), query_len), num_drafts, depth)


def searched_drafts(token_ids: list[int], num_drafts: int, depth: int, query_len: int) -> list[list[int]]:
    query = token_ids[-query_len:]
    counts = Counter()
    latest = {}
    for start in range(query_len, len(token_ids)):
        if token_ids[start - query_len : start] == query:
            draft = tuple(token_ids[start : start + depth])
            counts[draft] += 1
            latest[draft] = start
    best = sorted(counts, key=lambda draft: (counts[draft], latest[draft]), reverse=True)
    return [list(draft) for draft in best[:num_drafts]] if len(token_ids) >= query_len else []


def test_the_more_frequent_continuation_comes_first() -> None:
    assert context_drafts([1, 2, 3, 1, 2, 3, 1, 4, 4, 1], 3, 2) == [[2, 3], [4, 4]]


def test_of_equally_frequent_continuations_the_later_comes_first() -> None:
    assert context_drafts([1, 2, 2, 1, 3, 3, 1, 5, 5, 1], 2, 2) == [
        [5, 5],
        [3, 3],
    ]  # the first seen would be [2, 2]


def test_counts_are_of_the_whole_draft_not_of_its_first_token() -> None:
    # 2 follows 1 twice, but in two different drafts; [3, 3] as a whole occurs twice.
    assert context_drafts([1, 3, 3, 1, 3, 3, 1, 2, 8, 1, 2, 9, 1], 3, 2) == [[3, 3], [2, 9], [2, 8]]


def test_a_recent_match_that_the_end_of_the_context_cuts_short_is_kept() -> None:
    assert context_drafts([5, 6, 7, 5], 4, 10) == [[6, 7, 5]]


def test_a_repeated_token_proposes_what_is_left_after_each_occurrence() -> None:
    assert context_drafts([4, 4, 4], 5, 5) == [[4], [4, 4]]


def test_a_longer_query_excludes_matches_of_its_end_alone() -> None:
    text = [1, 2, 3, 9, 2, 4, 1, 2]
    assert context_drafts(text, 3, 1, query_len=1) == [[4], [3]]
    assert context_drafts(text, 3, 1, query_len=2) == [[3]]
    assert context_drafts(text, 3, 1, query_len=3) == []


@pytest.mark.parametrize("query_len", [1, 2, 3])
def test_a_context_shorter_than_the_query_gives_no_draft(query_len: int) -> None:
    assert context_drafts([8, 8, 8][: query_len - 1] or [8], 3, 2, query_len) == []


def test_tokens_are_found_again_after_the_index_has_grown() -> None:
    index = ContextIndex(np.array([7, 1, 2], np.int32), 1)
    for token in range(100, 1100):
        index.extend(np.array([token], np.int32))
    index.extend(np.array([7], np.int32))
    assert index.length == 1004
    assert drafts_of(index, 2, 3) == [[1, 2, 100]]


def test_work_is_bounded_to_the_newest_occurrences() -> None:
    often_but_long_ago = [1, 2] * 300 + [1, 3] * MAX_OCCURRENCES + [1]
    assert context_drafts(often_but_long_ago, 2, 1) == [[3]]


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=120),
    st.integers(1, 3),
    st.integers(1, 6),
    st.integers(1, 5),
    st.integers(1, 30),
)
def test_drafts_equal_those_of_a_search_through_everything(
    token_ids: list[int], query_len: int, num_drafts: int, depth: int, piece: int
) -> None:
    index = ContextIndex(np.array(token_ids[:1], np.int32), query_len)
    for first in range(1, len(token_ids), piece):
        index.extend(np.array(token_ids[first : first + piece], np.int32))
    assert drafts_of(index, num_drafts, depth) == searched_drafts(token_ids, num_drafts, depth, query_len)
