"""What the engine asks of a drafter: MixedProposer is the paper's, AdaptiveProposer prices every guess; tests
bring their own.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from drafting.tree import CandidateTrees


class Proposer(Protocol):
    """Proposes candidate trees; what it knows of one sequence is the state that `start` returns, kept by the
    sequence.
    """

    source_names: tuple[str, ...]
    max_nodes: int
    max_depth: int

    def wants_successors(self) -> int:
        """How many of them recycle would take for each row of this step; 0 = it has no use for them now.

        Asked once in a step.
        """

    def start(self, token_ids: NDArray[np.int32], group: str = "") -> Any:
        """The state of a sequence that begins with these tokens (prompt, and output if it was preempted).

        group: rows that resemble it.
        """

    def extend(self, states: Sequence[Any], token_ids: NDArray[np.int32], offsets: NDArray[np.int64]) -> None:
        """Takes in newly committed tokens, token_ids[offsets[b] : offsets[b + 1]] of sequence b, scoring
        nothing.
        """

    def propose(
        self, states: Sequence[Any], max_depths: NDArray[np.int32], min_survival: float = 0.0
    ) -> CandidateTrees:
        """One tree per state, none deeper than max_depths [B] (0 = no tree) nor larger than max_nodes; of
        calibrated guesses only those that survive with at least min_survival: the fewer, the less time this
        takes.
        """

    def learn(
        self,
        states: Sequence[Any],
        candidates: CandidateTrees,
        token_ids: NDArray[np.int32],
        offsets: NDArray[np.int64],
    ) -> None:
        """After a step: sequence b got token_ids[offsets[b] : offsets[b + 1]].

        Scores its candidates and takes its tokens in.
        """

    def reward(self, sources: NDArray[np.uint8]) -> None:
        """The guesses of these sources were accepted in a step that verified some."""

    def recycle(self, token_ids: NDArray[np.int32], successors: NDArray[np.int32]) -> None:
        """token_ids [R] went through the model, whose likeliest next tokens are successors [R, k], best
        first.
        """

    def finish(self, state: Any) -> None:
        """The sequence has ended; others may learn from it. The state must not be used again."""

    def drop(self, state: Any) -> None:
        """The sequence is given up; it is forgotten. The state must not be used again."""
