"""A source is used while it gives a fiftieth, here, of what is accepted; one that does not is tried in one
step of sixteen.
"""

import numpy as np

from drafting.adaptive.earnings import PROBE_EVERY, Earnings


def uses(earnings: Earnings, source: int, accepted: list[int], steps: int) -> list[bool]:
    found = []
    for _ in range(steps):
        earnings.add(np.array(accepted, np.uint8))
        found.append(earnings.uses(source, 0.02))
    return found


def test_every_source_is_used_at_first():
    assert [Earnings(3).uses(source, 0.02) for source in range(3)] == [True] * 3


def test_a_source_that_gives_nothing_is_only_tried_now_and_then_and_comes_back_when_it_gives():
    earnings = Earnings(2)
    uses(earnings, 1, [0] * 50, steps=PROBE_EVERY)  # 800 are accepted, and the other began with 8
    assert uses(earnings, 1, [0] * 50, steps=2 * PROBE_EVERY).count(True) == 2
    assert all(uses(earnings, 1, [0, 1, 1, 1], steps=2 * PROBE_EVERY)[PROBE_EVERY:])


def test_a_source_that_gives_its_share_is_used_in_every_step():
    assert all(uses(Earnings(2), 1, [0] * 30 + [1], steps=500))
