"""Recorded outputs fed through a proposer as if a model produced them: what would drafting have given?

Owns the counting. Does not know files, text, or how the proposer makes its drafts.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from drafting.bigram import learn_successors
from drafting.proposer import Proposer
from drafting.transcripts import Transcript
from drafting.tree import Int32, walk

NO_LIMIT = np.array([np.iinfo(np.int32).max], np.int32)


@dataclass
class Counts:
    """calls: forward passes that gave output. nodes: guesses verified, of which by_source says whose, and whose were accepted."""

    calls: int = 0
    tokens: int = 0
    nodes: int = 0
    verified: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)


def replay(transcripts: Iterable[Transcript], proposer: Proposer, learned_bigram: Int32 | None = None) -> dict[str, Counts]:
    """The counts by group. learned_bigram: a table to fill with what is read on the way, since no model can be asked."""
    groups: dict[str, Counts] = {}
    for transcript in transcripts:
        _replay_one(transcript, proposer, learned_bigram, groups.setdefault(transcript.group, Counts()))
    return groups


def report(groups: dict[str, Counts], source_names: Iterable[str]) -> dict[str, Any]:
    """The figures in all, by source and by group, ready for JSON. acceptance rate = accepted / verified."""
    total = Counts()
    for counts in groups.values():
        total.calls, total.tokens, total.nodes = total.calls + counts.calls, total.tokens + counts.tokens, total.nodes + counts.nodes
        total.verified, total.accepted = total.verified + counts.verified, total.accepted + counts.accepted
    if not total.calls:
        raise ValueError("the transcripts hold no output token; there is nothing to replay")
    return {
        **_per_call(total),
        "calls": total.calls,
        "tokens": total.tokens,
        "nodes": total.nodes,
        "by_source": {name: {"verified": total.verified[name], "accepted": total.accepted[name]} for name in source_names},
        "by_group": {name: _per_call(counts) for name, counts in sorted(groups.items()) if counts.calls},
    }


def _per_call(counts: Counts) -> dict[str, float]:
    return {"tokens_per_call": counts.tokens / counts.calls, "nodes_per_call": counts.nodes / counts.calls}


def _replay_one(transcript: Transcript, proposer: Proposer, learned_bigram: Int32 | None, counts: Counts) -> None:
    """Output [5 6 7 8 9] with 2, 0, then all guesses right: calls emit 5 6 7, 8, 9: 3 calls, 5 tokens.

    A recording does not say where it would have ended, so drafts are not shortened towards its end.
    """
    state = proposer.start(transcript.prompt_ids)
    text = np.concatenate([transcript.prompt_ids, transcript.output_ids])
    done, begin = len(transcript.prompt_ids), 0
    while True:
        if learned_bigram is not None:
            learn_successors(learned_bigram, text[begin:done])
        if done == len(text):
            return
        trees = proposer.propose([state], NO_LIMIT)
        path = walk(trees, 0, text[done:])
        num_emitted = min(len(path) + 1, len(text) - done)
        counts.calls += 1
        counts.tokens += num_emitted
        counts.nodes += trees.num_nodes(0)
        counts.verified.update(proposer.source_names[source] for source in trees.sources)
        counts.accepted.update(proposer.source_names[source] for source in trees.sources[path - 1])
        proposer.extend(state, text[done : done + num_emitted])
        begin, done = done - 1, done + num_emitted
