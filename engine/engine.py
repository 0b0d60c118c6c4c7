"""Batched decoding on token ids, with or without speculation: add requests, step, take events.

`step` is the architecture: admit, propose, choose, forward, verify, commit, retire. Knows no text, no columns, no files, no ray.
"""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from drafting.adaptive.cost_model import StepShape
from drafting.outcomes import GuessCounts
from drafting.speculation import Speculation
from drafting.tree import Candidates, DraftTrees, prune
from engine.logprobs import path_logprobs
from engine.model_runner import ModelRunner
from engine.recycling import likeliest_successors
from engine.request import Completion, Event, Logprobs, Request, Sampling, SequenceStats
from engine.sampling import SamplingRows, target_tokens
from engine.scheduler import Chunk, Scheduler
from engine.sequence import Sequence
from engine.stats import THINKING, EngineStats, PhaseTimer, step_clock
from engine.step_plan import StepPlan
from engine.verify import Verified, verify

NO_SHAPE = StepShape(0, 0, 0, 0)  # of steps without speculation: nobody asks what they cost


class Engine:
    """One model, one cache, one way of speculation (None = plain decoding). engine/build.py makes one from settings."""

    def __init__(
        self, runner: ModelRunner, scheduler: Scheduler, speculation: Speculation | None, max_context: int
    ) -> None:
        self.runner = runner
        self.scheduler = scheduler
        self.speculation = speculation
        self.source_names = speculation.proposer.source_names if speculation else ()
        self.max_context = max_context
        self.vocab_size = runner.loaded.vocab_size
        self.eos_ids = runner.loaded.eos_ids
        self.stats = EngineStats(GuessCounts(self.source_names))
        self._timer, self._clock = PhaseTimer(self.stats.seconds), step_clock(runner.loaded.device)
        self.debug = False  # checks trees and integrity in every step

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self.scheduler.waiting or self.scheduler.running)

    def add(self, request: Request) -> None:
        """Queues a request; raises ValueError for one that cannot run."""
        length = len(request.prompt_ids)
        if not 1 <= length < self.max_context:
            limit = f"it must have 1 to {self.max_context - 1}, the model's context less one"
            raise ValueError(
                f"the prompt has {length} tokens; {limit}: {'shorten it' if length else 'give it at least one'}"
            )
        low, high = min(request.prompt_ids), max(request.prompt_ids)
        if low < 0 or high >= self.vocab_size:
            wrong = low if low < 0 else high
            raise ValueError(
                f"the prompt holds token id {wrong}; ids of this model go from 0 to {self.vocab_size - 1}"
            )
        if request.max_tokens < 1:
            raise ValueError(f"max_tokens is {request.max_tokens}; it must be at least 1")
        if self.scheduler.find(request.id):
            raise ValueError(f"request id {request.id!r} is already running; give each request its own id")
        stop_ids = request.stop_ids | (frozenset() if request.ignore_eos else self.eos_ids)
        self.scheduler.add(Sequence(request, stop_ids, self.max_context))

    def abort(self, request_id: str) -> bool:
        """Forgets an unfinished request and frees its pages; False when there is none of this id."""
        sequence = self.scheduler.find(request_id)
        if sequence:
            self.scheduler.abort(sequence)
            if self.speculation:
                self.speculation.drop(sequence)
        return sequence is not None

    def step(self) -> list[Event]:
        """One forward pass for everything that runs; new tokens as events, one per sequence that got any."""
        started, mark = self._clock(), self._timer.start()
        self.scheduler.admit()
        chunks = self.scheduler.schedule()
        mark("schedule")
        if not chunks:
            return []
        finishing = [chunk for chunk in chunks if chunk.last]
        thinks = self.speculation is not None and bool(finishing) and self.speculation.wants(len(finishing))
        shape = _plain_shape(chunks) if self.speculation and self.speculation.watches else NO_SHAPE
        candidates = self._propose(finishing, shape) if thinks else None
        mark("propose")
        trees = self._choose(finishing, candidates, shape)
        mark("choose")
        plan = self.runner.plan(chunks, _spread(trees, chunks) if len(finishing) < len(chunks) else trees)
        inputs = self.runner.inputs(plan)
        mark("plan")
        logits = self.runner.forward(inputs)
        mark("forward")
        targets = target_tokens(logits, _sampling_rows(finishing, trees))
        mark("sample")
        verified = verify(trees, targets)
        logprobs = path_logprobs(
            logits, trees, verified, [chunk.sequence.request.logprobs for chunk in finishing]
        )
        mark("verify")
        self._keep_accepted(finishing, verified, plan.staged_slots)
        events = self._commit(chunks, finishing, trees, verified, logprobs)
        mark("commit")
        if len(trees.token_ids):
            self._reward(trees.sources[verified.nodes], plan, logits)
        if candidates is not None and self.speculation:
            self.speculation.learn(
                [chunk.sequence for chunk in finishing], candidates, [event.token_ids for event in events]
            )
        mark("learn")
        self.scheduler.publish(chunks)
        self._retire()
        mark("retire")
        self._count_step(plan, candidates, trees, verified, events)
        if self.speculation and self.speculation.watches:
            self._observe(shape, trees, self._clock() - started, events)
        return events

    def generate(self, requests: Iterable[Request]) -> list[Completion]:
        """Runs requests to their ends; completions in the order of the requests."""
        assert not self.has_work, "generate needs an idle engine: events of other requests would be lost"
        order: list[str] = []
        try:
            for request in requests:
                self.add(request)
                order.append(request.id)
        except ValueError:
            for request_id in order:  # nothing of this call stays behind
                self.abort(request_id)
            raise
        events: dict[str, list[Event]] = {request_id: [] for request_id in order}
        while self.has_work:
            for event in self.step():
                events[event.request_id].append(event)
        return [Completion.of(events[request_id]) for request_id in order]

    def _propose(self, finishing: list[Chunk], shape: StepShape) -> Candidates | None:
        """Candidates for each sequence that this step gives a token, as deep as tokens and free pages allow."""
        assert self.speculation
        sequences, depths = [chunk.sequence for chunk in finishing], np.zeros(len(finishing), np.int32)
        room = self.scheduler.pool.num_free * self.runner.page_size
        for index, sequence in enumerate(sequences):
            if sequence.request.speculate:
                own = len(sequence.page_ids) * self.runner.page_size - sequence.num_tokens
                depths[index] = min(sequence.max_draft_depth, own + room, self.speculation.proposer.max_depth)
        candidates = self.speculation.propose(sequences, depths, shape)
        if self.debug and candidates is not None:
            assert (candidates.depths <= depths.repeat(np.diff(candidates.offsets))).all(), (
                "a tree is deeper than was asked for"
            )
            most = self.speculation.proposer.max_nodes
            assert np.diff(candidates.offsets).max() <= most, (
                "a tree has more nodes than there is staging room for"
            )
        return candidates

    def _choose(self, finishing: list[Chunk], candidates: Candidates | None, shape: StepShape) -> DraftTrees:
        """The candidates to verify; pages are taken for what they may commit, and what they cannot hold is cut off."""
        if candidates is None:
            return DraftTrees.empty(len(finishing))
        assert self.speculation
        trees, limits = self.speculation.choose(candidates, shape), np.zeros(len(finishing), np.int32)
        for index, (chunk, (first, end)) in enumerate(
            zip(finishing, pairwise(trees.offsets.tolist()), strict=True)
        ):
            if first < end:
                sequence = chunk.sequence
                deepest = int(trees.depths[first:end].max())
                limits[index] = max(
                    0, self.scheduler.reserve(sequence, sequence.num_tokens + deepest) - sequence.num_tokens
                )
        return prune(trees, trees.depths <= limits.repeat(np.diff(trees.offsets)))

    def _keep_accepted(
        self, finishing: list[Chunk], verified: Verified, staged_slots: NDArray[np.int64]
    ) -> None:
        """Moves the K/V of accepted nodes to the slots behind their sequence's last token."""
        if not len(verified.nodes):
            return
        page_size, targets = self.runner.page_size, []
        for chunk, (first, end) in zip(finishing, pairwise(verified.offsets.tolist()), strict=True):
            page_ids, place = chunk.sequence.page_ids, chunk.sequence.num_tokens
            targets += [
                page_ids[p // page_size] * page_size + p % page_size
                for p in range(place, place + end - first)
            ]
        self.runner.keep(staged_slots[verified.nodes], np.array(targets, np.int64))

    def _commit(
        self,
        chunks: list[Chunk],
        finishing: list[Chunk],
        trees: DraftTrees,
        verified: Verified,
        logprobs: list[Logprobs | None],
    ) -> list[Event]:
        """Tokens to the sequences, and counts to their statistics."""
        for sequence, num_rows, _ in chunks:
            sequence.num_cached += num_rows
        if not len(trees.token_ids):
            return self._commit_plain(finishing, verified.bonus.tolist(), logprobs)
        events: list[Event] = []
        node_tokens, node_sources = (
            trees.token_ids[verified.nodes].tolist(),
            trees.sources[verified.nodes].tolist(),
        )
        offsets, bonus = verified.offsets.tolist(), verified.bonus.tolist()
        verified_counts = _count_sources(trees, len(self.source_names))
        for index, (sequence, _, _) in enumerate(finishing):
            first, end = offsets[index], offsets[index + 1]
            tokens = [*node_tokens[first:end], bonus[index]]
            taken = sequence.append(tokens)
            if not sequence.finish_reason:
                sequence.num_cached += end - first
            sources = self._count(
                sequence.stats, verified_counts[index], node_sources[first:end][:taken], taken
            )
            own = logprobs[index]
            events.append(sequence.event(tokens[:taken], sources, own and own.first(taken)))
        return events

    def _commit_plain(
        self, finishing: list[Chunk], tokens: list[int], logprobs: list[Logprobs | None]
    ) -> list[Event]:
        """The same for a step without guesses."""
        events = []
        for (sequence, _, _), token, own in zip(finishing, tokens, logprobs, strict=True):
            sequence.append_one(token)
            sequence.stats.num_steps += 1
            events.append(sequence.event([token], (None,), own))
        return events

    def _count(
        self, stats: SequenceStats, verified: list[int], accepted: list[int], taken: int
    ) -> tuple[str | None, ...]:
        """Adds a step to the counts of a sequence; returns the source of each token taken.

        verified: nodes by source; accepted: the source of each accepted node.
        """
        names = self.source_names
        stats.num_steps += 1
        for source, count in enumerate(verified):
            if count:
                stats.verified[names[source]] = stats.verified.get(names[source], 0) + count
        found = [names[source] for source in accepted]
        for name in found:
            stats.accepted[name] = stats.accepted.get(name, 0) + 1
        return (*found, *[None] * (taken - len(found)))

    def _reward(self, accepted: NDArray[np.uint8], plan: StepPlan, logits: Tensor) -> None:
        """What verifying guesses gave, to the proposer: the sources of those accepted, and the likeliest successors of all rows."""
        assert self.speculation
        proposer = self.speculation.proposer
        proposer.reward(accepted)
        if count := proposer.wants_successors():
            proposer.recycle(
                plan.token_ids[plan.logits_rows].astype(np.int32), likeliest_successors(logits, count)
            )

    def _retire(self) -> None:
        for sequence in [s for s in self.scheduler.running if s.finish_reason]:
            if self.speculation:
                self.speculation.finish(sequence)
            self.scheduler.retire(sequence)

    def _observe(self, shape: StepShape, trees: DraftTrees, seconds: float, events: list[Event]) -> None:
        """What the step took, to the budget: its seconds correct what steps are expected to cost."""
        assert self.speculation
        thinking = seconds * self._timer.share(THINKING)
        self.speculation.observe(
            shape, trees, seconds - thinking, thinking, sum(len(event.token_ids) for event in events)
        )

    def _count_step(
        self,
        plan: StepPlan,
        candidates: Candidates | None,
        trees: DraftTrees,
        verified: Verified,
        events: list[Event],
    ) -> None:
        """Adds the step to the counts."""
        stats, scheduler, lengths = self.stats, self.scheduler, [len(event.token_ids) for event in events]
        stats.count_step(len(plan.token_ids), len(trees.token_ids), lengths)
        stats.num_preemptions = scheduler.num_preemptions
        stats.num_prompt_tokens, stats.num_cached_tokens = (
            scheduler.num_prompt_tokens,
            scheduler.num_cached_tokens,
        )
        if self.speculation:
            if candidates is not None:
                stats.guesses.add(candidates, trees, verified.first(np.array(lengths)))
                stats.num_proposals += 1
                stats.price_sum += self.speculation.price
            stats.num_pauses = self.speculation.num_pauses
        if self.debug:
            scheduler.check_integrity()


def _plain_shape(chunks: list[Chunk]) -> StepShape:
    """What the step would cost without any guess."""
    rows, keys = [chunk.num_rows for chunk in chunks], [chunk.sequence.num_cached for chunk in chunks]
    return StepShape(sum(rows), sum(keys), sum(r * k for r, k in zip(rows, keys, strict=True)), len(chunks))


def _spread(trees: DraftTrees, chunks: list[Chunk]) -> DraftTrees:
    """Trees of the chunks that end their sequence, with empty ones for the others."""
    places = np.cumsum([0, *(chunk.last for chunk in chunks)])
    return DraftTrees(
        trees.token_ids, trees.parents, trees.depths, trees.sources, trees.matches, trees.offsets[places]
    )


def _count_sources(trees: DraftTrees, num_sources: int) -> list[list[int]]:
    """Nodes of each sequence's tree, by source."""
    num_sequences = len(trees.offsets) - 1
    owners = np.arange(num_sequences).repeat(np.diff(trees.offsets))
    counts = np.bincount(owners * num_sources + trees.sources, minlength=num_sequences * num_sources)
    return counts.reshape(num_sequences, num_sources).tolist()


def _sampling_rows(finishing: list[Chunk], trees: DraftTrees) -> SamplingRows | None:
    sequences = [chunk.sequence for chunk in finishing]
    if not any(s.request.sampling.temperature > 0 for s in sequences):
        return None
    if not len(trees.token_ids):
        return SamplingRows(
            [s.request.sampling for s in sequences], np.array([s.num_output for s in sequences], np.int64)
        )
    sampling: list[Sampling] = []
    positions: list[int] = []
    depths = trees.depths.tolist()
    for sequence, (first, end) in zip(sequences, pairwise(trees.offsets.tolist()), strict=True):
        root = sequence.num_output
        sampling += [sequence.request.sampling] * (1 + end - first)
        positions += [root, *(root + depth for depth in depths[first:end])]
    return SamplingRows(sampling, np.array(positions, np.int64))
