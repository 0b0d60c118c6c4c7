"""How many nodes a step verifies and when drafting pauses: literal survivals on a machine whose costs are
known.

A step costs 10 ms and 1 ms for each packed token; one of a single token costs 11 ms.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drafting.adaptive.controller import (
    MAX_PAUSE,
    MIN_GAIN,
    PRICE_MARKUP,
    REFRESH_EVERY,
    REFRESH_STEPS,
    TRIAL_STEPS,
    Controller,
    LoadState,
    choose,
)
from drafting.adaptive.cost_model import CostModel, Profile, Scale, StepShape
from drafting.tree import CandidateTrees

PLAIN = StepShape(packed_tokens=4, cached_tokens=0, attended_tokens=0, sequences=4)
WITH_PROMPTS = StepShape(packed_tokens=500, cached_tokens=0, attended_tokens=0, sequences=4)
FREE = np.zeros(100)


def machine() -> CostModel:
    shapes = [
        StepShape(tokens, 0, 0, sequences, tokens - sequences)
        for sequences in (1, 4)
        for tokens in (4, 8, 16, 32)
    ]
    seconds = [0.011, *(0.010 + 0.001 * shape.packed_tokens for shape in shapes)]
    return CostModel(Profile([StepShape(1, 0, 0, 1), *shapes], seconds))


def candidate_trees(*trees: list[tuple[int, float]]) -> CandidateTrees:
    """One tree per argument; a node is (parent, survival), and node i of a tree holds token 10 + i."""
    nodes = [node for tree in trees for node in tree]
    none = np.zeros(len(nodes), np.uint8)
    return CandidateTrees(
        token_ids=np.array([10 + i for tree in trees for i in range(1, len(tree) + 1)], np.int32),
        parents=np.array([parent for parent, _ in nodes], np.int32),
        depths=np.ones(len(nodes), np.int32),
        sources=none,
        matches=none,
        offsets=np.cumsum([0, *map(len, trees)]),
        survival=np.array([survival for _, survival in nodes], np.float32),
    )


def chains(*survivals: list[float]) -> CandidateTrees:
    """One chain per argument, of nodes with these survivals."""
    return candidate_trees(
        *([(place, survival) for place, survival in enumerate(chain)] for chain in survivals)
    )


def drafting(controller: Controller, plain: StepShape = PLAIN, num_sequences: int = 4) -> Controller:
    """The controller in a step that drafts."""
    while not controller.wants_drafts(lambda: plain, num_sequences):
        pass
    return controller


# Choice


def test_the_best_nodes_of_all_sequences_are_chosen_while_they_are_worth_their_time() -> None:
    # A node costs 0.2 tokens. Node 12 of the first tree (0.1) is not worth it, so 13 becomes its second node;
    # node 12 of the second tree (0.25) stays.
    found = candidate_trees([(0, 0.9), (1, 0.1), (1, 0.3)], [(0, 0.4), (1, 0.25)])
    trees = choose(found, 0.1 * np.arange(6), price=2)
    assert trees.token_ids.tolist() == [11, 13, 11, 12]
    assert trees.parents.tolist() == [0, 1, 0, 1]
    assert trees.offsets.tolist() == [0, 2, 4]


def test_nothing_is_chosen_when_the_charge_for_any_tree_is_more_than_all_nodes_give() -> None:
    trees = choose(candidate_trees([(0, 0.5), (1, 0.4)]), np.array([0, 1.0, 1.0]), price=1)
    assert len(trees.token_ids) == 0
    assert trees.offsets.tolist() == [0, 0]


def test_a_stair_is_climbed_only_for_what_lies_beyond_it() -> None:
    stairs = np.array([0, 0.1, 0.1, 0.9, 0.9, 0.9])
    # Three nodes would cost 0.8 more than two for 0.5 more; five give 1.3 more.
    three = candidate_trees([(0, 0.6)], [(0, 0.6)], [(0, 0.5)])
    five = candidate_trees([(0, 0.6)], [(0, 0.6)], [(0, 0.5)], [(0, 0.5)], [(0, 0.3)])
    assert len(choose(three, stairs, price=1).token_ids) == 2
    assert len(choose(five, stairs, price=1).token_ids) == 5


def test_of_equal_survivals_parents_come_first() -> None:
    found = candidate_trees([(0, 0.5), (1, 0.5), (2, 0.5)], [(0, 0.5)])
    assert choose(found, np.array([0.0, 0, 0]), price=1).parents.tolist() == [0, 1]


def test_no_more_nodes_are_chosen_than_the_cost_curve_knows() -> None:
    assert choose(candidate_trees([(0, 1.0), (1, 1.0)]), np.zeros(1), price=0).offsets.tolist() == [0, 0]


def test_certain_nodes_are_all_taken_where_they_cost_nothing() -> None:
    found = candidate_trees([(0, 1.0), (0, 1.0)], [], [(0, 1.0)])
    assert choose(found, FREE, price=0).offsets.tolist() == [0, 2, 2, 3]


@given(
    st.lists(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=6), min_size=1, max_size=4),
    st.floats(0, 1),
)
def test_no_node_is_chosen_without_its_parent(
    trees: list[list[tuple[float, float]]], node_cost: float
) -> None:
    grown = []
    for tree in trees:
        nodes: list[tuple[int, float]] = []
        for where, share in tree:
            parent = int(where * len(nodes))
            nodes.append((parent, share * (nodes[parent - 1][1] if parent else 1)))
        grown.append(nodes)
    chosen = choose(candidate_trees(*grown), node_cost * np.arange(25), price=1)
    for first, last in zip(chosen.offsets[:-1], chosen.offsets[1:], strict=True):
        assert all(parent <= number for number, parent in enumerate(chosen.parents[first:last]))


def test_no_step_verifies_more_nodes_than_there_is_room_for() -> None:
    controller = drafting(Controller(machine(), max_step_nodes=3))
    assert len(controller.choose(chains([0.99] * 9, [], [], [])).token_ids) == 3


# Price


def test_before_anything_was_measured_a_second_is_worth_what_plain_steps_would_give() -> None:
    # 4 tokens in 14 ms, times the markup of 1.2: a node of 1 ms costs 0.34 tokens.
    chosen = drafting(Controller(machine())).choose(chains([0.9, 0.5, 0.2], [0.3], [0.45], []))
    assert chosen.offsets.tolist() == [0, 2, 2, 3, 3]
    assert chosen.depths.tolist() == [1, 1, 1]


def test_the_more_a_second_has_brought_lately_the_fewer_nodes_are_verified() -> None:
    controller = Controller(machine())
    numbers = []
    for speedup in (0.5, 2.0, 7.0):
        drafting(controller).speedup = Scale(speedup)
        drafting(controller)
        numbers.append(len(controller.choose(chains([0.9, 0.5, 0.2], [0.25], [0.45], [])).token_ids))
    # A node costs 0.34 tokens, never less than in plain decoding, then 0.69 and 2.4.
    assert numbers == [3, 1, 0]
    assert controller.price == pytest.approx(PRICE_MARKUP * 7 * 4 / 0.014, rel=0.01)


def test_the_price_follows_the_load_at_once_and_prompts_are_not_in_it() -> None:
    controller = Controller(machine())
    prices = []
    for shape in (StepShape(1, 0, 0, 1), WITH_PROMPTS):
        prices.append(drafting(controller, shape, num_sequences=1).price)
    # One sequence gets a token; in the second step the other three run prompts.
    assert prices == [pytest.approx(PRICE_MARKUP / 0.011, rel=0.01)] * 2


def test_candidates_that_no_price_could_buy_are_not_asked_for() -> None:
    # Half of 4 tokens / 14 ms x 1.2 x 1 ms.
    assert drafting(Controller(machine())).min_survival == pytest.approx(0.171, rel=0.15)


# What steps teach


def test_a_step_is_judged_by_its_tokens_and_the_time_it_took_beyond_a_plain_one() -> None:
    controller = drafting(Controller(machine()))
    gains = []
    controller.load.judge = lambda gain, share, num_nodes: gains.append((gain, share, num_nodes))  # type: ignore[method-assign]
    controller.choose(chains([0.9, 0.5], [], [], []))
    controller.observe(lambda: (0.016, 0.0014), num_tokens=6)
    # 2 tokens more than plain, for 2 ms of nodes and 1.4 ms of drafting at 0.286 tokens each, and the margin
    # of 4 sequences.
    assert gains == [
        (pytest.approx(2 - 3.4 * 0.286 - 4 * MIN_GAIN, abs=0.02), pytest.approx(0.1, rel=0.01), 2)
    ]


def test_a_step_that_proposed_nothing_is_not_judged() -> None:
    controller = Controller(machine())
    assert not controller.wants_drafts(lambda: PLAIN, 4)
    controller.observe(lambda: (0.014, 0.0), num_tokens=4)
    assert controller.load.num_drafted == 0


def kept_steps(pause: int) -> int:
    """In how many steps of a pause what the model says is kept."""
    controller = Controller(machine())
    controller.wants_drafts(lambda: PLAIN, 4)
    controller.load.pause = controller.load.plain_left = pause
    controller._num_plain = 0
    kept = 0
    for _ in range(pause):
        assert not controller.wants_drafts(lambda: PLAIN, 4)
        kept += controller.keeps_likely
    return kept


def test_what_the_model_says_is_kept_while_drafting_pays_and_less_the_longer_it_has_not() -> None:
    assert drafting(Controller(machine())).keeps_likely
    assert [kept_steps(pause) for pause in (1, 4, 8, 16, 128)] == [1, 4, 4, 4, 4]


def test_prompts_do_not_teach_what_steps_cost() -> None:
    controller = drafting(Controller(machine()), WITH_PROMPTS)
    before = controller.cost.seconds(PLAIN)
    controller.observe(lambda: (9.0, 0.0), num_tokens=4)
    assert controller.cost.seconds(PLAIN) == before
    drafting(controller).observe(lambda: (0.025, 0.0), num_tokens=4)
    assert controller.cost.seconds(PLAIN) > before


def test_the_second_and_third_plain_step_in_a_row_teach_what_plain_steps_cost_and_no_other() -> None:
    controller = Controller(machine())
    controller.load.plain_left = 9  # of no class yet
    learned = []
    for step in range(1, 7):
        controller.wants_drafts(lambda: PLAIN, 4)
        controller.load.plain_left = 9
        before = controller.cost.seconds(PLAIN)
        controller.observe(lambda: (0.02, 0.0), num_tokens=4)
        if controller.cost.seconds(PLAIN) != before:
            learned.append(step)
    assert learned == [2, 3]


def test_a_job_whose_every_step_runs_prompts_pauses_too() -> None:
    controller = Controller(machine())
    num_drafted = 0
    for _ in range(100):
        if controller.wants_drafts(lambda: WITH_PROMPTS, 4):
            num_drafted += 1
            controller.choose(chains([0.01], [0.01], [0.01], [0.01]))
        controller.observe(lambda: (0.5, 0.1), num_tokens=4)
    assert num_drafted < 10


# Pauses


def drafts(load: LoadState) -> bool:
    """Takes a step; whether it drafts."""
    load.plain_left -= load.plain_left > 0
    return load.plain_left == 0


def trial(load: LoadState, gain: float) -> int:
    """Waits for a step that drafts and gives each step of the trial this gain; returns the plain steps before
    it.
    """
    waited = load.plain_left
    load.plain_left = 0
    for _ in range(TRIAL_STEPS):
        assert load.plain_left == 0
        load.judge(gain, drafting_share=0.1, num_nodes=3)
    return waited


def test_pauses_grow_while_trials_gain_nothing() -> None:
    load = LoadState()
    assert [trial(load, -1.0) for _ in range(9)] == [REFRESH_STEPS, 1, 2, 4, 8, 16, 32, 64, MAX_PAUSE]


def test_a_trial_that_gains_ends_the_pauses_but_for_plain_steps_now_and_then() -> None:
    load = LoadState()
    for gain in (-1.0, -1.0, -1.0, 0.5):
        trial(load, gain)
    plain = 0
    for _ in range(10 * (REFRESH_EVERY + REFRESH_STEPS)):
        if load.plain_left:
            load.plain_left -= 1
            plain += 1
        else:
            load.judge(0.1, drafting_share=0.1, num_nodes=3)
    assert plain == 10 * REFRESH_STEPS


def test_one_bad_step_of_a_trial_or_of_good_times_is_forgiven() -> None:
    load = LoadState(plain_left=0)
    for gain in (1.0, -2.0, 1.0, 1.0, -0.1):
        assert load.plain_left == 0
        load.judge(gain, drafting_share=0.1, num_nodes=3)
    assert load.plain_left == 0


def test_when_drafting_no_longer_pays_a_pause_follows_within_some_steps() -> None:
    load = LoadState()
    trial(load, 1.0)
    steps = 0
    while not load.plain_left:
        load.judge(-1.0, drafting_share=0.1, num_nodes=3)
        steps += 1
    assert 3 <= steps <= 16


def test_a_trial_that_finds_nothing_to_verify_ends_with_its_first_step() -> None:
    load = LoadState()
    drafted = []
    for step in range(200):
        if load.plain_left:
            load.plain_left -= 1
        else:
            load.judge(-0.1, drafting_share=1.0, num_nodes=0)
            drafted.append(step)
    assert drafted == [2, 4, 7, 12, 21, 38, 71, 136]


@pytest.mark.parametrize(("drafting_share", "longest"), [(0.1, 50), (0.0105, 5), (0.0015, 0)])
def test_where_nothing_is_found_pauses_are_as_long_as_drafting_is_expensive(
    drafting_share: float, longest: int
) -> None:
    load = LoadState()
    for _ in range(20):
        load.plain_left = 0
        load.judge(-0.01, drafting_share, num_nodes=0)
    assert load.plain_left == longest


def test_each_load_class_is_judged_by_itself_and_remembered() -> None:
    controller = Controller(machine())
    for _ in range(9):
        controller.wants_drafts(lambda: PLAIN, 8)
        trial(controller.load, -1.0)
    assert controller.load.pause == MAX_PAUSE
    # The batch drains: a load that was never seen begins with a look at plain steps, and a trial.
    assert [controller.wants_drafts(lambda: PLAIN, 3) for _ in range(4)] == [False, False, True, True]
    trial(controller.load, 1.0)
    assert controller.wants_drafts(lambda: PLAIN, 2)
    # It fills again: the pause goes on.
    assert not any(controller.wants_drafts(lambda: PLAIN, 15) for _ in range(MAX_PAUSE))
    assert controller.wants_drafts(lambda: PLAIN, 15)
