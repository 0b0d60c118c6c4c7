"""How many guesses a step can afford: literal survivals and a machine whose steps cost 10 ms and 1 ms per row."""

import numpy as np
import pytest

from drafting.cost import CostModel, Profile, StepShape
from drafting.price import Budget
from drafting.tree import Candidates


def machine() -> CostModel:
    shapes = [StepShape(rows, 0, 0, sequences, rows - sequences) for sequences in (1, 4) for rows in (4, 8, 16, 32)]
    return CostModel(Profile([StepShape(1, 0, 0, 1), *shapes], [0.011, *(0.010 + 0.001 * shape.rows for shape in shapes)]))


def chains(*survivals: list[float]) -> Candidates:
    """One chain per sequence, of nodes that survive so often."""
    sizes = [len(chain) for chain in survivals]
    parents = np.array([place for size in sizes for place in range(size)], np.int32)
    sources, offsets = np.zeros(sum(sizes), np.uint8), np.cumsum([0, *sizes])
    survival = np.array([s for chain in survivals for s in chain], np.float32)
    return Candidates(parents + 5, parents, parents + 1, sources, np.zeros_like(sources), offsets, survival)


PLAIN = StepShape(4, 0, 0, 4)


def measured(budget: Budget, tokens_per_second: float) -> Budget:
    budget.observe(PLAIN, 0, 0.014, 0.0, 0.014 * tokens_per_second)
    return budget


def test_before_anything_was_measured_time_costs_what_plain_steps_would_give():
    # 4 tokens in 14 ms: a row of 1 ms costs 0.29 tokens
    chosen = Budget(machine(), 100).choose(chains([0.9, 0.5, 0.2], [0.25], [0.4], []), PLAIN)
    assert chosen.offsets.tolist() == [0, 2, 2, 3, 3]
    assert chosen.depths.tolist() == [1, 2, 1]


def test_the_dearer_time_is_the_fewer_guesses_are_verified():
    numbers = []
    for price in (100, 400, 800, 2000):
        budget = measured(Budget(machine(), 100), price)
        numbers.append(len(budget.choose(chains([0.9, 0.5, 0.2], [0.25], [0.45], []), PLAIN).token_ids))
    assert numbers == [5, 3, 1, 0]  # a row of 1 ms costs 0.1, 0.4, 0.8 and 2 tokens
    assert budget.last.num_candidates == 5
    assert budget.last.price == pytest.approx(2000, rel=0.01)


def test_no_step_verifies_more_nodes_than_there_is_room_for():
    assert len(Budget(machine(), 3).choose(chains([0.99] * 9), PLAIN).token_ids) == 3


def test_a_step_is_judged_by_its_tokens_and_the_time_it_took_beyond_a_plain_one():
    budget, gains = measured(Budget(machine(), 100), 400), []
    budget.pauses.judge = lambda gain, num_nodes: gains.append(gain)
    budget.choose(chains([0.9, 0.5], [], [], []), PLAIN)
    budget.observe(PLAIN, 2, 0.016, 0.001, 6)  # 2 tokens more than plain, for 3 ms at 0.4 tokens each
    budget.observe(PLAIN, 0, 0.014, 0.0, 4)  # proposed nothing: not judged
    assert gains == [pytest.approx(2 - 3 * 0.4 - 0.1 * 4, abs=0.15)]  # a tenth of plain's 4 tokens is no gain


def test_guesses_that_no_price_could_buy_are_not_asked_for():
    budget = measured(Budget(machine(), 100), 400)
    assert budget.least_survival(PLAIN) == pytest.approx(0.2, rel=0.15)  # half of 400 tokens/s x 1 ms


def test_prompt_chunks_do_not_teach_what_guesses_cost():
    budget = Budget(machine(), 100)
    before = budget.cost.coefficients.tolist()
    budget.observe(StepShape(500, 0, 0, 4), 0, 9.0, 0.0, 1)
    assert budget.cost.coefficients.tolist() == before
    budget.observe(PLAIN, 4, 0.025, 0.0, 5)
    assert budget.cost.coefficients.tolist() != before
