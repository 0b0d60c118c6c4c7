"""A simulated job, by hand: three rows through two places, on a machine whose steps cost 10 ms and 1 ms per
row.
"""

from copy import deepcopy

import numpy as np
import pytest

from drafting.adaptive.controller import PRICE_MARKUP, Controller
from drafting.adaptive.cost_model import CostModel, Profile, StepShape
from drafting.replay.replayed_job import Job, compare
from drafting.replay.transcripts import Transcript
from drafting.speculation import Speculation, VerifyAll
from drafting.tree import CandidateTrees


def machine() -> CostModel:
    sizes = [
        (sequences, nodes, context) for sequences in (1, 4) for nodes in (0, 1, 7) for context in (64, 512)
    ]
    shapes = [StepShape(s, s * c, s * c, s).with_nodes(s * n) for s, n, c in sizes]
    return CostModel(
        Profile(shapes, [0.010 + 0.001 * shape.packed_tokens for shape in shapes]),
        np.array([1.0, 0, 0, 0, 0, 0]),
    )


class SameDraft:
    """Proposes the chain 6 7 for every sequence, each node as likely as it is told; remembers what it was
    told.
    """

    source_names = ("script",)
    max_nodes = max_depth = 2

    def __init__(self, survival: float = 1.0) -> None:
        self.survival = survival
        self.texts: dict[int, list[int]] = {}
        self.finished: list[list[int]] = []

    def start(self, token_ids, *args):
        self.texts[len(self.texts)] = token_ids.tolist()
        return len(self.texts) - 1

    def extend(self, states, token_ids, offsets, likely=None):
        for number, state in enumerate(states):
            self.texts[state] += token_ids[offsets[number] : offsets[number + 1]].tolist()

    def propose(self, states, max_depths, min_survival=0.0):
        count = len(states)
        depths = np.tile(np.array([1, 2], np.int32), count)
        none = np.zeros(2 * count, np.uint8)
        survival = np.full(2 * count, self.survival, np.float32)
        return CandidateTrees(depths + 5, depths - 1, depths, none, none, 2 * np.arange(count + 1), survival)

    def learn(self, states, candidates, token_ids, offsets, likely=None):
        self.extend(states, token_ids, offsets)

    def reward(self, sources):
        pass

    def wants_likely(self):
        return 0

    def wants_successors(self):
        return 0

    def recycle(self, token_ids, likely):
        pass

    def finish(self, state):
        self.finished.append(self.texts[state])

    def drop(self, state):
        self.texts[state] = []


def row(prompt: list[int], output: list[int]) -> Transcript:
    return Transcript("", "g", np.array(prompt, np.int32), np.array(output, np.int32))


ROWS = [row([1, 2, 3], [5, 6, 7, 8]), row([4, 4], [9, 9]), row([1, 2, 3], [5])]


def test_rows_are_prefilled_in_chunks_decoded_together_and_follow_one_another():
    plain = Job(machine(), batch_size=2, prefill_chunk=4).run(ROWS)
    # 3 + 1 prompt tokens; then the first row, with the last token of the second's prompt; both; then the
    # second has ended, and the third, whose prompt is known, takes its place: 4, 2, 2 and 2 rows.
    assert (plain.num_steps, plain.counts.tokens, plain.counts.calls) == (4, 7, 7)
    assert plain.seconds == pytest.approx(0.014 + 3 * 0.012)
    assert plain.tokens_per_second == pytest.approx(7 / 0.050)


