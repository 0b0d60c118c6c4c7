"""Drafts from every source at once, each candidate with the probability that it survives verification.

Owns the parts and the order in which a step uses them. Does not know what a candidate costs (budget.py), nor the
model.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drafting.adaptive import layout, search
from drafting.adaptive.arena import TokenArena, history_indices
from drafting.adaptive.calibration import Calibration
from drafting.adaptive.earnings import Earnings
from drafting.adaptive.layout import (
    CANDIDATE,
    NODE,
    NUM_FEATURES,
    POINTER,
    Int64,
    Model,
    Records,
    Scratch,
    WeighedCandidates,
)
from drafting.bigram import recycle_successors
from drafting.compiled import compiled
from drafting.tables import Tables
from drafting.tree import CandidateTrees, Int32

logger = logging.getLogger(__name__)
NUM_RECYCLED = 8
# Shares of the accepted candidates: following the chain through all histories takes a tenth of the time of a
# proposal, recycling up to a thirtieth of a step.
LEAST_OF_CORPUS = 0.01
LEAST_OF_BIGRAM = 0.03
FIRST_SEQUENCES = 16  # that there is room for at first
SAVE_EVERY = 512  # steps; a worker may be killed at any time
FLOOR = 0.004  # a candidate that survives in fewer steps than this is not worth a look


class AdaptiveProposer:
    """Candidate trees of all running sequences; a state is the index of its history in the arena.

    See SpeculationConfig.
    """

    source_names: tuple[str, ...] = ("context", "siblings", "corpus", "bigram")

    def __init__(
        self, *, max_nodes: int, corpus_tokens: int, tables: Tables, home: Path | None = None
    ) -> None:
        """home: the file that calibration begins with, if it is there, and that keeps what it learns for the
        next worker or job.
        """
        self._home = home
        self._num_learned = 0
        self.max_nodes = max_nodes
        self.max_depth = max_nodes
        self.arena = TokenArena(corpus_tokens)
        self.calibration = Calibration()
        if home:
            self.calibration.load(home)
        self.bigram = tables.bigram.copy() if tables.bigram is not None else np.empty((1, 0), np.int32)
        self._earnings = Earnings(len(self.source_names))
        self._scratch = _scratch(max_nodes, FIRST_SEQUENCES)

    def start(self, token_ids: Int32, group: str = "") -> int:
        """The state of a sequence that begins with these tokens, at least one; it finds what histories of its
        group said.
        """
        state = self.arena.add(group)
        self.extend([state], token_ids, np.array([0, len(token_ids)]))
        return state

    def extend(self, states: Sequence[int], token_ids: Int32, offsets: Int64) -> None:
        """Takes in newly committed tokens, token_ids[offsets[b] : offsets[b + 1]] of sequence b, scoring
        nothing.
        """
        self.arena.append(history_indices(states), token_ids, offsets)

    def propose(self, states: Sequence[int], max_depths: Int32, min_survival: float = 0.0) -> CandidateTrees:
        """One tree per state, none deeper than max_depths [B] (0 = no tree) nor larger than max_nodes, of
        nodes that survive with at least min_survival: the fewer, the less time this takes. The next call
        overwrites what learn needs.
        """
        arena = self.arena
        depths = np.minimum(max_depths, self.max_depth).astype(np.int32)
        if len(states) * layout.MAX_CANDIDATES > len(self._scratch.candidates):
            self._scratch = _scratch(self.max_nodes, 2 * len(states))
        scratch = self._scratch
        model = Model(self.calibration.scores, self.bigram)
        floor = max(FLOOR, min_survival)
        # The chain through all histories is the last one; where it does not earn its keep it is not followed.
        scratch.num_chains[0] = (
            layout.NUM_CHAINS if self._earnings.uses(layout.ALL, LEAST_OF_CORPUS) else layout.NUM_CHAINS - 1
        )
        candidate_offsets, offsets = both = np.zeros((2, len(states) + 1), np.int64)
        search.propose(
            arena.arrays, model, arena.histories, history_indices(states), depths, floor, scratch, both
        )
        candidates = WeighedCandidates(scratch.candidates, scratch.features_GF, candidate_offsets)
        token_ids, parents, depths, sources, matches, survival = _nodes_of(
            scratch.candidates, candidate_offsets, offsets
        )
        return CandidateTrees(token_ids, parents, depths, sources, matches, offsets, survival, candidates)

    def learn(
        self, states: Sequence[int], candidates: CandidateTrees, token_ids: Int32, offsets: Int64
    ) -> None:
        """After a step: sequence b got token_ids[offsets[b] : offsets[b + 1]].

        Scores every candidate whose parent was right.
        """
        if candidates.weighed is not None:
            self.calibration.learn(WeighedCandidates(*candidates.weighed), token_ids, offsets)
        self.extend(states, token_ids, offsets)
        self._num_learned += 1
        if self._home and self._num_learned % SAVE_EVERY == 0:
            self._save(self._home)

    def wants_successors(self) -> int:
        """How many of them recycle would take for each history; 0 while next to no accepted candidate comes from the
        bigram.
        """
        return NUM_RECYCLED if self._earnings.uses(layout.BIGRAM, LEAST_OF_BIGRAM) else 0

    def reward(self, sources: NDArray[np.uint8]) -> None:
        """The candidates of these sources were accepted in a step that verified some."""
        self._earnings.add(sources)

    def recycle(self, token_ids: Int32, successors: Int32) -> None:
        """token_ids [R] went through the model, whose likeliest next tokens are successors [R, k], best
        first.
        """
        recycle_successors(self.bigram, token_ids, successors)

    def finish(self, state: int) -> None:
        """The sequence has ended; others may learn from it. The state must not be used again."""
        self.arena.finish(state)

    def drop(self, state: int) -> None:
        """The sequence is given up; it is forgotten. The state must not be used again."""
        self.arena.drop(state)

    def clear(self) -> None:
        """Forgets what texts said: all finished histories, and biases; not how far each source is to be "
        "trusted."""
        self.arena.clear()
        self.calibration.biases[:] = 0

    def _save(self, home: Path) -> None:
        try:
            home.parent.mkdir(parents=True, exist_ok=True)
            self.calibration.save(home)
        except (
            OSError
        ) as error:  # a full or read-only disk costs the next job a warm start, and this one nothing
            logger.warning("calibration is not kept for the next job: %s", error)
            self._home = None


