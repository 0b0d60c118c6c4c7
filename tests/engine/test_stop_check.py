"""A request's own stop check: it sees each token once and in order, and ends the output inside an accepted
path as anywhere.
"""

from collections.abc import Callable

import pytest

from engine.request import StopCheck
from engine.sequence import Sequence
from tests.engine.harness import (
    Case,
    ChainProposer,
    greedy_cases,
    make_engine,
    mixed_proposer,
    run_under_load,
)
from tests.engine.test_sequence import sequence
from tests.tiny_models import tiny_model


def ending_with(*wanted: int, seen: list[int] | None = None) -> Callable[[], StopCheck]:
    """Makes checks that end an output whose last tokens are these; seen: gets what they see."""

    def make() -> StopCheck:
        tokens: list[int] = [] if seen is None else seen

        def check(token_id: int) -> bool:
            tokens.append(token_id)
            return tuple(tokens[-len(wanted) :]) == wanted

        return check

    return make


def stopped(case: Case) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two tokens in the middle of a case's text, and the text up to where they first stand."""
    text = case.token_ids
    middle = len(case.token_ids) // 2
    wanted = text[middle - 1 : middle + 1]
    end = next(n for n in range(2, len(text) + 1) if text[n - 2 : n] == wanted)
    return wanted, text[:end]


def checked(one: Sequence, make: Callable[[], StopCheck]) -> Sequence:
    one.stop_check = make()
    return one


def test_the_token_that_the_check_names_is_the_last_and_what_follows_in_the_path_is_not_taken():
    one = checked(sequence(max_tokens=9), ending_with(7, 8))
    assert one.append([7, 9, 7]) == 3
    assert one.append([8, 5, 5]) == 1
    assert (one.token_ids.tolist()[3:], one.finish_reason) == ([7, 9, 7, 8], "stop")


def test_a_check_that_ends_the_output_at_the_last_allowed_token_counts_as_stop():
    one = checked(sequence(max_tokens=2), ending_with(7, 8))
    one.append([7, 8])
    assert one.finish_reason == "stop"


@pytest.mark.parametrize("mode", ["off", "mixed", "chain"])
def test_the_output_ends_at_the_same_token_with_drafts_preemption_and_without(mode):
    cases = [case for case in greedy_cases("llama") if len(case.token_ids) >= 4]
    proposers = {"off": None, "mixed": mixed_proposer(5, 4, cases), "chain": ChainProposer(cases, depth=9)}
    engine = make_engine(tiny_model("llama"), proposers[mode], 96, cache_tokens=128, max_running=16)
    ends = [stopped(case) for case in cases]
    seen: list[list[int]] = [[] for _ in cases]
    checks = [ending_with(*wanted, seen=own) for (wanted, _), own in zip(ends, seen, strict=True)]
    completions = engine.generate(
        [case.request(make_stop_check=check) for case, check in zip(cases, checks, strict=True)]
    )
    assert engine.stats.num_preemptions > 0
    assert [completion.token_ids for completion in completions] == [text for _, text in ends]
    assert {completion.finish_reason for completion in completions} == {"stop"}
    assert [tuple(tokens) for tokens in seen] == [text for _, text in ends], (
        "each token is seen once, in order"
    )


def test_aborted_copies_have_checks_of_their_own(monkeypatch):
    """Random arrivals and aborts; every case stops where its text holds the two tokens."""
    cases = [case for case in greedy_cases("llama") if len(case.token_ids) >= 4]
    ends = {case.prompt_ids: stopped(case) for case in cases}
    short = [Case(case.name, case.prompt_ids, ends[case.prompt_ids][1]) for case in cases]

    def request(case: Case, **settings):
        return original(
            case, **settings, max_tokens=99, make_stop_check=ending_with(*ends[case.prompt_ids][0])
        )

    original = Case.request
    monkeypatch.setattr(Case, "request", request)
    run_under_load(
        make_engine(tiny_model("llama"), mixed_proposer(3, 3, cases), max_running=5), short, seed=1
    )
