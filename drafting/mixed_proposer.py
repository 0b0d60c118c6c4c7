"""The paper's fixed strategy: sources are asked in order until num_drafts distinct drafts are found.

Owns the order. What is known of a sequence is its ContextIndex; tables are shared by all sequences. Does not
know the model.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from drafting.bigram import fill_bigram_drafts
from drafting.config import MixedConfig
from drafting.context import ContextIndex
from drafting.likely import UInt32
from drafting.sampling import Sampling
from drafting.tables import Tables
from drafting.tree import CandidateTrees, Int32, certain, merge_drafts
from drafting.unigram import fill_unigram_drafts


class MixedProposer:
    """Proposes, for each sequence, one tree of num_drafts drafts of draft_len tokens (see MixedConfig)."""

    def __init__(self, config: MixedConfig, max_nodes: int, tables: Tables) -> None:
        self.source_names = tuple(config.sources)
        self.max_nodes = max_nodes
        self.max_depth = config.draft_len
        self._num_drafts = config.num_drafts
        self._query_len = config.query_len
        matches = [min(config.query_len, 255) if name == "context" else 0 for name in config.sources]
        self._matches_S = np.array(matches, np.uint8)
        self._tables = tables

    def start(
        self,
        token_ids: Int32,
        group: str = "",
        sampling: Sampling | None = None,
        num_prompt: int = 0,
        prediction_ids: Sequence[int] = (),
    ) -> ContextIndex:
        """The state of a sequence that begins with these tokens; the paper knows nothing else of it."""
        return ContextIndex(token_ids, self._query_len)

    def extend(
        self,
        states: Sequence[ContextIndex],
        token_ids: Int32,
        offsets: NDArray[np.int64],
        likely: UInt32 | None = None,
    ) -> None:
        """Takes in newly committed tokens, token_ids[offsets[b] : offsets[b + 1]] of sequence b."""
        for state, first, last in zip(states, offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            state.extend(token_ids[first:last])

    def propose(
        self, states: Sequence[ContextIndex], max_depths: Int32, min_survival: float = 0.0
    ) -> CandidateTrees:
        """One tree per state, none deeper than max_depths [B] (0 = no tree); every node is to be verified."""
        depths_B = np.minimum(max_depths, self.max_depth)
        shape = (len(self.source_names), len(states), self._num_drafts)
        drafts_SBKW = np.empty((*shape, self.max_depth), np.int32)
        lengths_SBK = np.zeros(shape, np.int32)
        for name, drafts_BKW, lengths_BK in zip(self.source_names, drafts_SBKW, lengths_SBK, strict=True):
            self._fill(name, states, depths_B, drafts_BKW, lengths_BK)
        trees = merge_drafts(
            drafts_SBKW, lengths_SBK, depths_B, self._num_drafts, self.max_nodes, self._matches_S
        )
        return certain(trees)

    def learn(
        self,
        states: Sequence[ContextIndex],
        candidates: CandidateTrees,
        token_ids: Int32,
        offsets: NDArray[np.int64],
        likely: UInt32 | None = None,
    ) -> None:
        """Takes in the tokens that a step gave; there is nothing to calibrate."""
        self.extend(states, token_ids, offsets)

    def wants_likely(self) -> int:
        """The paper drafts from tokens alone."""
        return 0

    def wants_successors(self) -> int:
        """The paper's tables stay as they were built, so no successors are of use."""
        return 0

    def reward(self, sources: NDArray[np.uint8]) -> None:
        """The fill order is fixed, whatever comes of it."""

    def recycle(self, token_ids: Int32, likely: UInt32) -> None:
        """The paper's tables stay as they were built."""

    def finish(self, state: ContextIndex) -> None:
        """What one sequence said is of no use to another."""

    def drop(self, state: ContextIndex) -> None:
        """Nothing is shared, so there is nothing to free."""

    def _fill(
        self, name: str, states: Sequence[ContextIndex], depths_B: Int32, drafts_BKW: Int32, lengths_BK: Int32
    ) -> None:
        if name == "context":
            for index, (state, depth) in enumerate(zip(states, depths_B.tolist(), strict=True)):
                if depth > 0:
                    state.fill(depth, drafts_BKW, lengths_BK, index)
        elif name == "bigram" and self._tables.bigram is not None:
            last_ids_B = np.array([state.tokens[state.length - 1] for state in states], np.int32)
            fill_bigram_drafts(self._tables.bigram, last_ids_B, depths_B, drafts_BKW, lengths_BK)
        elif name == "unigram" and self._tables.unigram is not None:
            fill_unigram_drafts(self._tables.unigram, depths_B, drafts_BKW, lengths_BK)
