"""How many guesses a step can afford: literal survivals and a machine whose steps cost 10 ms and 1 ms per row."""

import numpy as np
import pytest

from drafting.adaptive.cost_model import CostModel, Profile, Scale, StepShape
from drafting.adaptive.price import LEAST_GAIN, Budget
from drafting.tree import Candidates


def machine() -> CostModel:
    shapes = [
        StepShape(rows, 0, 0, sequences, rows - sequences) for sequences in (1, 4) for rows in (4, 8, 16, 32)
    ]
    return CostModel(
        Profile([StepShape(1, 0, 0, 1), *shapes], [0.011, *(0.010 + 0.001 * shape.rows for shape in shapes)])
    )


def chains(*survivals: list[float]) -> Candidates:
    """One chain per sequence, of nodes that survive so often."""
    sizes = [len(chain) for chain in survivals]
    parents = np.array([place for size in sizes for place in range(size)], np.int32)
    sources, offsets = np.zeros(sum(sizes), np.uint8), np.cumsum([0, *sizes])
    survival = np.array([s for chain in survivals for s in chain], np.float32)
    return Candidates(parents + 5, parents, parents + 1, sources, np.zeros_like(sources), offsets, survival)


PLAIN = StepShape(4, 0, 0, 4)


def test_before_anything_was_measured_time_costs_what_plain_steps_would_give():
    # 4 tokens in 14 ms: a row of 1 ms costs 0.29 tokens
    chosen = Budget(machine(), 100).choose(chains([0.9, 0.5, 0.2], [0.25], [0.4], []), PLAIN)
    assert chosen.offsets.tolist() == [0, 2, 2, 3, 3]
    assert chosen.depths.tolist() == [1, 2, 1]


def test_the_more_a_second_has_brought_lately_the_fewer_guesses_are_verified():
    numbers, budget = [], Budget(machine(), 100)
    for speedup in (0.5, 2.0, 7.0):
        budget.wants(4)
        budget._speedup = Scale(speedup)
        numbers.append(len(budget.choose(chains([0.9, 0.5, 0.2], [0.25], [0.45], []), PLAIN).token_ids))
    assert numbers == [
        3,
        1,
        0,
    ]  # a row of 1 ms costs 0.29 tokens, never less than in plain decoding, then 0.57 and 2
    assert budget.last.num_candidates == 5
    assert budget.last.price == pytest.approx(7 * 4 / 0.014, rel=0.01)


def test_the_price_follows_the_load_at_once_and_prompts_are_not_in_it():
    budget, prices = Budget(machine(), 100), []
    one = chains([0.9])
    for shape in (StepShape(1, 0, 0, 1), StepShape(500, 0, 0, 4)):
        budget.choose(one, shape)
        prices.append(budget.last.price)
    assert (
        prices == [pytest.approx(1 / 0.011, rel=0.01)] * 2
    )  # one sequence gets a token; the other three run prompts


def test_where_fewer_guesses_come_true_than_expected_fewer_are_verified():
    budget, numbers = Budget(machine(), 100), []
    for _ in range(40):
        numbers.append(len(budget.choose(chains([0.9, 0.5], [0.4], [0.35], []), PLAIN).token_ids))
        budget.observe(PLAIN, numbers[-1], 0.014 + 0.001 * numbers[-1], 0.0, 4)
    falling = numbers[: numbers.index(0) + 1]
    assert falling[0] == 4
    assert falling == sorted(falling, reverse=True)
    assert numbers[len(falling) : len(falling) + 15] == [0] * 15


def test_no_step_verifies_more_nodes_than_there_is_room_for():
    assert len(Budget(machine(), 3).choose(chains([0.99] * 9), PLAIN).token_ids) == 3


def test_a_step_is_judged_by_its_tokens_and_the_time_it_took_beyond_a_plain_one():
    budget, gains = Budget(machine(), 100), []
    budget.pauses.judge = lambda gain, num_nodes, thinking: gains.append(gain)
    budget.choose(chains([0.9, 0.5], [], [], []), PLAIN)
    budget.observe(PLAIN, 2, 0.016, 0.001, 6)  # 2 tokens more than plain, for 3 ms at 0.286 tokens each
    budget.wants(4)
    budget.observe(PLAIN, 0, 0.014, 0.0, 4)  # proposed nothing: not judged
    assert gains == [pytest.approx(2 - 3 * 0.286 - LEAST_GAIN * 4, abs=0.02)]


def test_guesses_that_no_price_could_buy_are_not_asked_for():
    assert Budget(machine(), 100).least_survival(PLAIN, 4) == pytest.approx(
        0.143, rel=0.15
    )  # half of 4 / 14 ms x 1 ms


def test_prompt_chunks_do_not_teach_what_guesses_cost():
    budget = Budget(machine(), 100)
    before = budget.cost.seconds(PLAIN)
    budget.observe(StepShape(500, 0, 0, 4), 0, 9.0, 0.0, 1)
    assert budget.cost.seconds(PLAIN) == before
    budget.observe(PLAIN, 0, 0.025, 0.0, 4)
    assert budget.cost.seconds(PLAIN) > before


def test_a_job_whose_every_step_runs_prompts_pauses_too():
    budget, thought = Budget(machine(), 100), 0
    for _ in range(100):
        if budget.wants(4):
            thought += 1
            budget.choose(chains([0.01], [0.01], [0.01], [0.01]), StepShape(500, 0, 0, 4))
        budget.observe(StepShape(500, 0, 0, 4), 0, 0.5, 0.1, 4)
    assert thought < 10


def test_what_was_once_not_to_be_trusted_is_tried_again_after_long():
    budget, numbers = Budget(machine(), 100), []
    for step in range(300):  # first nothing comes true, later everything would
        nodes = len(budget.choose(chains([0.9, 0.5], [0.4], [0.35], []), PLAIN).token_ids)
        accepted = nodes if step >= 100 else 0
        budget.observe(PLAIN, nodes, 0.014 + 0.001 * nodes, 0.0, 4 + accepted)
        numbers.append(nodes)
    assert numbers[60:100].count(0) >= 28  # 16 empty steps, then a few that learn again
    assert min(numbers[-20:]) >= 2
