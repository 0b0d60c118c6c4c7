"""Thinking pauses while it gains nothing: trials of four steps, pauses twice as long each time, and what ends them."""

from drafting.pauses import LONGEST_PAUSE, TRIAL_STEPS, Pauses


def trial(pauses: Pauses, gain: float) -> int:
    """Waits for a step that thinks, and gives each step of the trial this gain; returns how many steps were waited for."""
    return trial_at(pauses, 8, gain)


def trial_at(pauses: Pauses, load: int, gain: float = -1.0) -> int:
    waited = 0
    while not pauses.wants(load):
        waited += 1
    pauses.judge(gain, num_nodes=3)
    for _ in range(TRIAL_STEPS - 1):
        assert pauses.wants(load)
        pauses.judge(gain, num_nodes=3)
    return waited


def test_pauses_grow_while_trials_gain_nothing():
    pauses = Pauses()
    assert [trial(pauses, -1.0) for _ in range(9)] == [0, 1, 2, 4, 8, 16, 32, LONGEST_PAUSE, LONGEST_PAUSE]


def test_a_trial_that_gains_ends_them():
    pauses = Pauses()
    for gain in (-1.0, -1.0, -1.0, 0.5):
        trial(pauses, gain)
    for _ in range(100):
        assert pauses.wants(8)
        pauses.judge(0.1, num_nodes=3)


def test_one_bad_step_of_a_trial_or_of_good_times_is_forgiven():
    pauses = Pauses()
    for gain in (1.0, -2.0, 1.0, 1.0):
        assert pauses.wants(8)
        pauses.judge(gain, num_nodes=3)
    assert pauses.wants(8)
    pauses.judge(-1.0, num_nodes=3)
    assert pauses.wants(8)


def test_times_that_turn_bad_are_followed_by_a_pause_within_some_steps():
    pauses, steps = Pauses(), 0
    trial(pauses, 1.0)
    while pauses.wants(8):
        pauses.judge(-1.0, num_nodes=3)
        steps += 1
    assert 8 <= steps <= 16


def test_a_trial_that_finds_nothing_to_verify_ends_with_its_first_step():
    pauses, thought = Pauses(), []
    for step in range(200):
        if pauses.wants(8):
            pauses.judge(-0.1, num_nodes=0)
            thought.append(step)
    assert thought == [0, 2, 5, 10, 19, 36, 69, 134, 199]


def test_a_batch_that_drains_or_fills_is_tried_at_once_and_a_pause_goes_on_growing():
    pauses = Pauses()
    for _ in range(8):
        trial(pauses, -1.0)
    assert not pauses.wants(8)
    assert not pauses.wants(6)
    assert trial_at(pauses, 5) == 0
    assert trial_at(pauses, 5) == LONGEST_PAUSE
