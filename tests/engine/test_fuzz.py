"""The random test of checks/fuzz_engine.py: a few of its cases, and that it finds and shrinks a planted
fault.
"""

import math

import numpy as np
import pytest

import engine.engine
from checks.fuzz.coverage import Coverage
from checks.fuzz.fuzz_case import (
    Case,
    EngineChoice,
    ModelChoice,
    RequestChoice,
    SpeculationChoice,
    from_json,
    to_json,
)
from checks.fuzz.random_case import random_case
from checks.fuzz.run_case import run_case
from checks.fuzz.sampling_rule import Target, _splitmix64, gumbel, target
from checks.fuzz.shrink import shrink
from checks.fuzz_engine import failure, main, minimal, search
from drafting.sampling import Sampling
from engine.verify import verify

DEEP_TREES = Case(
    engine=EngineChoice(speculation=SpeculationChoice("trees", draft_len=8)),
    requests=(RequestChoice((5, 6, 7), 40), RequestChoice((9,), 20, arrives=3)),
)


@pytest.fixture
def wrong_third_token(monkeypatch):
    """The walk through a tree takes a wrong token after three right ones."""

    def verify_wrongly(trees, targets):
        verified = verify(trees, targets)
        is_deep = np.diff(verified.offsets) >= 3
        return verified._replace(bonus=(verified.bonus + is_deep) % 97)

    monkeypatch.setattr(engine.engine, "verify", verify_wrongly)


@pytest.mark.slow
def test_random_cases_show_no_difference_and_go_through_what_breaks_engines() -> None:
    coverage = Coverage()
    assert search(seed=0, coverage=coverage, max_cases=16, seconds=math.inf) is None
    assert coverage.cases == 16
    assert len(coverage.families) == 4
    assert min(coverage.accepted, coverage.preemptions, coverage.cached_tokens, coverage.aborts) > 0
    assert min(coverage.sampled, coverage.stops_inside, coverage.pauses) > 0
    assert coverage.close == 0


@pytest.mark.slow
def test_a_planted_fault_is_found_and_shrunk_to_one_request_that_can_be_run_again(
    wrong_third_token, monkeypatch, capsys
) -> None:
    found = search(seed=5, coverage=Coverage(), seconds=math.inf)
    assert found is not None and "must be" in found.message
    small = minimal(found)
    (request,) = small.requests
    assert request == RequestChoice(request.prompt_ids, request.max_tokens)
    assert (len(request.prompt_ids), small.model, small.eos_ids) == (1, ModelChoice(), ())
    assert request.max_tokens <= 12  # three accepted tokens and the wrong one, however the drafts fall
    assert main(["--case", to_json(small)]) == 1
    assert "must be" in capsys.readouterr().out
    monkeypatch.undo()
    assert main(["--case", to_json(small)]) == 0
    assert capsys.readouterr().out == "no difference\n"


def test_a_mask_that_shows_one_slot_too_many_is_found(monkeypatch) -> None:
    original = engine.model_runner.ModelRunner.plan

    def plan_wrongly(runner, chunks, trees):
        plan = original(runner, chunks, trees)
        for call in plan.calls:
            for mask in (call.masks or {}).values():
                hidden = np.argwhere(np.isneginf(mask))
                if len(hidden):
                    mask[tuple(hidden[-1])] = 0
        return plan

    assert failure(DEEP_TREES) is None
    monkeypatch.setattr(engine.model_runner.ModelRunner, "plan", plan_wrongly)
    assert "must be" in (failure(DEEP_TREES) or "")


def test_a_case_runs_the_same_way_every_time() -> None:
    case = random_case(seed=0, number=9)
    first = Coverage()
    second = Coverage()
    run_case(case, first)
    run_case(case, second)
    assert first == second


def test_what_a_case_says_survives_json_and_defaults_are_left_out() -> None:
    for number in range(8):
        case = random_case(seed=0, number=number)
        assert from_json(to_json(case)) == case
    assert to_json(Case()) == '{"requests": [{}]}'
    case = Case(requests=(RequestChoice((7, 8), 3, Sampling(0.5, seed=2), stop_words=((1, 2), (3,))),))
    assert to_json(case) == (
        '{"requests": [{"prompt_ids": [7, 8], "max_tokens": 3, "sampling": {"temperature": 0.5, "seed": 2}, '
        '"stop_words": [[1, 2], [3]]}]}'
    )
    assert from_json(to_json(case)) == case


