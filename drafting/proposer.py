"""What the engine asks of a drafter. MixedProposer is the paper's; tests bring their own (all right, all wrong, random)."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from drafting.tree import DraftTrees


class Proposer(Protocol):
    """Proposes a draft tree for each sequence; what it knows of one sequence is the state that `start` returns, kept by the sequence."""

    source_names: tuple[str, ...]
    max_nodes: int
    max_depth: int

    def start(self, token_ids: NDArray[np.int32]) -> Any:
        """The state of a sequence that begins with these tokens (prompt, and output if it was preempted)."""

    def extend(self, state: Any, token_ids: NDArray[np.int32]) -> None:
        """Takes in newly committed tokens of the sequence."""

    def propose(self, states: Sequence[Any], max_depths: NDArray[np.int32]) -> DraftTrees:
        """One tree per state, none deeper than max_depths [B] (0 = no tree) nor larger than max_nodes."""
