"""Thinking pauses while it gains nothing: trials of four steps, pauses twice as long each time, and what ends them."""

from drafting.adaptive.pauses import LONGEST_PAUSE, LOOK_EVERY, LOOK_STEPS, TRIAL_STEPS, Pauses


def trial(pauses: Pauses, gain: float) -> int:
    """Waits for a step that thinks, and gives each step of the trial this gain; returns how many steps were waited for."""
    return trial_at(pauses, 8, gain)


def trial_at(pauses: Pauses, load: int, gain: float = -1.0) -> int:
    waited = 0
    while not pauses.wants(load):
        waited += 1
    pauses.judge(gain, num_nodes=3, thinking=0.1)
    for _ in range(TRIAL_STEPS - 1):
        assert pauses.wants(load)
        pauses.judge(gain, num_nodes=3, thinking=0.1)
    return waited


def test_pauses_grow_while_trials_gain_nothing():
    pauses = Pauses()
    assert [trial(pauses, -1.0) for _ in range(9)] == [LOOK_STEPS, 1, 2, 4, 8, 16, 32, 64, LONGEST_PAUSE]


def test_a_trial_that_gains_ends_them_but_for_a_look_at_plain_steps_now_and_then():
    pauses, plain = Pauses(), 0
    for gain in (-1.0, -1.0, -1.0, 0.5):
        trial(pauses, gain)
    for _ in range(10 * (LOOK_EVERY + LOOK_STEPS)):
        if pauses.wants(8):
            pauses.judge(0.1, num_nodes=3, thinking=0.1)
        else:
            plain += 1
    assert plain == 10 * LOOK_STEPS


def test_one_bad_step_of_a_trial_or_of_good_times_is_forgiven():
    pauses = Pauses()
    assert [pauses.wants(8) for _ in range(LOOK_STEPS)] == [False] * LOOK_STEPS
    for gain in (1.0, -2.0, 1.0, 1.0, -0.1):
        assert pauses.wants(8)
        pauses.judge(gain, num_nodes=3, thinking=0.1)
    assert pauses.wants(8)


def test_times_that_turn_bad_are_followed_by_a_pause_within_some_steps():
    pauses, steps = Pauses(), 0
    trial(pauses, 1.0)
    while pauses.wants(8):
        pauses.judge(-1.0, num_nodes=3, thinking=0.1)
        steps += 1
    assert 8 <= steps <= 16


def test_a_trial_that_finds_nothing_to_verify_ends_with_its_first_step():
    pauses, thought = Pauses(), []
    for step in range(200):
        if pauses.wants(8):
            pauses.judge(-0.1, num_nodes=0, thinking=1.0)
            thought.append(step)
    assert thought == [3, 5, 8, 13, 22, 39, 72, 137]


def test_good_times_are_over_when_three_steps_find_nothing():
    pauses = Pauses()
    trial(pauses, 9.0)
    for num_nodes in (0, 0, 3, 0, 0, 0):
        assert pauses.wants(8)
        pauses.judge(-0.1, num_nodes, thinking=0.1)
    assert not pauses.wants(8)


def test_each_class_of_loads_is_judged_for_itself_and_remembered():
    pauses = Pauses()
    for _ in range(9):
        trial(pauses, -1.0)
    assert pauses.hopeless
    assert (
        trial_at(pauses, 3, gain=1.0) == LOOK_STEPS
    )  # the batch drains: a load never seen is looked at and tried at once
    assert pauses.wants(2)
    assert not pauses.hopeless
    assert not any(pauses.wants(15) for _ in range(LONGEST_PAUSE))  # it fills again: the pause goes on
    assert trial_at(pauses, 15) == 0
    assert pauses.wants(3)


def test_where_nothing_is_found_pauses_are_as_long_as_thinking_is_dear():
    for thinking, longest in [(0.1, 50), (0.0105, 5), (0.0015, 0)]:
        pauses, waited = Pauses(), 0
        for _ in range(20):
            waited = 0
            while not pauses.wants(1):
                waited += 1
            pauses.judge(-0.01, num_nodes=0, thinking=thinking)
        assert waited == longest
