"""Adaptive speculation in the engine: the plain path when nothing is worth it, rows that opt out, what is
recycled and kept.
"""

from dataclasses import replace

import pytest

from drafting.adaptive.cost_model import StepShape
from engine.step_profile import profile_steps
from tests.engine.harness import adaptive_proposer, greedy_cases, make_engine, run_under_load, with_price
from tests.tiny_models import tiny_model


def logged(engine):
    """The row counts of each model call, as the engine makes them."""
    calls = []
    forward = engine.runner.forward
    engine.runner.forward = lambda inputs: calls.append(inputs["input_ids"].shape[1]) or forward(inputs)
    return calls


def test_when_no_draft_is_worth_its_price_the_model_is_called_as_in_plain_decoding():
    cases = greedy_cases("llama")
    plain = make_engine(tiny_model("llama"), max_running=5)
    hostile = make_engine(tiny_model("llama"), adaptive_proposer(), max_running=5)
    with_price(hostile, 1e9)
    calls = [logged(plain), logged(hostile)]
    for engine in (plain, hostile):
        engine.generate([case.request() for case in cases])
    assert calls[0] == calls[1]
    assert hostile.stats.verified == {}


def test_while_nothing_is_worth_its_price_proposing_pauses():
    cases = greedy_cases("llama")
    proposer = adaptive_proposer()
    engine = with_price(make_engine(tiny_model("llama"), proposer, max_running=4), 1e9)
    proposals = []
    propose = proposer.propose
    proposer.propose = lambda *arguments: proposals.append(1) or propose(*arguments)
    engine.generate([replace(cases[0].request(max_tokens=200), id=f"{n}") for n in range(4)])
    assert engine.stats.num_steps >= 200
    assert len(proposals) <= 40  # trials of four steps, between pauses of 1, 2, 4 ... 64
    assert engine.stats.num_proposals == len(proposals)
    # In the last step no sequence has room for a draft.
    assert (
        0 <= engine.stats.num_steps - len(proposals) - engine.stats.num_pauses <= 1
    )  # the last token needs no draft
    assert engine.stats.price_sum == 1e9 * len(proposals)


def test_what_was_said_in_a_pause_is_known_when_it_ends():
    cases = greedy_cases("llama")
    proposer = adaptive_proposer()
    engine = with_price(make_engine(tiny_model("llama"), proposer, max_running=1), 1e9)
    engine.add(cases[3].request(max_tokens=60))
    for _ in range(30):
        engine.step()
    with_price(engine, 0.0)
    engine.speculation.controller.load.plain_left = 0
    engine.step()
    sequence = engine.scheduler.running[0]
    assert proposer.arena.histories["length"][sequence.draft_state] == sequence.num_tokens


def test_a_row_that_opts_out_is_not_drafted_for_and_the_others_are():
    cases = greedy_cases("llama")
    engine = with_price(make_engine(tiny_model("llama"), adaptive_proposer(cases), max_running=4), 0.0)
    done = engine.generate([case.request(speculate=index % 2 == 0) for index, case in enumerate(cases)])
    assert [completion.token_ids for completion in done] == [case.token_ids for case in cases]
    assert all(completion.stats.num_verified == 0 for completion in done[1::2])
    assert sum(completion.stats.num_accepted for completion in done[::2]) > 0


def test_samples_of_one_prompt_draft_from_each_other():
    case = max(greedy_cases("llama"), key=lambda case: len(case.token_ids))
    engine = with_price(make_engine(tiny_model("llama"), adaptive_proposer(), max_running=1), 0.01)
    first, second = engine.generate(
        [replace(case.request(group="row 7"), id=name) for name in ("first", "second")]
    )
    assert first.token_ids == second.token_ids == case.token_ids
    assert second.stats.num_steps < first.stats.num_steps
    assert second.stats.accepted["siblings"] > 0


@pytest.mark.parametrize(
    "page_size", [pytest.param(1, marks=pytest.mark.slow), 16, pytest.param(64, marks=pytest.mark.slow)]
)
def test_every_token_equals_generate_whatever_a_second_is_worth(page_size):
    cases = greedy_cases("mistral-window")
    for seed, price in enumerate((0.0, 300.0, 3000.0)):
        engine = make_engine(
            tiny_model("mistral-window"),
            adaptive_proposer(cases),
            96,
            page_size=page_size,
            cache_tokens=192,
            max_running=8,
        )
        run_under_load(with_price(engine, price), cases, seed)


def test_aborted_rows_leave_nothing_in_the_proposer():
    cases = greedy_cases("llama")
    proposer = adaptive_proposer()
    engine = make_engine(tiny_model("llama"), proposer, max_running=4)
    for case in cases[:4]:
        engine.add(case.request(max_tokens=100))
    for _ in range(5):
        engine.step()
    for case in cases[:4]:
        engine.abort(case.name)
    room = proposer.arena.room
    assert room.num_free[0] == len(room.free)


def test_a_profile_has_steps_of_one_and_of_all_sequences_and_leaves_the_engine_as_it_was():
    engine = make_engine(tiny_model("llama"), adaptive_proposer(), 96, max_running=6)
    profile = profile_steps(engine.runner, 6, 20, 96)
    assert {shape.sequences for shape in profile.shapes} == {1, 4, 6}
    assert StepShape(6, 6 * 48, 6 * 48, 6) in profile.shapes
    assert all(seconds > 0 for seconds in profile.seconds)
    cases = greedy_cases("llama")
    assert [done.token_ids for done in engine.generate([c.request() for c in cases])] == [
        c.token_ids for c in cases
    ]


def test_a_profile_stops_when_its_time_is_up():
    engine = make_engine(tiny_model("llama"), adaptive_proposer(), 96, max_running=6)
    assert len(profile_steps(engine.runner, 6, 20, 96, max_seconds=0.0).shapes) == 4
