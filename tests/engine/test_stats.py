"""Where the time of a step goes: every moment of it belongs to one phase, and time between steps to none."""

import torch

from engine.stats import PHASES, PhaseTimer, step_clock
from tests.engine.harness import greedy_cases, make_engine, mixed_proposer
from tests.tiny_models import tiny_model


def test_the_time_between_two_marks_goes_to_the_second_and_the_time_before_start_to_none() -> None:
    clock = iter([100.0, 101.0, 103.0, 200.0, 200.5])
    seconds = {"plan": 0.0, "forward": 0.0}
    timer = PhaseTimer(seconds, lambda: next(clock))
    mark = timer.start()
    mark("plan")
    mark("forward")
    assert timer.since_start() == 3.0
    timer.start()("plan")
    assert timer.since_start() == 0.5
    assert seconds == {"plan": 1.5, "forward": 2.0}


def test_the_phases_of_real_steps_fill_the_time_that_they_took() -> None:
    cases = greedy_cases("llama", 4)
    engine = make_engine(tiny_model("llama"), mixed_proposer(2, 3, cases))
    engine.debug = False
    started = step_clock(torch.device("cpu"))()
    engine.generate([case.request() for case in cases])
    elapsed = step_clock(torch.device("cpu"))() - started
    assert list(engine.stats.seconds) == list(PHASES)
    assert all(seconds > 0 for seconds in engine.stats.seconds.values())
    assert 0.8 * elapsed < sum(engine.stats.seconds.values()) <= elapsed
