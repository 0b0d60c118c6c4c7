"""The rule that ends a sequence, token by token."""

import pytest

from engine.request import Request
from engine.sequence import Sequence


def sequence(prompt=(5, 6, 7), max_tokens=4, stop_ids=(), max_context=100) -> Sequence:
    return Sequence(Request("a", tuple(prompt), max_tokens), frozenset(stop_ids), max_context)


def test_a_new_sequence_is_its_prompt_and_has_all_of_it_to_run():
    new = sequence()
    assert new.token_ids.tolist() == [5, 6, 7]
    assert (new.num_tokens, new.num_uncached, new.num_output) == (3, 3, 0)


def test_a_prediction_is_no_longer_than_the_output_can_be():
    request = Request("a", (5, 6, 7), max_tokens=4, prediction_ids=(1, 2, 3, 4, 5, 6))
    assert Sequence(request, frozenset(), max_context=100).prediction_ids == (1, 2, 3, 4)
    assert Sequence(request, frozenset(), max_context=5).prediction_ids == (1, 2)
    assert sequence().prediction_ids == ()


def test_tokens_are_appended_until_the_last_allowed():
    one = sequence(max_tokens=4)
    assert one.append([1, 2]) == 2
    assert one.finish_reason is None
    assert one.append([3, 4, 8, 9]) == 2
    assert one.token_ids.tolist() == [5, 6, 7, 1, 2, 3, 4]
    assert one.finish_reason == "length"


@pytest.mark.parametrize(
    ("path", "kept"),
    [([2], [2]), ([2, 9, 9], [2]), ([9, 2, 9], [9, 2]), ([9, 9, 2], [9, 9, 2]), ([9, 2, 2], [9, 2])],
)
def test_a_stop_token_anywhere_in_a_path_ends_it_and_is_kept(path, kept):
    one = sequence(max_tokens=10, stop_ids=[2])
    assert one.append(path) == len(kept)
    assert one.token_ids.tolist()[3:] == kept
    assert one.finish_reason == "stop"


def test_a_stop_token_in_the_prompt_means_nothing():
    one = sequence(prompt=(2, 2), stop_ids=[2])
    one.append([5])
    assert one.finish_reason is None


def test_a_stop_token_at_the_last_allowed_place_counts_as_stop():
    one = sequence(max_tokens=2, stop_ids=[2])
    assert one.append([7, 2]) == 2
    assert one.finish_reason == "stop"


def test_the_context_ends_a_sequence_before_max_tokens():
    one = sequence(prompt=(5, 6, 7), max_tokens=50, max_context=5)
    assert one.append([1, 2, 3, 4]) == 2
    assert one.token_ids.tolist() == [5, 6, 7, 1, 2]
    assert one.finish_reason == "length"


@pytest.mark.parametrize(("already", "depth"), [(0, 3), (1, 2), (2, 1), (3, 0)])
def test_drafts_are_of_use_only_before_the_last_token_which_is_the_models_own(already, depth):
    one = sequence(max_tokens=4)
    one.append([1] * already)
    assert one.max_draft_depth == depth


def test_an_event_carries_the_counts_only_at_the_end():
    one = sequence(max_tokens=3)
    one.append([1, 2])
    assert one.event([1, 2], (None, None)).stats is None
    one.append([3])
    last = one.event([3], ("context",))
    assert (last.finish_reason, last.token_ids, last.sources) == ("length", (3,), ("context",))
    assert last.stats is not None
    assert (last.stats.num_prompt_tokens, last.stats.num_generated_tokens) == (3, 3)
