"""Batched decoding on token ids, with or without speculation: add requests, step, take events.

`Engine.step` is the architecture: admit, propose, choose, forward, verify, commit, learn, retire. It knows no
text, no columns, no files and no ray.
"""

from collections.abc import Iterable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from drafting.adaptive.cost_model import StepShape
from drafting.outcomes import CandidateCounts
from drafting.speculation import NoSpeculation, Speculation
from drafting.tree import CandidateTrees, DraftTrees, Int32, prune
from engine.check_request import check_request
from engine.commit import commit, fail_not_finite
from engine.logprobs import path_logprobs, rows_of_tokens
from engine.model_runner import ModelRunner
from engine.recycling import likeliest_successors
from engine.request import Completion, Event, Request
from engine.scheduler import Chunk, Scheduler
from engine.sequence import Sequence
from engine.stats import EngineStats, PhaseTimer, phase, step_clock
from engine.step_plan import StepPlan
from engine.targets import NOT_FINITE, target_sampling, target_tokens
from engine.verify import Verified, verify


class Step:
    """What one step has come to; each phase fills in its part.

    chunks: the tokens that run. ending: the chunks that end with the last token of their sequence. sequences:
    the sequences of these chunks; each gets a token, and the fields below are in their order. inputs: the
    plan on the device. failed: sequences that get no token, because their prompt made numbers that are not
    finite.
    """

    chunks: list[Chunk]
    ending: list[Chunk]
    sequences: list[Sequence]
    candidates: CandidateTrees | None
    trees: DraftTrees
    plan: StepPlan
    inputs: dict[str, Any]
    logits: Tensor
    targets: NDArray[np.int64]
    verified: Verified
    events: list[Event]
    failed: list[Sequence]


