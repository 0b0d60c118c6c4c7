"""Decides in every step whether to draft at all, and how many nodes are verified over all sequences.

Candidate trees come in, the trees to verify go out. How likely a candidate is belongs to calibration.py, what
a step costs to cost_model.py. The engine and a simulated job decide by this same code; docs/drafting.md has a
worked example.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drafting.adaptive.cost_model import CostModel, Floats, Scale, StepShape, load_class
from drafting.compiled import compiled
from drafting.tree import CandidateTrees, DraftTrees, prune

MAX_STEP_NODES = 1024  # nodes of one step, over all sequences
# Chosen candidates come true less often than expected, since those that are overestimated are chosen first:
# so each of them has to promise more than it costs. The factor is the best of the simulated jobs in
# docs/lab-notes.md.
PRICE_MARKUP = 1.2
# A gain below this share of a plain step's tokens counts as none: drafting also makes other parts of the step
# slower, which no model of costs knows. Without it, sampled text at 16 sequences came to 0.95 of plain
# decoding.
MIN_GAIN = 0.04
TRIAL_STEPS = 4  # steps that draft after a pause before the next pause is decided
MEMORY_STEPS = 16  # the gain is a mean over about this many of the latest steps that drafted
MAX_PAUSE = 128  # steps
# In a longer pause than this, what the model says is kept in one of KEEP_EVERY steps: keeping it always took
# 2 to 4 % of a small model's steps.
SHORT_PAUSE = 8
KEEP_EVERY = 4
# A step that finds nothing to verify loses drafting time only. The pause after it is at most as long as it
# takes for that loss to be this share of the time.
MAX_LOSS = 0.002
# While drafting pays, REFRESH_STEPS of this many steps are plain, to learn what plain steps cost.
REFRESH_EVERY = 128
REFRESH_STEPS = 2


NO_SHAPE = StepShape(packed_tokens=0, cached_tokens=0, attended_tokens=0, sequences=0)


@dataclass
class LoadState:
    """What is known of one load class. It begins with a few plain steps, which show what plain steps cost."""

    plain_left: int = REFRESH_STEPS  # the next steps that do not draft
    pause: int = 0  # length of the latest pause, 0 while drafting pays
    gain: float = 0.0  # mean tokens gained by a step that drafted
    num_drafted: int = 0  # steps that drafted since the latest pause

    def judge(self, gain: float, drafting_share: float, num_nodes: int) -> None:
        """Takes in a step that drafted; decides whether a pause begins.

        gain: tokens beyond those of a plain step, less the tokens that plain decoding would have given in the
        additional time, less a margin. drafting_share: drafting time divided by the time of a plain step.
        """
        self.num_drafted += 1
        self.gain += (gain - self.gain) / min(self.num_drafted, MEMORY_STEPS)
        if num_nodes and self.num_drafted < TRIAL_STEPS:
            return
        if self.gain > 0:
            self.pause = 0
            if self.num_drafted % REFRESH_EVERY == 0:
                self.plain_left = REFRESH_STEPS
            return
        longest = MAX_PAUSE if num_nodes else min(MAX_PAUSE, int(drafting_share / MAX_LOSS))
        self.pause = min(longest, 2 * self.pause or 1)
        self.plain_left = self.pause
        self.num_drafted = 0
        self.gain = 0.0


@dataclass
class StepDecision:
    """The decision of one step, and what it rests on.

    num_sequences: sequences that get a token. is_measured: whether the step's shape and time are looked at.
    plain: the step's shape without nodes. plain_rate: tokens per second that plain decoding would give at
    this load. price: what a second of step time is worth, in tokens per second.
    """

    num_sequences: int
    drafts: bool = False
    is_measured: bool = False
    plain: StepShape = NO_SHAPE
    plain_rate: float = 0.0
    price: float = 0.0
    num_nodes: int = 0


class Controller:
    """One per engine. In each step: wants_drafts, then min_survival and choose where it does, then observe.

    1. Price. A second of step time is worth the tokens that it would bring if it were spent on decoding the
       sequences that run now: the rate of plain decoding at this load, times how much faster than plain the
       latest steps were, times a markup. Prompts are not in it: an accepted node saves a step of decoding and
       never a prompt.
    2. Choice. The step verifies the B best candidates over all sequences, for the B with the largest gain:
       expected accepted tokens, less the price of the seconds that B nodes add.
    3. Pause. Drafting costs time whatever is chosen, and nodes may cost more than predicted. So the gain of
       each step that drafted is measured. While its mean is not positive, drafting pauses for 1, 2, 4 ... 128
       steps, with trials of 4 steps in between. Each load class is judged by itself: what does not pay at 64
       sequences may pay at 2.
    """

    def __init__(self, cost: CostModel, max_step_nodes: int = MAX_STEP_NODES) -> None:
        self.cost = cost
        self.max_step_nodes = max_step_nodes
        self.num_pauses = 0  # steps that did not draft because of a pause
        self.speedup = Scale()  # ratio of the tokens that came to those of plain decoding in that time
        self.loads: dict[int, LoadState] = {}
        self.step = StepDecision(num_sequences=0)
        self._node_seconds: Floats = np.zeros(1)
        self._num_plain = 0  # plain steps since the latest step that drafted

    def wants_drafts(self, plain: Callable[[], StepShape], num_sequences: int) -> bool:
        """Whether a step should draft. num_sequences: the sequences that it gives a token; plain: returns the
        step's shape without nodes.
        """
        self.step = StepDecision(num_sequences)
        if self.load.plain_left:
            self.load.plain_left -= 1
            self.num_pauses += 1
            self._num_plain += 1
            # The first plain step after one that drafted finds the processor's caches full of other things.
            self.step.is_measured = self._num_plain in (2, 3)
        else:
            self._num_plain = 0
            self.step.drafts = self.step.is_measured = True
        if self.step.is_measured:
            self.step.plain = plain()
        if self.step.drafts:
            self._set_price()
        return self.step.drafts

    @property
    def keeps_likely(self) -> bool:
        """Whether it may pay to keep what the model says in this step.

        In a long pause every few steps are enough to find out, when the next trial comes, whether it would.
        """
        return self.step.drafts or self.load.pause <= SHORT_PAUSE or self._num_plain % KEEP_EVERY == 0

    @property
    def load(self) -> LoadState:
        """What is known of the load class of this step."""
        return self.loads.setdefault(load_class(self.step.num_sequences), LoadState())

    @property
    def price(self) -> float:
        """What a second of this step is worth, in tokens per second."""
        return self.step.price

    @property
    def min_survival(self) -> float:
        """Half of the price of this step's cheapest node: a candidate that survives less often cannot be
        worth it.
        """
        cheapest = (self._node_seconds[1:] / np.arange(1, len(self._node_seconds))).min()
        return 0.5 * self.step.price * float(cheapest)

    def choose(self, candidates: CandidateTrees) -> DraftTrees:
        """The candidates that are worth verifying in this step; where there are none, the step is plain."""
        step = self.step
        wanted = min(len(candidates.token_ids), self.max_step_nodes)
        if len(self._node_seconds) <= wanted:
            self._node_seconds = self.cost.node_seconds(step.plain, wanted)
        trees = choose(candidates, self._node_seconds, step.price)
        step.num_nodes = len(trees.token_ids)
        return trees

    def observe(self, times: Callable[[], tuple[float, float]], num_tokens: int) -> None:
        """Takes in the tokens that this step gave, and its times: seconds without drafting, and those of
        drafting.

        The cost model and the speedup learn nothing from steps with prompts: prompts have other costs, and
        the controller decides nothing about prompts.
        """
        step = self.step
        if not step.is_measured:
            return
        seconds, drafting_seconds = times()
        if step.drafts:
            self._judge(seconds, drafting_seconds, num_tokens)
        if not step.plain.has_prompts:
            self.cost.observe(step.plain.with_nodes(step.num_nodes), seconds)

    def _judge(self, seconds: float, drafting_seconds: float, num_tokens: int) -> None:
        step = self.step
        plain_seconds = self.cost.seconds(step.plain)
        lost = drafting_seconds + (seconds - plain_seconds if step.num_nodes else 0.0)
        gain = num_tokens - step.num_sequences - step.plain_rate * lost
        if not (step.plain.has_prompts and step.num_nodes):
            margin = MIN_GAIN * step.num_sequences
            self.load.judge(gain - margin, drafting_seconds / plain_seconds, step.num_nodes)
        if not step.plain.has_prompts:
            self.speedup.observe(seconds + drafting_seconds, num_tokens / step.plain_rate)

    def _set_price(self) -> None:
        step = self.step
        decoding = StepShape.decoding(step.num_sequences, step.plain.context)
        step.plain_rate = step.num_sequences / self.cost.seconds(decoding)
        step.price = step.plain_rate * max(1.0, self.speedup.value) * PRICE_MARKUP
        num_nodes = min(4 * step.num_sequences + 16, self.max_step_nodes)
        self._node_seconds = self.cost.node_seconds(step.plain, num_nodes)


def choose(candidates: CandidateTrees, node_seconds: Floats, price: float) -> DraftTrees:
    """The B* best candidates over all sequences.

    B* = argmax over B of (sum of the B best survivals) - price x node_seconds[B]. node_seconds float64 [M +
    1]: what B = 0 .. M nodes add to the step; it may be a staircase. price: tokens per second. At most M
    nodes are chosen; of equal values the smaller B wins, and 0 is the plain step. A child never survives more
    often than its parent, so the B best candidates are always whole trees.
    """
    return prune(candidates, _best(candidates.survival, node_seconds, float(price)))


@compiled
def _best(survival: NDArray[np.float32], node_seconds: Floats, price: float) -> NDArray[np.bool_]:
    """Which candidates are the B* best."""
    order = np.argsort(-survival, kind="mergesort")  # stable: a parent comes before a child that is as likely
    expected = 0.0
    most = 0.0
    best = 0
    for i in range(min(len(order), len(node_seconds) - 1)):
        expected += survival[order[i]]
        value = expected - price * node_seconds[i + 1]
        if value > most:
            most = value
            best = i + 1
    keep = np.zeros(len(survival), np.bool_)
    keep[order[:best]] = True
    return keep