def test_a_step_with_drafts_takes_their_rows_and_the_time_that_drafting_took():
    proposer = SameDraft()
    speculated = Job(machine(), 2, 4, Speculation(proposer, VerifyAll()), drafting_seconds=0.001).run(ROWS)
    # The first row's drafts are wrong before its 5 and right after it. Rows: 4 + 2, 2 + 4, 2 + 4; drafting
    # took its time for 1, 2 and 2 sequences.
    assert (speculated.num_steps, speculated.num_speculating, speculated.counts.calls) == (3, 3, 5)
    assert (speculated.counts.nodes, speculated.counts.accepted["script"]) == (10, 2)
    assert speculated.drafting_seconds == pytest.approx(0.005)
    assert speculated.seconds == pytest.approx(3 * 0.016 + 0.005)
    assert sorted(proposer.finished) == [[1, 2, 3, 5], [1, 2, 3, 5, 6, 7, 8], [4, 4, 9, 9]]
    figures = compare(Job(machine(), 2, 4).run(ROWS), speculated, proposer.source_names)
    assert figures["speedup"] == pytest.approx(0.050 / 0.053)
    assert figures["acceptance_length"] == 7 / 5


def test_drafting_is_measured_where_nothing_is_assumed():
    ticks = iter(range(100))
    speculated = Job(machine(), 2, 4, Speculation(SameDraft(), VerifyAll()), clock=lambda: next(ticks)).run(
        ROWS
    )
    assert (
        speculated.drafting_seconds == 2 * 3
    )  # from before proposing to after choosing, and for learning: a tick each in every step


def test_drafts_that_are_not_worth_their_price_leave_the_job_as_it_was():
    rows = [row([1], [9] * 300)]
    plain = Job(machine(), 1, 4).run(rows)
    hostile = SameDraft(survival=0.01)
    speculated = Job(
        machine(), 1, 4, Speculation(hostile, Controller(machine())), drafting_seconds=0.002
    ).run(rows)
    assert speculated.seconds - speculated.drafting_seconds == pytest.approx(plain.seconds)
    assert speculated.num_speculating == speculated.counts.nodes == 0
    assert speculated.num_priced < 50, "proposing pauses"


def test_what_was_said_in_pauses_is_known_too():
    rows = [row([1], [9] * 50)]
    short = SameDraft(survival=0.01)
    Job(machine(), 1, 4, Speculation(short, Controller(machine())), drafting_seconds=0.0).run(rows)
    assert short.finished == [[1] + [9] * 50]


def test_the_price_is_the_plain_rate_times_what_drafts_have_gained_lately():
    rows = [row([1], [6, 7, 5] * 50)]
    speculated = Job(
        machine(), 1, 4, Speculation(SameDraft(survival=0.9), Controller(machine())), drafting_seconds=0.0
    ).run(rows)
    # Two plain steps come first and give 6 7. Then the draft 6 7 is wrong before 5, and after that it is
    # right and 5 follows: 3 tokens in 13 ms.
    assert (speculated.num_steps, speculated.counts.nodes) == (52, 100)
    # Plain steps give a token in 11 ms. The speedup begins at 1, which counts for 4 steps.
    saved = 4 * 0.013
    spent = 4 * 0.013
    prices = []
    for num_tokens in [1] + 49 * [3]:
        prices.append(PRICE_MARKUP * max(1.0, saved / spent) / 0.011)
        saved = saved * 31 / 32 + num_tokens * 0.011
        spent = spent * 31 / 32 + 0.013
    assert speculated.price_sum == pytest.approx(sum(prices))


def test_costs_stay_what_they_are_while_steps_take_what_is_predicted():
    cost = machine()
    cost.coefficients[5] = 0.0001
    controller = Controller(CostModel(cost.profile, cost.coefficients))
    Job(
        deepcopy(controller.cost),
        1,
        4,
        Speculation(SameDraft(survival=0.9), controller),
        drafting_seconds=0.0,
    ).run([row([1], [6, 7, 5] * 50)])
    assert [scale.value for scale in controller.cost.scales[1]] == pytest.approx([1.0, 1.0])


def test_outputs_without_tokens_are_nothing_to_simulate():
    with pytest.raises(ValueError, match="no output token"):
        Job(machine(), 1, 4).run([row([1], [])])