def _scratch(max_nodes: int, num_sequences: int) -> Scratch:
    children = (layout.MAX_CHILDREN, layout.NUM_VOTERS)
    num_candidates = num_sequences * layout.MAX_CANDIDATES
    return Scratch(
        pointers=np.zeros((max_nodes + 1) * layout.MAX_POINTERS, POINTER),
        nodes=np.zeros(max_nodes + 1, NODE),
        candidates=np.empty(num_candidates, CANDIDATE),
        features_GF=np.empty((num_candidates, NUM_FEATURES), np.int32),
        context=np.zeros(layout.MAX_MATCH, np.int32),
        recent=np.zeros(layout.MAX_MATCH, np.int32),
        num_chains=np.array([layout.NUM_CHAINS]),
        places_WC=np.zeros((layout.WALK, layout.NUM_CHAINS), np.int32),
        votes_CV=np.zeros(children, np.float32),
        longest_CV=np.zeros(children, np.int32),
        totals_V=np.zeros(layout.NUM_VOTERS, np.float32),
    )


@compiled
def _nodes_of(
    candidates: Records, candidate_offsets: Int64, offsets: Int64
) -> tuple[Int32, Int32, Int32, NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]]:
    """Token indices, parents, depths, sources, matches and survival of the candidates that became nodes, in the
    order of the nodes.
    """
    total = offsets[-1]
    token_ids = np.empty(total, np.int32)
    parents = np.empty(total, np.int32)
    depths = np.empty(total, np.int32)
    sources = np.empty(total, np.uint8)
    matches = np.empty(total, np.uint8)
    survival = np.empty(total, np.float32)
    for b in range(len(offsets) - 1):
        for j in range(candidate_offsets[b], candidate_offsets[b + 1]):
            candidate = candidates[j]
            if candidate.node > 0:
                i = offsets[b] + candidate.node - 1
                token_ids[i] = candidate.token
                parents[i] = candidate.parent
                depths[i] = candidate.depth
                sources[i] = candidate.source
                matches[i] = candidate.match
                survival[i] = candidate.survival
    return token_ids, parents, depths, sources, matches, survival
