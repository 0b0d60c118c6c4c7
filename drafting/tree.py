"""Draft trees: the guesses of many sequences, merged so that equal beginnings are verified once, in packed arrays.

Owns the layout and the merge of drafts into a tree (numba). Does not know where drafts come from, nor the model.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]


@dataclass(frozen=True)
class DraftTrees:
    """The draft trees of B sequences; sequence b owns nodes offsets[b] .. offsets[b + 1] - 1 of N.

    token_ids int32 [N]; parents int32 [N]: 0 = the root (the sequence's last token), i = the sequence's i-th node,
    counted from 1, always before its child; depths int32 [N]: 1 = child of the root; sources uint8 [N]: index into
    the proposer's source_names of the first draft that held the node; offsets int64 [B + 1].

    Drafts [7 8 9] and [7 8 5] of one sequence: token_ids 7 8 9 5, parents 0 1 2 2, depths 1 2 3 3.
    """

    token_ids: Int32
    parents: Int32
    depths: Int32
    sources: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    @staticmethod
    def empty(num_sequences: int) -> "DraftTrees":
        """Trees without nodes: the plain step."""
        none = np.zeros(0, np.int32)
        return DraftTrees(none, none, none, np.zeros(0, np.uint8), np.zeros(num_sequences + 1, np.int64))

    def num_nodes(self, sequence: int) -> int:
        """Nodes of one sequence's tree, the root not counted."""
        return int(self.offsets[sequence + 1] - self.offsets[sequence])
