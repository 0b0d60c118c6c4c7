"""Takes the tokens that a step gave to their sequences: appends them, counts them, and makes the events.

Owns no state. It does not know the cache, whose K/V of accepted nodes engine/model_runner.py moves.
"""

from collections.abc import Sequence as Many

import numpy as np

from drafting.tree import DraftTrees
from engine.request import Event, Logprobs, SequenceStats
from engine.scheduler import Chunk
from engine.sequence import Sequence
from engine.targets import NOT_FINITE
from engine.verify import Verified


def commit(
    ending: list[Chunk],
    trees: DraftTrees,
    verified: Verified,
    logprobs: list[Logprobs | None],
    source_names: Many[str],
) -> list[Event]:
    """One event for each sequence whose last token was in the step.

    A sequence whose logits are not finite at the end of its path fails, after the tokens of that path.
    ending: the chunks that end with the last token of their sequence, in the order of trees and verified.
    """
    if not len(trees.token_ids):
        return _commit_plain(ending, verified.bonus.tolist(), logprobs)
    events: list[Event] = []
    node_tokens = trees.token_ids[verified.nodes].tolist()
    node_sources = trees.sources[verified.nodes].tolist()
    offsets = verified.offsets.tolist()
    bonus = verified.bonus.tolist()
    verified_counts = _count_sources(trees, len(source_names))
    for index, (sequence, _, _) in enumerate(ending):
        path = slice(offsets[index], offsets[index + 1])
        tokens = node_tokens[path]
        if bonus[index] != NOT_FINITE:
            tokens.append(bonus[index])
        num_taken = sequence.append(tokens)
        if bonus[index] == NOT_FINITE and not sequence.finish_reason:
            fail_not_finite(sequence)
        if not sequence.finish_reason:
            sequence.num_cached += path.stop - path.start
        accepted = [source_names[source] for source in node_sources[path][:num_taken]]
        if num_taken:
            _count(sequence.stats, dict(zip(source_names, verified_counts[index], strict=True)), accepted)
        sources = (*accepted, *[None] * (num_taken - len(accepted)))
        own = logprobs[index]
        events.append(sequence.event(tokens[:num_taken], sources, own and own.first(num_taken)))
    return events


def _commit_plain(ending: list[Chunk], tokens: list[int], logprobs: list[Logprobs | None]) -> list[Event]:
    """A step without nodes is the commonest one, and needs neither paths nor sources."""
    events = []
    for (sequence, _, _), token, own in zip(ending, tokens, logprobs, strict=True):
        if token == NOT_FINITE:
            fail_not_finite(sequence)
            events.append(sequence.event([], (), own and own.first(0)))
            continue
        sequence.append_one(token)
        sequence.stats.num_steps += 1
        events.append(sequence.event([token], (None,), own))
    return events


def fail_not_finite(sequence: Sequence) -> None:
    """Ends a sequence whose numbers overflow, with an error that says where and what to do."""
    place = sequence.num_output + 1
    remedy = "use model.dtype bfloat16 or float32; if it is one of these, the weights are damaged"
    sequence.fail(f"the model's logits are not finite at output token {place}: {remedy}")


def _count(stats: SequenceStats, verified: dict[str, int], accepted: list[str]) -> None:
    """Adds a step to the counts of a sequence: verified nodes by source, and the source of each accepted
    node.
    """
    stats.num_steps += 1
    for name, count in verified.items():
        if count:
            stats.verified[name] = stats.verified.get(name, 0) + count
    for name in accepted:
        stats.accepted[name] = stats.accepted.get(name, 0) + 1


def _count_sources(trees: DraftTrees, num_sources: int) -> list[list[int]]:
    """The nodes of each sequence's tree, by source."""
    num_sequences = len(trees.offsets) - 1
    owners = np.arange(num_sequences).repeat(np.diff(trees.offsets))
    counts = np.bincount(owners * num_sources + trees.sources, minlength=num_sequences * num_sources)
    return counts.reshape(num_sequences, num_sources).tolist()
