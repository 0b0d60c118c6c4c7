"""Drafting for the sequences of a step: what is proposed, what is verified, what is learned.

A Speculation owns the proposer, what the proposer knows of each sequence, and the controller that decides how
much is verified. It does not know pages, packed tokens or logits, nor whether a model runs or a recording is
replayed.
"""

from collections.abc import Callable
from collections.abc import Sequence as Many
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from drafting.adaptive.cost_model import StepShape
from drafting.likely import UInt32
from drafting.proposer import Proposer
from drafting.sampling import Sampling
from drafting.tree import CandidateTrees, DraftTrees, Int32, Int64


class DraftedSequence(Protocol):
    """What is read of a sequence in flight.

    draft_state: what the proposer knows of its first num_drafted tokens.
    """

    draft_state: Any
    num_drafted: int

    @property
    def group(self) -> str:
        """The name that rows which resemble each other share."""

    @property
    def sampling(self) -> Sampling | None:
        """How its tokens are drawn; None where that is not known."""

    @property
    def prediction_ids(self) -> Many[int]:
        """What its output probably becomes; empty where nothing is known."""

    num_prompt: int

    @property
    def token_ids(self) -> Int32:
        """Prompt and output so far."""

    @property
    def num_tokens(self) -> int:
        """The number of tokens of prompt and output so far."""


class StepController(Protocol):
    """Decides about one step after the other; drafting/adaptive/controller.py prices drafts, VerifyAll does
    not.
    """

    num_pauses: int

    def wants_drafts(self, plain: Callable[[], StepShape], num_sequences: int) -> bool:
        """Whether a step should draft. num_sequences: the sequences that it gives a token; plain: returns the
        step's shape without nodes.
        """

    @property
    def min_survival(self) -> float:
        """The least survival that a candidate of this step can be worth."""

    @property
    def price(self) -> float:
        """The price by which this step's nodes were chosen, in tokens per second; 0 where nothing
        is priced.
        """

    @property
    def keeps_likely(self) -> bool:
        """Whether it may pay to keep what the model says in this step."""

    def choose(self, candidates: CandidateTrees) -> DraftTrees:
        """The nodes to verify in this step."""

    def observe(self, times: Callable[[], tuple[float, float]], num_tokens: int) -> None:
        """Takes in how many tokens came, and the step's times: seconds without drafting, and those of
        drafting.
        """


class VerifyAll:
    """The paper's fixed strategy: every step drafts, and every node is verified."""

    num_pauses = 0
    min_survival = 0.0
    price = 0.0
    keeps_likely = True

    def wants_drafts(self, plain: Callable[[], StepShape], num_sequences: int) -> bool:
        """Every step drafts."""
        return True

    def choose(self, candidates: CandidateTrees) -> DraftTrees:
        """Every node is verified."""
        return candidates

    def observe(self, times: Callable[[], tuple[float, float]], num_tokens: int) -> None:
        """A fixed strategy learns nothing from what steps cost."""


class NoSpeculation:
    """Plain decoding: a Speculation that never drafts, so that the step needs no case of its own for it."""

    source_names: tuple[str, ...] = ()
    max_nodes = 0
    max_depth = 0
    num_pauses = 0
    price = 0.0

    def wants_drafts(self, plain: Callable[[], StepShape], num_sequences: int) -> bool:
        """No step drafts."""
        return False

    def propose(self, sequences: Many[DraftedSequence], max_depths: Int32) -> None:
        """There is nothing to propose."""

    def choose(self, candidates: CandidateTrees) -> DraftTrees:
        """Without candidates nothing is chosen."""
        raise AssertionError("plain decoding has no candidates")

    def learn(
        self,
        sequences: Many[DraftedSequence],
        candidates: CandidateTrees,
        tokens: Many[tuple[int, ...]],
        likely: UInt32 | None = None,
    ) -> None:
        """There is nothing to learn."""

    def extend(self, sequences: Many[DraftedSequence], tokens: Many[tuple[int, ...]], likely: UInt32) -> None:
        """Nothing is kept."""

    def reward(self, sources: NDArray[np.uint8]) -> None:
        """No node was accepted."""

    def wants_likely(self) -> int:
        """What the model says is of no use."""
        return 0

    def wants_successors(self) -> int:
        """No successors are of use."""
        return 0

    def recycle(self, token_ids: Int32, likely: UInt32) -> None:
        """No table takes successors in."""

    def observe(self, times: Callable[[], tuple[float, float]], num_tokens: int) -> None:
        """Nothing depends on what steps cost."""

    def finish(self, sequence: DraftedSequence) -> None:
        """Nothing is known of the sequence."""

    def drop(self, sequence: DraftedSequence) -> None:
        """Nothing is known of the sequence."""


