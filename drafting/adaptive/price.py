"""How many guesses a step can afford, over all running sequences, at the price that time has.

Candidates come in, the trees to verify go out. What the candidates are is the proposer's business, what a step costs is
cost.py's, the choice itself budget.py's. The engine decides with it, and a simulated job too.
"""

from dataclasses import dataclass

import numpy as np

from drafting.adaptive.budget import choose
from drafting.adaptive.cost_model import CostModel, Floats, Scale, StepShape
from drafting.adaptive.pauses import Pauses
from drafting.tree import Candidates, DraftTrees

MAX_STEP_NODES = 1024  # guesses of one step, over all sequences
# A gain of less than this share of a plain step's tokens is none: what it is compared with is known no better.
LEAST_GAIN = 0.04
# In a pause 2 of 16 steps are enough to know what plain steps cost; not the first one, which finds the caches full of other things.
LOOK_EVERY, FIRST_LOOK, LAST_LOOK = 16, 2, 3
# Steps in a row that thought and verified nothing: then trust goes half the way back to 1, or distrust would keep itself up for ever.
RESTORED_AFTER = 16


@dataclass
class Decision:
    """The last choice: sequences proposed for, candidates seen, nodes chosen, how many of these are expected to be accepted.

    price: in tokens per second. plain_rate: the same, had nothing been guessed; it is what the step is judged by.
    """

    price: float = 0.0
    plain_rate: float = 0.0
    num_sequences: int = 0
    num_candidates: int = 0
    num_nodes: int = 0
    expected: float = 0.0


class Budget:
    """One per engine. `wants` says whether to propose at all, `choose` what is verified, `observe` takes in what it gave.

    A second is worth the tokens that it would bring if it were spent on decoding the sequences that run now: the plain rate at this
    load, times how much faster than plain the job has decoded lately. Prompts are not in it: an accepted guess saves a step of decoding,
    never a prompt. So the price follows the load at once, while a batch fills as while it drains.
    """

    def __init__(self, cost: CostModel, max_step_nodes: int = MAX_STEP_NODES) -> None:
        self.cost = cost
        self.max_step_nodes = max_step_nodes
        self.last = Decision()
        self.pauses = Pauses()
        self._speedup = Scale()  # seconds of plain steps for the tokens that came, by the seconds it took
        self._trust = Scale()  # accepted guesses by expected ones: under high temperatures fewer come true
        self._num_empty = 0  # steps that thought since one verified a guess, or trust was restored
        self._num_plain = 0  # steps since one was to propose
        self._chosen = False  # whether `last` is of this step
        self._shape: StepShape | None = None  # that these are of:
        self._extra, self._rates = np.zeros(1), (0.0, 0.0)

    def wants(self, num_sequences: int) -> bool:
        """Whether this step should propose; see Pauses."""
        wanted = self.pauses.wants(num_sequences)
        self._num_plain = 0 if wanted else self._num_plain + 1
        self._chosen, self._shape = False, None
        return wanted

    @property
    def looks(self) -> bool:
        """Whether the time of this step, which does not propose, is worth measuring."""
        return FIRST_LOOK <= self._num_plain % LOOK_EVERY <= LAST_LOOK

    def least_survival(self, plain: StepShape, num_sequences: int) -> float:
        """No guess that survives less often can be worth its price in this step: half of what the cheapest row costs."""
        price, _, extra = self._costs(plain, num_sequences)
        return 0.5 * price * float((extra[1:] / np.arange(1, len(extra))).min())

    def choose(self, candidates: Candidates, plain: StepShape) -> DraftTrees:
        """The candidates worth verifying in a step that has shape `plain` without them; none = the plain step."""
        num_sequences, num_candidates = len(candidates.offsets) - 1, len(candidates.token_ids)
        price, plain_rate, extra = self._costs(plain, num_sequences, num_candidates)
        trees, expected = choose(candidates, extra, price / self._trust.value)
        self._chosen = True
        self.last = Decision(price, plain_rate, num_sequences, num_candidates, len(trees.token_ids), expected)
        return trees

    def observe(
        self, plain: StepShape, num_nodes: int, seconds: float, thinking: float, num_tokens: int
    ) -> None:
        """A step of shape `plain` and num_nodes guesses took so long, `thinking` beside it, and gave so many tokens.

        Prompt chunks cost otherwise, and are not what is decided about: the time of their steps teaches nothing here.
        """
        accepted, lost = num_tokens - self.last.num_sequences, thinking
        if self._chosen:
            self._learn_trust(num_nodes, accepted)
        if self._chosen and num_nodes:
            lost += seconds - self.cost.seconds(plain)
        if self._chosen and (plain.decoding or not num_nodes):
            gain = accepted - LEAST_GAIN * self.last.num_sequences - self.last.plain_rate * lost
            self.pauses.judge(gain, num_nodes, thinking / self.cost.seconds(plain))
        if plain.decoding:
            if self._chosen:
                self._speedup.observe(seconds + thinking, num_tokens / self.last.plain_rate, limited=False)
            self.cost.observe(plain.with_nodes(num_nodes), seconds)

    def _learn_trust(self, num_nodes: int, accepted: int) -> None:
        self._num_empty = 0 if num_nodes else self._num_empty + 1
        if num_nodes:
            self._trust.observe(self.last.expected, accepted, limited=False)
        elif self._num_empty == RESTORED_AFTER:
            self._trust, self._num_empty = Scale((1.0 + self._trust.value) / 2), 0

    def _costs(
        self, plain: StepShape, num_sequences: int, least_nodes: int = 0
    ) -> tuple[float, float, Floats]:
        """Price, plain rate, and what 0, 1, 2 ... nodes add to a step's seconds, once per step; least_nodes are in it if they may be."""
        least = min(least_nodes, self.max_step_nodes)
        if self._shape is not plain or len(self._extra) <= least:
            self._shape, self._extra = (
                plain,
                self.cost.extra(plain, min(max(least, 4 * num_sequences + 16), self.max_step_nodes)),
            )
            self._rates = self._price(plain, num_sequences)
        return *self._rates, self._extra

    def _price(self, plain: StepShape, num_sequences: int) -> tuple[float, float]:
        """What a second is worth, and the plain rate, both in tokens per second."""
        context = plain.keys / max(1.0, plain.sequences)
        decoding = StepShape(num_sequences, num_sequences * context, num_sequences * context, num_sequences)
        plain_rate = num_sequences / self.cost.seconds(decoding)
        return plain_rate * max(1.0, self._speedup.value), plain_rate
