"""What the engine asks of a drafter.

MixedProposer is the paper's fixed strategy, AdaptiveProposer gives each candidate a probability.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from drafting.likely import UInt32
from drafting.sampling import Sampling
from drafting.tree import CandidateTrees


class Proposer(Protocol):
    """Proposes candidate trees. What it knows of a sequence is a state, which the sequence keeps."""

    source_names: tuple[str, ...]
    max_nodes: int
    max_depth: int

    def start(
        self,
        token_ids: NDArray[np.int32],
        group: str = "",
        sampling: Sampling | None = None,
        num_prompt: int = 0,
        prediction_ids: Sequence[int] = (),
    ) -> Any:
        """The state of a sequence that begins with these tokens: prompt, and output after a preemption.

        group: the name that rows which resemble each other share. sampling: how its tokens are drawn, None =
        that is not known. num_prompt: how many of its tokens come before output position 0. prediction_ids:
        what the output probably becomes.
        """

    def extend(
        self,
        states: Sequence[Any],
        token_ids: NDArray[np.int32],
        offsets: NDArray[np.int64],
        likely: UInt32 | None = None,
    ) -> None:
        """Takes in committed tokens, token_ids[offsets[b] : offsets[b + 1]] of sequence b; scores nothing.

        likely: what the model said where it gave each token, packed [N, M] (drafting/likely.py); None = that
        is not known.
        """

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
        likely: UInt32 | None = None,
    ) -> None:
        """Takes in a step: sequence b got token_ids[offsets[b] : offsets[b + 1]]. Scores its candidates.

        likely: see extend.
        """

    def reward(self, sources: NDArray[np.uint8]) -> None:
        """Takes in the sources of the nodes that were accepted in a step that verified some."""

    def wants_likely(self) -> int:
        """How many of the likeliest tokens of a place `extend` and `learn` would take in this step; 0 = none.
        Asked once per step.
        """

    def wants_successors(self) -> int:
        """How many of the likeliest tokens `recycle` would take in this step; 0 = none. Asked at most once
        per step.
        """

    def recycle(self, token_ids: NDArray[np.int32], likely: UInt32) -> None:
        """Takes in what the model said, packed [R, M], after tokens [R] that ran through it."""

    def finish(self, state: Any) -> None:
        """Ends a sequence; others may draft from it. The state must not be used again."""

    def drop(self, state: Any) -> None:
        """Forgets a sequence that is given up. The state must not be used again."""
