"""A proposer at work: which sequences are guessed for, which guesses are verified, what is learned from a step.

Owns the proposer, its state of each sequence and the budget (None = every guess is verified, the paper's fixed strategy).
Does not know pages, rows or logits, nor whether a model runs or a recording is replayed.
"""

from collections.abc import Sequence as Many
from typing import Any, Protocol

import numpy as np

from drafting.adaptive.cost_model import StepShape
from drafting.adaptive.price import Budget
from drafting.proposer import Proposer
from drafting.tree import Candidates, DraftTrees, Int32


class Sequence(Protocol):
    """What is read of a sequence in flight; draft_state is what the proposer knows of it, of its first num_drafted tokens."""

    draft_state: Any
    num_drafted: int

    @property
    def group(self) -> str:
        """Rows that resemble each other have the same."""

    @property
    def token_ids(self) -> Int32:
        """Prompt and output so far."""

    @property
    def num_tokens(self) -> int:
        """Their number."""

    @property
    def finish_reason(self) -> str | None:
        """None while it runs."""


class Speculation:
    """Once in a step, for the sequences that it gives a token: wants, then propose, choose and learn where wanted, then observe."""

    def __init__(self, proposer: Proposer, budget: Budget | None = None) -> None:
        self.proposer = proposer
        self.budget = budget
        self.watches = False  # whether the shape and the time of this step are asked for
        self.num_pauses = 0  # steps that could have guessed and did not even propose

    @property
    def price(self) -> float:
        """Tokens per second by which the last choice priced a row's time; 0 where nothing is priced."""
        return self.budget.last.price if self.budget else 0.0

    def wants(self, num_sequences: int) -> bool:
        """Whether this step should propose: not while thinking of guesses costs more than they give."""
        if self.budget is None:
            return True
        wanted = self.budget.wants(num_sequences)
        self.watches = wanted or self.budget.looks
        self.num_pauses += not wanted
        return wanted

    def propose(self, sequences: Many[Sequence], max_depths: Int32, plain: StepShape) -> Candidates | None:
        """The candidates, none deeper than max_depths [B]; None when nothing may be guessed."""
        if not max_depths.any():
            return None
        least = self.budget.least_survival(plain, len(sequences)) if self.budget else 0.0
        return self.proposer.propose(self._states(sequences), max_depths, least)

    def choose(self, candidates: Candidates, plain: StepShape) -> DraftTrees:
        """The guesses to verify in a step that has shape `plain` without them."""
        return self.budget.choose(candidates, plain) if self.budget else candidates

    def learn(self, sequences: Many[Sequence], candidates: Candidates, taken: Many[tuple[int, ...]]) -> None:
        """Each of the sequences that were proposed for got its `taken` tokens."""
        offsets = np.cumsum([0, *map(len, taken)])
        token_ids = np.fromiter((token for tokens in taken for token in tokens), np.int32, int(offsets[-1]))
        self.proposer.learn([sequence.draft_state for sequence in sequences], candidates, token_ids, offsets)
        for sequence in sequences:
            sequence.num_drafted = sequence.num_tokens

    def observe(
        self, plain: StepShape, trees: DraftTrees, seconds: float, thinking: float, num_tokens: int
    ) -> None:
        """A step of shape `plain` and these trees took so long, and `thinking` seconds beside that, and gave so many tokens."""
        if self.budget:
            self.budget.observe(plain, len(trees.token_ids), seconds, thinking, num_tokens)

    def finish(self, sequence: Sequence) -> None:
        """The sequence has ended; others may learn from it, unless guesses have long been worth nothing."""
        if self.budget and self.budget.pauses.hopeless:
            self.drop(sequence)
            return
        self.proposer.finish(self._states([sequence])[0])
        sequence.draft_state = None

    def drop(self, sequence: Sequence) -> None:
        """Forgets a sequence that is given up."""
        if sequence.draft_state is not None:
            self.proposer.drop(sequence.draft_state)
            sequence.draft_state = None

    def _states(self, sequences: Many[Sequence]) -> list[Any]:
        """What the proposer knows of each sequence, made or brought up to its last token: in pauses it lags behind."""
        for sequence in sequences:
            if sequence.draft_state is None:
                sequence.draft_state = self.proposer.start(sequence.token_ids, sequence.group)
                sequence.num_drafted = sequence.num_tokens
        behind = [sequence for sequence in sequences if sequence.num_drafted < sequence.num_tokens]
        if behind:
            missing = [sequence.token_ids[sequence.num_drafted :] for sequence in behind]
            states, offsets = (
                [sequence.draft_state for sequence in behind],
                np.cumsum([0, *map(len, missing)]),
            )
            self.proposer.extend(states, np.concatenate(missing), offsets)
            for sequence in behind:
                sequence.num_drafted = sequence.num_tokens
        return [sequence.draft_state for sequence in sequences]
