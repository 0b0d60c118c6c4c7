"""What the engine asks of a drafter.

MixedProposer is the paper's fixed strategy, AdaptiveProposer gives each candidate a probability.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from drafting.tree import CandidateTrees


class Proposer(Protocol):
    """Proposes candidate trees. What it knows of a sequence is a state, which the sequence keeps."""

    source_names: tuple[str, ...]
    max_nodes: int
    max_depth: int

    def start(self, token_ids: NDArray[np.int32], group: str = "") -> Any:
        """The state of a sequence that begins with these tokens: prompt, and output after a preemption.

        group: the name that rows which resemble each other share.
        """

    def extend(self, states: Sequence[Any], token_ids: NDArray[np.int32], offsets: NDArray[np.int64]) -> None:
        """Takes in committed tokens, token_ids[offsets[b] : offsets[b + 1]] of sequence b; scores nothing."""

    def propose(
        self, states: Sequence[Any], max_depths: NDArray[np.int32], min_survival: float = 0.0
    ) -> CandidateTrees:
        """One tree per state, none deeper than max_depths [B] (0 = no tree) nor larger than max_nodes.

        Where survival is estimated, it is at least min_survival; fewer nodes take less time.
        """

    def learn(
        self,
        states: Sequence[Any],
        candidates: CandidateTrees,
        token_ids: NDArray[np.int32],
        offsets: NDArray[np.int64],
    ) -> None:
        """Takes in a step: sequence b got token_ids[offsets[b] : offsets[b + 1]]. Scores its candidates."""

    def reward(self, sources: NDArray[np.uint8]) -> None:
        """Takes in the sources of the nodes that were accepted in a step that verified some."""

    def wants_successors(self) -> int:
        """How many successors of a token `recycle` would take in this step. Asked once per step."""

    def recycle(self, token_ids: NDArray[np.int32], successors: NDArray[np.int32]) -> None:
        """Takes in the likeliest next tokens, successors [R, k], best first, of tokens [R] that ran."""

    def finish(self, state: Any) -> None:
        """Ends a sequence; others may draft from it. The state must not be used again."""

    def drop(self, state: Any) -> None:
        """Forgets a sequence that is given up. The state must not be used again."""