class Engine:
    """One model, one cache, one way of speculation; engine/build.py makes an engine from settings."""

    def __init__(
        self,
        runner: ModelRunner,
        scheduler: Scheduler,
        speculation: Speculation | NoSpeculation,
        max_context: int,
    ) -> None:
        self.runner = runner
        self.scheduler = scheduler
        self.speculation = speculation
        self.max_context = max_context
        self.vocab_size = runner.loaded.vocab_size
        self.eos_ids = runner.loaded.eos_ids
        self.stats = EngineStats(CandidateCounts(speculation.source_names))
        self.timer = PhaseTimer(self.stats.seconds, step_clock(runner.loaded.device))
        self.debug = False  # checks trees and integrity in every step

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self.scheduler.waiting or self.scheduler.running)

    def add(self, request: Request) -> None:
        """Queues a request; raises ValueError for one that cannot run, whatever is wrong with it."""
        check_request(request, self.max_context, self.vocab_size)
        if self.scheduler.find(request.id):
            raise ValueError(f"request id {request.id!r} is already running; give each request its own id")
        stop_ids = request.stop_ids | (frozenset() if request.ignore_eos else self.eos_ids)
        self.scheduler.add(Sequence(request, stop_ids, self.max_context))

    def abort(self, request_id: str) -> bool:
        """Forgets an unfinished request and frees its pages; returns False when there is none of this id."""
        sequence = self.scheduler.find(request_id)
        if sequence:
            self.scheduler.abort(sequence)
            self.speculation.drop(sequence)
        return sequence is not None

    def step(self) -> list[Event]:
        """One forward pass for everything that runs; one event for each sequence that got new tokens."""
        step = Step()
        self.timer.start()
        self._admit(step)
        if step.chunks:
            self._propose(step)
            self._choose(step)
            self._run(step)
            if self._are_spoilt_by_nodes(step):
                self.runner.clear_staging()
                step.trees = DraftTrees.empty(len(step.sequences))
                self._run(step)
            self._commit(step)
            self._learn(step)
            self._retire(step)
            self._count(step)
        return step.events + [sequence.event([], ()) for sequence in step.failed]

    def generate(self, requests: Iterable[Request]) -> list[Completion]:
        """Runs requests to their ends; completions come in the order of the requests."""
        assert not self.has_work, "generate needs an idle engine: events of other requests would be lost"
        order: list[str] = []
        try:
            for request in requests:
                self.add(request)
                order.append(request.id)
        except ValueError:
            for request_id in order:  # nothing of this call is left in the engine
                self.abort(request_id)
            raise
        events: dict[str, list[Event]] = {request_id: [] for request_id in order}
        while self.has_work:
            for event in self.step():
                events[event.request_id].append(event)
        return [Completion.of(events[request_id]) for request_id in order]

    @phase("admit")
    def _admit(self, step: Step) -> None:
        self.scheduler.admit()
        step.chunks = self.scheduler.schedule()
        step.ending = [chunk for chunk in step.chunks if chunk.last]
        step.sequences = [chunk.sequence for chunk in step.ending]
        step.events = []
        step.failed = []

    @phase("propose")
    def _propose(self, step: Step) -> None:
        """Finds candidates for each sequence that gets a token, unless drafting does not pay at present."""
        step.candidates = None
        if step.ending and self.speculation.wants_drafts(
            partial(StepShape.of, step.chunks), len(step.ending)
        ):
            depths = self._max_draft_depths(step.sequences)
            step.candidates = self.speculation.propose(step.sequences, depths)
            if self.debug and step.candidates is not None:
                self._check_candidates(step.candidates, depths)

    @phase("choose")
    def _choose(self, step: Step) -> None:
        """Chooses the nodes to verify, takes pages for what they may commit, and cuts off what
        finds no page.
        """
        if step.candidates is None:
            step.trees = DraftTrees.empty(len(step.sequences))
            return
        trees = self.speculation.choose(step.candidates)
        max_depths = np.zeros(len(step.sequences), np.int32)
        for index, (first, end) in enumerate(pairwise(trees.offsets.tolist())):
            if first < end:
                sequence = step.sequences[index]
                wanted = sequence.num_tokens + int(trees.depths[first:end].max())
                max_depths[index] = max(0, self.scheduler.reserve(sequence, wanted) - sequence.num_tokens)
        step.trees = prune(trees, trees.depths <= max_depths.repeat(np.diff(trees.offsets)))

    def _run(self, step: Step) -> None:
        """From the tokens and nodes of a step to the tokens that they give."""
        self._plan(step)
        self._forward(step)
        self._sample(step)
        self._verify(step)

    def _are_spoilt_by_nodes(self, step: Step) -> bool:
        """Whether a sequence that has nodes got logits that are not finite.

        NaN comes through the mask that hides a wrong node from the others, so only a step without nodes shows
        what the sequence itself gives.
        """
        if not len(step.trees.token_ids):
            return False
        not_finite = step.verified.bonus == NOT_FINITE
        return bool(not_finite.any() and (not_finite & (np.diff(step.trees.offsets) > 0)).any())

    @phase("plan")
    def _plan(self, step: Step) -> None:
        self.runner.clear_pages(self.scheduler.pool.collect_unclean())
        step.plan = self.runner.plan(step.chunks, step.trees)
        step.inputs = self.runner.inputs(step.plan)

    @phase("forward")
    def _forward(self, step: Step) -> None:
        step.logits = self.runner.forward(step.inputs)

    @phase("sample")
    def _sample(self, step: Step) -> None:
        step.targets = target_tokens(step.logits, target_sampling(step.sequences, step.trees))

    @phase("verify")
    def _verify(self, step: Step) -> None:
        step.verified = verify(step.trees, step.targets)

    @phase("commit")
    def _commit(self, step: Step) -> None:
        """Gives the accepted tokens to their sequences, and their K/V its final place in the cache."""
        asked = [sequence.request.logprobs for sequence in step.sequences]
        logprobs = path_logprobs(step.logits, step.trees, step.verified, asked)
        overflowed = self.runner.overflowed(step.chunks)
        self.runner.keep_accepted(step.plan, step.sequences, step.verified)
        for sequence, num_tokens, _ in step.chunks:
            sequence.num_cached += num_tokens
        step.events = commit(step.ending, step.trees, step.verified, logprobs, self.speculation.source_names)
        step.failed = [sequence for sequence in overflowed if not sequence.finish_reason]
        for sequence in step.failed:
            fail_not_finite(sequence)

    @phase("learn")
    def _learn(self, step: Step) -> None:
        """Tells the proposer which nodes were accepted, what the model said, and which tokens came."""
        kept = self.speculation.wants_likely() if step.ending else 0
        recycled = 0
        if len(step.trees.token_ids):
            self.speculation.reward(step.trees.sources[step.verified.nodes])
            recycled = self.speculation.wants_successors()
        if step.candidates is None and not kept:
            return
        said = likeliest_successors(step.logits, max(kept, recycled)) if kept or recycled else None
        if said is not None and recycled:
            token_ids = step.plan.packed.token_ids[step.plan.packed.logits_indices].astype(np.int32)
            self.speculation.recycle(token_ids, said)
        tokens = [event.token_ids for event in step.events]
        likely = None
        if said is not None and kept:
            likely = said[rows_of_tokens(step.trees, step.verified, tokens)]
        if step.candidates is not None:
            self.speculation.learn(step.sequences, step.candidates, tokens, likely)
        elif likely is not None:
            self.speculation.extend(step.sequences, tokens, likely)

    @phase("retire")
    def _retire(self, step: Step) -> None:
        """Lets others find the pages that were filled, and frees those of finished sequences."""
        self.scheduler.publish([chunk for chunk in step.chunks if not chunk.sequence.error])
        for sequence in [sequence for sequence in self.scheduler.running if sequence.finish_reason]:
            self.speculation.finish(sequence)
            self.scheduler.retire(sequence)

    def _count(self, step: Step) -> None:
        """Adds the step to the counts, and tells the controller what it cost."""
        stats = self.stats
        lengths = [len(event.token_ids) for event in step.events]
        given = [length for length in lengths if length]  # a sequence that fails may get none
        stats.count_step(len(step.plan.packed.token_ids), len(step.trees.token_ids), given)
        stats.num_preemptions = self.scheduler.num_preemptions
        stats.num_prompt_tokens = self.scheduler.num_prompt_tokens
        stats.num_cached_tokens = self.scheduler.num_cached_tokens
        stats.num_pauses = self.speculation.num_pauses
        if step.candidates is not None:
            stats.candidates.add(step.candidates, step.trees, step.verified.first(np.array(lengths)))
            stats.num_proposals += 1
            stats.price_sum += self.speculation.price
        if step.events:
            self.speculation.observe(self.timer.split, sum(lengths))
        if self.debug:
            self.scheduler.check_integrity()

    def _max_draft_depths(self, sequences: list[Sequence]) -> Int32:
        """int32 [B]: how deep a tree of each sequence may be, by the tokens and the free pages
        that are left.
        """
        depths = np.zeros(len(sequences), np.int32)
        room = self.scheduler.pool.num_free * self.runner.page_size
        for index, sequence in enumerate(sequences):
            if sequence.request.speculate:
                own = len(sequence.page_ids) * self.runner.page_size - sequence.num_tokens
                depths[index] = min(sequence.max_draft_depth, own + room, self.speculation.max_depth)
        return depths

    def _check_candidates(self, candidates: CandidateTrees, max_depths: Int32) -> None:
        sizes = np.diff(candidates.offsets)
        assert (candidates.depths <= max_depths.repeat(sizes)).all(), "a tree is deeper than was asked for"
        assert sizes.max() <= self.speculation.max_nodes, (
            "a tree has more nodes than there is staging room for"
        )