class Speculation:
    """Drafts for the sequences that a step gives a token.

    A step calls wants_drafts, propose, choose, learn and observe, in this order.
    """

    def __init__(self, proposer: Proposer, controller: StepController) -> None:
        self.proposer = proposer
        self.controller = controller
        self.source_names = proposer.source_names
        self.max_nodes = proposer.max_nodes
        self.max_depth = proposer.max_depth
        self.wants_drafts = controller.wants_drafts
        self.choose = controller.choose
        self.observe = controller.observe
        self.reward = proposer.reward
        self.wants_successors = proposer.wants_successors
        self.recycle = proposer.recycle

    @property
    def num_pauses(self) -> int:
        """Steps that could have drafted and did not even propose."""
        return self.controller.num_pauses

    @property
    def price(self) -> float:
        """The price by which the latest nodes were chosen, in tokens per second; 0 where nothing
        is priced.
        """
        return self.controller.price

    def wants_likely(self) -> int:
        """How many of the likeliest tokens at each place are kept of this step."""
        return self.proposer.wants_likely() if self.controller.keeps_likely else 0

    def propose(self, sequences: Many[DraftedSequence], max_depths: Int32) -> CandidateTrees | None:
        """Candidate trees that are not deeper than max_depths [B]; None where no sequence has room for a
        draft.
        """
        if not max_depths.any():
            return None
        return self.proposer.propose(self._states(sequences), max_depths, self.controller.min_survival)

    def learn(
        self,
        sequences: Many[DraftedSequence],
        candidates: CandidateTrees,
        tokens: Many[tuple[int, ...]],
        likely: UInt32 | None = None,
    ) -> None:
        """Takes in the tokens that the step gave each of the sequences for which there were candidates.

        likely: what the model said where it gave each token, packed [N, M]; None = that is not known.
        """
        states = [sequence.draft_state for sequence in sequences]
        self.proposer.learn(states, candidates, *_joined(tokens), likely)
        for sequence in sequences:
            sequence.num_drafted = sequence.num_tokens

    def extend(self, sequences: Many[DraftedSequence], tokens: Many[tuple[int, ...]], likely: UInt32) -> None:
        """Takes in the tokens of a step that did not draft, and what the model said where it gave them."""
        ends = [sequence.num_tokens - len(some) for sequence, some in zip(sequences, tokens, strict=True)]
        self.proposer.extend(self._states(sequences, ends), *_joined(tokens), likely)
        for sequence in sequences:
            sequence.num_drafted = sequence.num_tokens

    def finish(self, sequence: DraftedSequence) -> None:
        """Ends a sequence; others may draft from what it said."""
        self.proposer.finish(self._states([sequence])[0])
        sequence.draft_state = None

    def drop(self, sequence: DraftedSequence) -> None:
        """Forgets a sequence that is given up."""
        if sequence.draft_state is not None:
            self.proposer.drop(sequence.draft_state)
            sequence.draft_state = None

    def _states(self, sequences: Many[DraftedSequence], ends: Many[int] | None = None) -> list[Any]:
        """What the proposer knows of each sequence, brought up to its first `ends` tokens; None = all of
        them.

        It learned nothing of the tokens that came during a pause.
        """
        if ends is None:
            ends = [sequence.num_tokens for sequence in sequences]
        late: list[tuple[DraftedSequence, Int32]] = []
        for sequence, end in zip(sequences, ends, strict=True):
            if sequence.draft_state is None:
                sequence.draft_state = self.proposer.start(
                    sequence.token_ids[:end],
                    sequence.group,
                    sequence.sampling,
                    sequence.num_prompt,
                    sequence.prediction_ids,
                )
                sequence.num_drafted = end
            elif sequence.num_drafted < end:
                late.append((sequence, sequence.token_ids[sequence.num_drafted : end]))
                sequence.num_drafted = end
        if late:
            offsets = np.cumsum([0, *(len(missing) for _, missing in late)])
            token_ids = np.concatenate([missing for _, missing in late])
            self.proposer.extend([sequence.draft_state for sequence, _ in late], token_ids, offsets)
        return [sequence.draft_state for sequence in sequences]


def _joined(tokens: Many[tuple[int, ...]]) -> tuple[Int32, Int64]:
    """The tokens of all sequences in one array, and where those of each begin."""
    offsets = np.cumsum([0, *map(len, tokens)])
    return np.fromiter((token for some in tokens for token in some), np.int32, int(offsets[-1])), offsets
