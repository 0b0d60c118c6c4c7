"""How many guesses a step can afford, over all running sequences, at the price that time has.

Candidates come in, the trees to verify go out. What the candidates are is the proposer's business, what a step costs is
cost.py's, the choice itself budget.py's. The engine decides with it, and a simulated job too.
"""

from dataclasses import dataclass

import numpy as np

from drafting.budget import choose
from drafting.cost import LARGEST_SURPRISE, CostModel, StepShape
from drafting.pauses import Pauses
from drafting.tree import Candidates, DraftTrees

MAX_STEP_NODES = 1024  # guesses of one step, over all sequences
# The price of time follows the job within about 64 steps.
MEMORY_STEPS = 64.0
# A gain of less than this share of a plain step's tokens is none: what it is compared with is known no better.
LEAST_GAIN = 0.1
PAUSED_LOOKS = 8  # in a pause every 8th step is enough to know what plain steps cost


@dataclass
class Decision:
    """The last choice: price in tokens per second, candidates seen, nodes chosen, what they gain in tokens after their cost."""

    price: float = 0.0
    num_candidates: int = 0
    num_nodes: int = 0
    gain: float = 0.0


class Budget:
    """One per engine. `wants` says whether to propose at all, `choose` what is verified, `observe` takes in what it gave."""

    def __init__(self, cost: CostModel, max_step_nodes: int = MAX_STEP_NODES) -> None:
        self.cost = cost
        self.max_step_nodes = max_step_nodes
        self.last = Decision()
        self._tokens = self._seconds = 0.0
        self.pauses = Pauses()
        self._num_proposed = 0  # sequences that the last step proposed for
        self._num_plain = 0  # steps since one proposed

    @property
    def price(self) -> float:
        """Tokens that a second is worth: the job's running rate, plain steps counted too. 0 until a step was measured."""
        return self._tokens / self._seconds if self._seconds else 0.0

    def wants(self, num_sequences: int) -> bool:
        """Whether this step should propose; see Pauses."""
        return self.pauses.wants(num_sequences)

    def least_survival(self, plain: StepShape) -> float:
        """No guess that survives less often can be worth its price in this step: half of what the cheapest row costs."""
        extra = self.cost.extra(plain, 4 * int(plain.sequences) + 16)[1:]
        return 0.5 * self._price(plain) * float((extra / np.arange(1, len(extra) + 1)).min())

    def choose(self, candidates: Candidates, plain: StepShape) -> DraftTrees:
        """The candidates worth verifying in a step that has shape `plain` without them; none = the plain step."""
        price, most = self._price(plain), min(len(candidates.token_ids), self.max_step_nodes)
        trees, gain = choose(candidates, self.cost.extra(plain, most), price)
        self.last, self._num_proposed = Decision(price, len(candidates.token_ids), len(trees.token_ids), gain), len(candidates.offsets) - 1
        return trees

    def observe(self, plain: StepShape, num_nodes: int, seconds: float, thinking: float, num_tokens: int) -> None:
        """A step of shape `plain` and num_nodes guesses took so long, `thinking` beside it, and gave so many tokens."""
        decoding = plain.rows == plain.sequences  # prompt chunks cost otherwise, and are not what is decided about
        if self._num_proposed and decoding:
            lost = thinking
            if num_nodes:
                expected = self.cost.seconds(plain.with_nodes(num_nodes))
                lost += min(seconds, LARGEST_SURPRISE * expected) - self.cost.seconds(plain)
            self.pauses.judge(num_tokens - (1 + LEAST_GAIN) * self._num_proposed - self._price(plain) * lost, num_nodes)
        self._num_plain = 0 if self._num_proposed else self._num_plain + 1
        self._num_proposed = 0
        if decoding and (num_nodes or self._num_plain % PAUSED_LOOKS < 2):
            self.cost.observe(plain.with_nodes(num_nodes), seconds)
        keep = 1.0 - 1.0 / MEMORY_STEPS
        self._tokens, self._seconds = keep * self._tokens + num_tokens, keep * self._seconds + seconds + thinking

    def _price(self, plain: StepShape) -> float:
        return self.price or plain.sequences / self.cost.seconds(plain)
