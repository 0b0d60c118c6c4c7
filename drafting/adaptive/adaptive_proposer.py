"""Drafts from every source at once, each candidate with the probability that it survives verification.

Owns the parts, and the order in which a step uses them. Does not know what a node costs (controller.py), nor
the model.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drafting.adaptive import layout, search
from drafting.adaptive.arena import TokenArena, group_number, history_indices
from drafting.adaptive.calibration import Calibration
from drafting.adaptive.earnings import Earnings
from drafting.adaptive.features import NUM_NOISY, NUM_PLAIN
from drafting.adaptive.layout import Int64, Model, Records, Scratch, WeighedCandidates
from drafting.bigram import empty_table, learn_packed, packed_table, recycle_successors
from drafting.compiled import compiled
from drafting.likely import UInt32
from drafting.sampling import Sampling
from drafting.tables import Tables
from drafting.tree import CandidateTrees, Int32, NodeArrays, empty_nodes

logger = logging.getLogger(__name__)
NUM_LIKELY = 8  # tokens that are kept of what the model said at a place
# A source is used while it gives this share of the accepted nodes. Following the chain through all histories
# takes a tenth of the time of a proposal, recycling up to a thirtieth of a step.
MIN_SHARE_OF_CORPUS = 0.01
MIN_SHARE_OF_BIGRAM = 0.03
FIRST_SEQUENCES = 16  # sequences that there is room for at first
SAVE_EVERY = 512  # steps between two writes of the calibration: a worker may be killed at any time
MIN_SURVIVAL = 0.004  # a candidate that survives less often than this is not worth a look


class AdaptiveProposer:
    """Candidate trees of all running sequences; a state is the index of its history in the arena."""

    source_names: tuple[str, ...] = ("context", "siblings", "corpus", "prediction", "reference", "bigram")

    def __init__(
        self,
        *,
        max_nodes: int,
        corpus_tokens: int,
        tables: Tables,
        home: Path | None = None,
        num_likely: int = NUM_LIKELY,
    ) -> None:
        """home: the file that calibration begins with, if it is there, and that keeps what it learns for the
        next job. num_likely: how many of the model's likeliest tokens are kept for each place.
        """
        self.max_nodes = max_nodes
        self.max_depth = max_nodes
        self.arena = TokenArena(corpus_tokens, num_likely)
        self.calibration = Calibration()
        bigram = tables.bigram if tables.bigram is not None else empty_table(0, 0)
        self.bigram: UInt32 = packed_table(bigram, tables.bigram_logprobs)
        # A history's prediction, by the indices of both.
        self._predictions: dict[int, int] = {}
        self._num_noisy = 0  # running sequences whose noise is known
        self._has_references = False
        self._home = home
        self._num_learned = 0
        if home:
            self.calibration.load(home)
        self._earnings = Earnings(len(self.source_names))
        self._scratch = _scratch(max_nodes, FIRST_SEQUENCES)

    def start(
        self,
        token_ids: Int32,
        group: str = "",
        sampling: Sampling | None = None,
        num_prompt: int = 0,
        prediction_ids: Sequence[int] = (),
    ) -> int:
        """The state of a sequence that begins with these tokens; see Proposer.start."""
        state = self.arena.add(group_number(group))
        self.extend([state], token_ids, np.array([0, len(token_ids)]))
        history = self.arena.histories[state]
        history["num_prompt"] = num_prompt
        if sampling is not None:
            for name in ("temperature", "top_p", "top_k", "min_p"):
                history[name] = getattr(sampling, name)
            history["seed"] = sampling.seed & 0xFFFFFFFFFFFFFFFF
            self._num_noisy += sampling.temperature > 0
        if len(prediction_ids):
            self._predict(state, np.array(prediction_ids, np.int32))
        return state

    def _predict(self, state: int, token_ids: Int32) -> None:
        prediction = self.arena.add(layout.PREDICTIONS)
        self._predictions[state] = prediction
        self.extend([prediction], token_ids, np.array([0, len(token_ids)]))
        known = self.arena.histories[prediction]
        history = self.arena.histories[state]
        history["prediction"] = known["id"]
        history["prediction_first"] = known["first"]

    def teach(self, token_ids: Int32) -> None:
        """Takes in a reference text, which stays for good."""
        if len(token_ids):
            self._has_references = True
            self.arena.keep_for_good(token_ids)

    def extend(
        self, states: Sequence[int], token_ids: Int32, offsets: Int64, likely: UInt32 | None = None
    ) -> None:
        """Takes in committed tokens, token_ids[offsets[b] : offsets[b + 1]] of sequence b; scores nothing."""
        self.arena.append(history_indices(states), token_ids, offsets, likely)

    def propose(self, states: Sequence[int], max_depths: Int32, min_survival: float = 0.0) -> CandidateTrees:
        """One tree per state, none deeper than max_depths [B] (0 = no tree) nor larger than max_nodes.

        Every node has a survival of at least min_survival; fewer nodes take less time. Call learn before
        the next propose, which overwrites what learn needs.
        """
        if len(states) * layout.MAX_CANDIDATES > len(self._scratch.candidates):
            self._scratch = _scratch(self.max_nodes, 2 * len(states))
        scratch = self._scratch
        # The chain through all histories is not followed where it does not earn its time.
        scratch.follows[:] = (self._earnings.uses(layout.ALL, MIN_SHARE_OF_CORPUS), self._has_references)
        both = np.zeros((2, len(states) + 1), np.int64)
        candidate_offsets, offsets = both
        search.propose(
            self.arena.arrays,
            Model(self.calibration.scores, self.bigram),
            self.arena.histories,
            history_indices(states),
            np.minimum(max_depths, self.max_depth).astype(np.int32),
            max(MIN_SURVIVAL, min_survival),
            scratch,
            both,
        )
        nodes, survival = _nodes_of(scratch.candidates, candidate_offsets, offsets)
        noisy = self.arena.histories["temperature"][history_indices(states)] > 0
        weighed = WeighedCandidates(
            scratch.candidates, scratch.features_GF, candidate_offsets, noisy, scratch.noisy_GF
        )
        return CandidateTrees(**nodes._asdict(), offsets=offsets, survival=survival, weighed=weighed)

    def learn(
        self,
        states: Sequence[int],
        candidates: CandidateTrees,
        token_ids: Int32,
        offsets: Int64,
        likely: UInt32 | None = None,
    ) -> None:
        """Takes in a step: sequence b got token_ids[offsets[b] : offsets[b + 1]].

        Scores every candidate whose parent was right.
        """
        if candidates.weighed is not None:
            self.calibration.learn(WeighedCandidates(*candidates.weighed), token_ids, offsets, likely)
        self.extend(states, token_ids, offsets, likely)
        self._num_learned += 1
        if self._home and self._num_learned % SAVE_EVERY == 0:
            self._save(self._home)

    def wants_likely(self) -> int:
        """How many of the likeliest tokens at each place `extend` and `learn` would take in now.

        0 while no row runs whose noise is known: without noise they gain less than they cost
        (docs/lab-notes.md).
        """
        return self.arena.num_likely if self._num_noisy else 0

    def wants_successors(self) -> int:
        """How many successors recycle would take; 0 while next to no accepted node comes from the bigram
        table.
        """
        return NUM_LIKELY if self._earnings.uses(layout.BIGRAM, MIN_SHARE_OF_BIGRAM) else 0

    def reward(self, sources: NDArray[np.uint8]) -> None:
        """Takes in the sources of the nodes that were accepted in a step that verified some."""
        self._earnings.add(sources)

    def recycle(self, token_ids: Int32, likely: UInt32) -> None:
        """Takes in what the model said, packed [R, M], after tokens [R] that ran through it."""
        recycle_successors(self.bigram, token_ids, likely)

    def read_successors(self, token_ids: Int32) -> None:
        """Lets the bigram table learn from text, where no model can be asked."""
        learn_packed(self.bigram, token_ids)

    def finish(self, state: int) -> None:
        """Ends a sequence; others may draft from it. The state must not be used again."""
        self._leave(state)
        self.arena.finish(state)

    def drop(self, state: int) -> None:
        """Forgets a sequence that is given up. The state must not be used again."""
        self._leave(state)
        self.arena.drop(state)

    def _leave(self, state: int) -> None:
        """What is known of a running sequence alone is forgotten."""
        self._num_noisy -= bool(self.arena.histories["temperature"][state] > 0)
        if state in self._predictions:
            self.arena.drop(self._predictions.pop(state))

    def clear(self) -> None:
        """Forgets what texts said: all finished histories and the biases.

        Keeps how far each source is to be trusted.
        """
        self.arena.clear()
        self.calibration.biases[:] = 0

    def _save(self, home: Path) -> None:
        try:
            home.parent.mkdir(parents=True, exist_ok=True)
            self.calibration.save(home)
        except OSError as error:
            # A full or read-only disk costs the next job a warm start, and this one nothing.
            logger.warning("calibration is not kept for the next job: %s", error)
            self._home = None


def _scratch(max_nodes: int, num_sequences: int) -> Scratch:
    num_candidates = num_sequences * layout.MAX_CANDIDATES
    votes = (layout.MAX_CHILDREN, layout.NUM_VOTERS)
    return Scratch(
        pointers=np.zeros((max_nodes + 1) * layout.MAX_POINTERS, layout.POINTER),
        nodes=np.zeros(max_nodes + 1, layout.NODE),
        candidates=np.empty(num_candidates, layout.CANDIDATE),
        features_GF=np.empty((num_candidates, NUM_PLAIN), np.int32),
        noisy_GF=np.empty((num_candidates, NUM_NOISY), np.int32),
        context=np.zeros(layout.MAX_MATCH, np.int32),
        recent=np.zeros(layout.MAX_MATCH, np.int32),
        follows=np.ones(2, np.bool_),
        places_WC=np.zeros((layout.WALK, layout.NUM_WALKS), np.int32),
        votes_CV=np.zeros(votes, np.float32),
        longest_CV=np.zeros(votes, np.int32),
        totals_V=np.zeros(layout.NUM_VOTERS, np.float32),
        slots=np.zeros(layout.NUM_SLOTS, np.int32),
    )


@compiled
def _nodes_of(
    candidates: Records, candidate_offsets: Int64, offsets: Int64
) -> tuple[NodeArrays, NDArray[np.float32]]:
    """The candidates that became nodes, in the order of the nodes, and their survival."""
    total = offsets[-1]
    nodes = empty_nodes(total)
    survival = np.empty(total, np.float32)
    for b in range(len(offsets) - 1):
        for j in range(candidate_offsets[b], candidate_offsets[b + 1]):
            candidate = candidates[j]
            if candidate.node > 0:
                i = offsets[b] + candidate.node - 1
                nodes.token_ids[i] = candidate.token
                nodes.parents[i] = candidate.parent
                nodes.depths[i] = candidate.depth
                nodes.sources[i] = candidate.source
                nodes.matches[i] = candidate.match
                survival[i] = candidate.survival
    return nodes, survival
