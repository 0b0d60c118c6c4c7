"""How many guesses a step can afford, over all running sequences: the price of time, and the pauses when none is worth it.

Candidates come in, the trees to verify go out. What the candidates are is the proposer's business, what a step costs is
cost.py's, the choice itself budget.py's. The engine decides with it, and a simulated job too.
"""

from dataclasses import dataclass

import numpy as np

from drafting.budget import choose
from drafting.cost import CostModel, StepShape
from drafting.tree import Candidates, DraftTrees

# The price of time follows the job within about 64 steps.
MEMORY_STEPS = 64.0
LONGEST_PAUSE = 64
# Whether thinking of guesses pays is judged by about the last 8 steps that did.
MEMORY_PROPOSALS = 8.0
# A load that has changed by this factor since the last look ends a pause.
LOAD_CHANGE = 1.25


@dataclass
class Decision:
    """The last choice: price in tokens per second, candidates seen, nodes chosen, what they gain in tokens after their cost."""

    price: float = 0.0
    num_candidates: int = 0
    num_nodes: int = 0
    gain: float = 0.0


class Budget:
    """One per engine. `wants` says whether to propose at all, `choose` what is verified, `observe` takes in what it gave."""

    def __init__(self, cost: CostModel, max_step_nodes: int) -> None:
        self.cost = cost
        self.max_step_nodes = max_step_nodes
        self.last = Decision()
        self._tokens = self._seconds = 0.0
        self._gain = self._thinking = 0.0  # tokens gained by guesses, and what thinking of them cost in tokens
        self._pause = self._waited = self._load = 0
        self._proposed = False

    @property
    def price(self) -> float:
        """Tokens that a second is worth: the job's running rate, plain steps counted too. 0 until a step was measured."""
        return self._tokens / self._seconds if self._seconds else 0.0

    def wants(self, num_sequences: int) -> bool:
        """Whether this step should propose. While guesses gain less than thinking of them costs, pauses of 1, 2, 4 ... 64 steps."""
        if not self._load / LOAD_CHANGE <= num_sequences <= self._load * LOAD_CHANGE:
            self._pause = 0
        self._waited += 1
        return self._waited > self._pause

    def least_survival(self, plain: StepShape) -> float:
        """No guess that survives less often can be worth its price in this step: half of what the cheapest row costs."""
        extra = self.cost.extra(plain, 4 * int(plain.sequences) + 16)[1:]
        return 0.5 * self._price(plain) * float((extra / np.arange(1, len(extra) + 1)).min())

    def choose(self, candidates: Candidates, plain: StepShape) -> DraftTrees:
        """The candidates worth verifying in a step that has shape `plain` without them; none = the plain step."""
        price, most = self._price(plain), min(len(candidates.token_ids), self.max_step_nodes)
        trees, gain = choose(candidates, self.cost.extra(plain, most), price)
        self.last, self._proposed = Decision(price, len(candidates.token_ids), len(trees.token_ids), gain), True
        return trees

    def observe(self, plain: StepShape, num_nodes: int, seconds: float, thinking: float, num_tokens: int) -> None:
        """A step of shape `plain` and num_nodes guesses took so long, `thinking` beside it, and gave so many tokens."""
        if plain.rows == plain.sequences:  # prompt chunks cost otherwise, and are not what is decided about
            self.cost.observe(plain.with_nodes(num_nodes), seconds)
        keep = 1.0 - 1.0 / MEMORY_STEPS
        self._tokens, self._seconds = keep * self._tokens + num_tokens, keep * self._seconds + seconds + thinking
        if self._proposed:
            self._judge(int(plain.sequences), thinking * self.price)

    def _judge(self, num_sequences: int, thinking: float) -> None:
        """Whether the next steps should propose too: what guesses gained and what thinking of them cost, in tokens."""
        keep = 1.0 - 1.0 / MEMORY_PROPOSALS
        self._gain = keep * self._gain + (1 - keep) * self.last.gain
        self._thinking = keep * self._thinking + (1 - keep) * thinking
        self._proposed, self._waited, self._load = False, 0, num_sequences
        self._pause = 0 if self._gain > self._thinking else min(LONGEST_PAUSE, 2 * self._pause or 1)

    def _price(self, plain: StepShape) -> float:
        return self.price or plain.sequences / self.cost.seconds(plain)
