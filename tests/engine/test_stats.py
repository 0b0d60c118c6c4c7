"""Where the time of a step goes, each moment to one phase, and what is counted of steps, calls
and drafts.
"""

from time import perf_counter

from engine.stats import PHASES, PhaseTimer
from tests.engine.harness import Case, ChainProposer, greedy_cases, make_engine, mixed_proposer
from tests.tiny_models import tiny_model


def test_the_time_between_two_marks_goes_to_the_second_and_the_time_before_start_to_none() -> None:
    wall = iter([100.0, 101.0, 103.0, 200.0, 200.5])
    seconds = {"propose": 0.0, "choose": 0.0, "learn": 0.0, "forward": 0.0}
    timer = PhaseTimer(seconds, lambda: 0.0, lambda: next(wall))
    timer.start()
    timer.mark("propose")
    timer.mark("forward")
    timer.start()
    timer.mark("propose")
    assert seconds == {"propose": 1.5, "choose": 0.0, "learn": 0.0, "forward": 2.0}


def test_the_time_of_a_step_is_split_by_the_share_that_its_drafting_phases_took() -> None:
    wall = iter([100.0, 101.0, 104.0])
    clock = iter([7.0, 9.0])
    timer = PhaseTimer(
        {"propose": 0.0, "choose": 0.0, "learn": 0.0, "forward": 0.0}, lambda: next(clock), lambda: next(wall)
    )
    timer.start()
    timer.mark("propose")
    timer.mark("forward")
    # The wall clock saw a quarter of the step go into propose; the step took 2 s by the other clock.
    assert timer.split() == (1.5, 0.5)


def test_the_phases_of_real_steps_fill_the_time_that_they_took() -> None:
    cases = greedy_cases("llama", 4)
    engine = make_engine(tiny_model("llama"), mixed_proposer(2, 3, cases))
    engine.debug = False
    started = perf_counter()
    engine.generate([case.request() for case in cases])
    elapsed = perf_counter() - started
    assert list(engine.stats.seconds) == list(PHASES)
    assert all(seconds > 0 for seconds in engine.stats.seconds.values())
    assert 0.8 * elapsed < sum(engine.stats.seconds.values()) <= elapsed


def long_case(length: int) -> Case:
    """The beginning of a text of at least so many tokens."""
    case = next(case for case in greedy_cases("llama") if len(case.token_ids) >= length)
    return Case(case.name, case.prompt_ids, case.token_ids[:length])


def counted(engine) -> dict[str, dict[str, float]]:
    """Its counts, but for the seconds."""
    return {kind: named for kind, named in engine.stats.counts().items() if kind != "seconds"}


def test_calls_and_steps_and_drafts_are_counted_by_size():
    # Always right, 4 deep: 12 tokens come as 5, 5 and 2; the last tree is cut to what max_tokens leaves.
    case = long_case(12)
    engine = make_engine(tiny_model("llama"), ChainProposer([case], depth=4))
    engine.generate([case.request()])
    nodes = {"known 1 none": 3, "known 2 none": 2, "known 3 none": 2, "known 4 none": 2}
    assert counted(engine) == {
        "steps": {"all": 3, "proposed": 3},
        "step_nodes": {"1": 1, "4-7": 2},
        "call_lengths": {"2": 1, "5": 2},
        "proposed": nodes,
        "verified": nodes,
        "accepted": nodes,
    }


def test_drafts_after_the_token_that_ends_the_output_are_verified_and_not_accepted():
    case = long_case(8)
    stop = next(n for n, token in enumerate(case.token_ids) if n >= 1 and token not in case.token_ids[:n])
    engine = make_engine(tiny_model("llama"), ChainProposer([case], depth=7))
    engine.generate([case.request(stop_ids=frozenset({case.token_ids[stop]}))])
    assert engine.stats.call_lengths[stop + 1] == 1
    assert (engine.stats.verified, engine.stats.accepted) == ({"known": 7}, {"known": stop + 1})


def test_plain_decoding_counts_calls_and_steps_and_no_draft():
    case = long_case(5)
    engine = make_engine(tiny_model("llama"))
    engine.generate([case.request()])
    assert counted(engine) == {"steps": {"all": 5}, "step_nodes": {"0": 5}, "call_lengths": {"1": 5}}
