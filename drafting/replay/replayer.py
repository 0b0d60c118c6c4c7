"""Recorded outputs fed through a proposer as if a model produced them: what would drafting have given?

Owns the counting. Does not know files, text, or how the proposer makes its drafts.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from drafting.bigram import learn_successors
from drafting.outcomes import CandidateCounts
from drafting.proposer import Proposer
from drafting.replay.transcripts import Transcript
from drafting.tree import CandidateTrees, DraftTrees, Int32, UInt8, prune, walk

NO_LIMIT = np.iinfo(np.int32).max
Choose = Callable[[CandidateTrees], DraftTrees]
Step = tuple[CandidateTrees, DraftTrees, list[Int32]]  # what was proposed and verified, and what each row got


@dataclass
class ReplayCounts:
    """Counts of a replay.

    calls: forward passes that gave output; nodes: verified nodes; verified, accepted: by source.
    """

    calls: int = 0
    tokens: int = 0
    nodes: int = 0
    verified: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: "ReplayCounts") -> "ReplayCounts":
        return ReplayCounts(
            *(mine + theirs for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True))
        )

    def by_source(self, source_names: Iterable[str]) -> dict[str, dict[str, int]]:
        """Verified and accepted nodes of each source."""
        return {
            name: {"verified": self.verified[name], "accepted": self.accepted[name]} for name in source_names
        }

    def per_call(self) -> dict[str, float]:
        """Tokens and nodes per call."""
        return {"tokens_per_call": self.tokens / self.calls, "nodes_per_call": self.nodes / self.calls}


@dataclass
class _Row:
    """A transcript in flight. text: prompt and output; done: how many of its tokens have come."""

    text: Int32
    done: int
    state: Any
    counts: ReplayCounts


def choose_likely(candidates: CandidateTrees, min_survival: float) -> DraftTrees:
    """Every candidate that survives at least this often: the right choice where one more node always costs
    the same.
    """
    return prune(candidates, candidates.survival >= min_survival)


def replay(
    transcripts: Iterable[Transcript],
    proposer: Proposer,
    choose: Choose,
    learned_bigram: Int32 | None = None,
    batch_size: int = 1,
    min_survival: float = 0.0,
    candidate_counts: CandidateCounts | None = None,
) -> dict[str, ReplayCounts]:
    """The counts by group.

    choose: which candidates are verified; batch_size: rows that run at once, in the order given.

    learned_bigram: a table to fill with what is read on the way, since no model can be asked. min_survival:
    the proposer's. candidate_counts: counts what became of candidates.
    """
    groups: dict[str, ReplayCounts] = {}
    running: list[_Row] = []
    waiting = iter(transcripts)
    while True:
        while len(running) < batch_size and (transcript := next(waiting, None)) is not None:
            text = np.concatenate([transcript.prompt_ids, transcript.output_ids])
            state = proposer.start(transcript.prompt_ids, transcript.group)
            counts = groups.setdefault(transcript.group, ReplayCounts())
            running.append(_Row(text, len(transcript.prompt_ids), state, counts))
            if learned_bigram is not None:
                learn_successors(learned_bigram, transcript.prompt_ids)
            running = _without_finished(running, proposer)
        if not running:
            return groups
        candidates, trees, emitted = _step(running, proposer, choose, learned_bigram, min_survival)
        if candidate_counts:
            paths = [
                trees.offsets[number] + walk(trees, number, tokens) - 1
                for number, tokens in enumerate(emitted)
            ]
            candidate_counts.add(candidates, trees, np.concatenate(paths))
        running = _without_finished(running, proposer)


def accept(
    trees: DraftTrees, number: int, rest: Int32, source_names: Sequence[str], counts: ReplayCounts
) -> tuple[Int32, UInt8]:
    """What a call gives of the rest of a recorded text: the accepted nodes of a tree, and one token more.

    Returns the tokens, and the sources of the accepted nodes.
    """
    sources = trees.sources[trees.offsets[number] : trees.offsets[number + 1]]
    path = walk(trees, number, rest)
    emitted = rest[: len(path) + 1]
    counts.calls += 1
    counts.tokens += len(emitted)
    counts.nodes += len(sources)
    counts.verified.update(source_names[source] for source in sources.tolist())
    counts.accepted.update(source_names[source] for source in sources[path - 1].tolist())
    return emitted, sources[path - 1]


def _without_finished(running: list[_Row], proposer: Proposer) -> list[_Row]:
    for row in running:
        if row.done == len(row.text):
            proposer.finish(row.state)
    return [row for row in running if row.done < len(row.text)]


def figures_of(groups: dict[str, ReplayCounts], source_names: Iterable[str]) -> dict[str, Any]:
    """The figures of a replay in all, by source and by group, ready for JSON."""
    total = sum(groups.values(), ReplayCounts())
    if not total.calls:
        raise ValueError("the transcripts hold no output token; there is nothing to replay")
    return {
        **total.per_call(),
        "calls": total.calls,
        "tokens": total.tokens,
        "nodes": total.nodes,
        "by_source": total.by_source(source_names),
        "by_group": {name: counts.per_call() for name, counts in sorted(groups.items()) if counts.calls},
    }


def at_nodes(sweep: Sequence[dict[str, Any]], nodes_per_call: Sequence[float]) -> dict[str, float | None]:
    """Tokens per call at the given nodes per call, linearly between the figures of a sweep; None where it
    does not reach.
    """
    points = sorted((figures["nodes_per_call"], figures["tokens_per_call"]) for figures in sweep)
    nodes = [nodes for nodes, _ in points]
    tokens = [tokens for _, tokens in points]
    return {
        f"{n:g}": float(np.interp(n, nodes, tokens)) if nodes[0] <= n <= nodes[-1] else None
        for n in nodes_per_call
    }


def _step(
    running: list[_Row], proposer: Proposer, choose: Choose, learned_bigram: Int32 | None, min_survival: float
) -> Step:
    """Output [5 6 7 8 9] with 2, 0, then all drafts right: calls emit 5 6 7, 8, 9: 3 calls, 5 tokens.

    A recording does not say where it would have ended, so drafts are not shortened towards its end.
    """
    states = [row.state for row in running]
    candidates = proposer.propose(states, np.full(len(running), NO_LIMIT, np.int32), min_survival)
    trees = choose(candidates)
    names = proposer.source_names
    emitted = []
    accepted = []
    for number, row in enumerate(running):
        tokens, sources = accept(trees, number, row.text[row.done :], names, row.counts)
        emitted.append(tokens)
        accepted.append(sources)
    if len(trees.token_ids):
        proposer.reward(np.concatenate(accepted))
    proposer.learn(states, candidates, np.concatenate(emitted), np.cumsum([0, *map(len, emitted)]))
    for row, tokens in zip(running, emitted, strict=True):
        if learned_bigram is not None:
            learn_successors(learned_bigram, row.text[row.done - 1 : row.done + len(tokens)])
        row.done += len(tokens)
    return candidates, trees, emitted