def test_a_name_that_no_setting_has_is_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        from_json('{"engine": {"colour": "red"}}')


def test_shrinking_keeps_what_the_failure_needs_and_nothing_else() -> None:
    request = RequestChoice((4, 5, 6, 7, 8), 30, Sampling(0.7, seed=5), (9,), logprobs=3, arrives=7)
    case = Case(
        ModelChoice("mistral", 2, 5),
        EngineChoice(page_size=4, prefix_cache=True, speculation=SpeculationChoice("mixed", draft_len=8)),
        (2, 3),
        (RequestChoice(), request, RequestChoice((1, 2), 9)),
        (1, 4),
    )

    def fails(tried: Case) -> bool:
        deep = tried.engine.speculation.mode == "mixed" and tried.engine.speculation.draft_len > 2
        return deep and any(6 in r.prompt_ids and r.max_tokens >= 11 for r in tried.requests)

    small = shrink(case, fails)
    assert small.requests == (RequestChoice((6,), 11),)
    assert small.engine.speculation == SpeculationChoice("mixed", draft_len=3)
    assert (small.model, small.eos_ids, small.refused) == (ModelChoice(), (), ())


SHARES = np.log(np.array([0.1, 0.4, 0.3, 0.2], np.float32))
# Gumbel numbers of seed 0, and with the logarithms of the shares, -2.303, -0.916, -1.204 and -1.609:
NUMBERS = [
    [1.732, 0.358, 2.477, -0.187],  # -0.571, -0.559, 1.273, -1.797
    [0.465, -1.252, 0.186, 1.315],  # -1.837, -2.169, -1.018, -0.294
    [0.020, -0.805, -0.569, -1.527],  # -2.283, -1.721, -1.773, -3.137
    [-0.428, -0.503, 1.926, -0.316],  # -2.730, -1.419, 0.722, -1.926
    [1.235, 0.539, -0.673, -0.814],  # -1.068, -0.377, -1.877, -2.423
    [-0.660, 0.294, -1.138, -0.905],  # -2.962, -0.623, -2.342, -2.514
]


@pytest.mark.parametrize(
    ("sampling", "tokens"),
    [
        (Sampling(1.0), [2, 3, 1, 2, 1, 1]),
        (Sampling(3.0), [2, 3, 0, 2, 0, 1]),  # a third of the logarithms: -0.768, -0.305, -0.401, -0.536
        (Sampling(1.0, top_k=2), [2, 2, 1, 2, 1, 1]),  # tokens 1 and 2
        (Sampling(1.0, top_k=1), [1, 1, 1, 1, 1, 1]),
        (Sampling(1.0, top_p=0.75), [2, 3, 1, 2, 1, 1]),  # tokens 1, 2 and 3, as 0.7 is below 0.75
        (Sampling(1.0, min_p=0.6), [2, 2, 1, 2, 1, 1]),  # at least 0.6 x 0.4: tokens 1 and 2
        (Sampling(), [1, 1, 1, 1, 1, 1]),
    ],
)
def test_the_rule_of_sampling_gives_the_tokens_that_are_found_by_hand(sampling, tokens) -> None:
    assert [[round(gumbel(0, n, token), 3) for token in range(4)] for n in range(6)] == NUMBERS
    assert [target(SHARES, sampling, n, 1e-9) for n in range(6)] == [Target(token, False) for token in tokens]


def test_the_rule_says_where_a_tiny_difference_decides() -> None:
    assert target(SHARES, Sampling(1.0), 2, 0.06) == Target(1, True)  # -1.721 is near -1.773
    assert not target(SHARES, Sampling(1.0), 2, 0.05).is_close
    # Half of the logarithms: tokens 0 and 2 have -1.131 and -1.171. In logits the difference is 0.08.
    assert target(SHARES, Sampling(2.0), 2, 0.09) == Target(0, True)
    assert not target(SHARES, Sampling(2.0), 2, 0.07).is_close
    assert target(SHARES, Sampling(1.0, top_p=0.701), 1, 0.01).is_close
    assert target(SHARES, Sampling(1.0, min_p=0.501), 1, 0.01).is_close
    assert target(SHARES, Sampling(), 0, 0.3).is_close


def test_the_numbers_of_the_rule_are_those_of_the_published_generator() -> None:
    assert _splitmix64(0) == 0xE220A8397B1DCDAF
