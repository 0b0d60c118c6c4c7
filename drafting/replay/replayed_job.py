"""Recorded outputs fed through the drafters as if a model produced them, by the engine's own decisions.

Rows are admitted, prefilled in chunks and decoded as the engine does it. With a cost model it simulates
a whole job on that model's machine, whose steps take the predicted seconds. Without a cost model it counts
what drafting gives. What is left out: limits of memory, prefixes that only begin alike (equal prompts are
computed once), and reading and writing.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import thread_time
from typing import Any

import numpy as np

from drafting.adaptive.cost_model import CostModel, StepShape
from drafting.likely import UInt32, pack
from drafting.outcomes import CandidateCounts
from drafting.replay.replay_counts import ReplayCounts, accept
from drafting.replay.transcripts import Transcript
from drafting.speculation import NoSpeculation, Speculation
from drafting.tree import CandidateTrees, DraftTrees, Int32, Int64

NO_LIMIT = np.iinfo(np.int32).max


@dataclass
class Figures:
    """What a replayed job gave and took.

    groups: what rows gave, by their group. seconds: predicted seconds of all steps and of drafting.
    drafting_seconds: the part that drafting took. num_speculating: steps that verified a node. num_priced:
    steps that had a price; price_sum: their prices.
    """

    seconds: float = 0.0
    drafting_seconds: float = 0.0
    num_steps: int = 0
    num_speculating: int = 0
    num_priced: int = 0
    price_sum: float = 0.0
    groups: dict[str, ReplayCounts] = field(default_factory=dict)

    @property
    def counts(self) -> ReplayCounts:
        """What all rows gave."""
        return sum(self.groups.values(), ReplayCounts())

    @property
    def tokens_per_second(self) -> float:
        """Output tokens divided by all of the time."""
        return self.counts.tokens / self.seconds


class Row:
    """A recorded sequence in flight.

    Its first num_tokens tokens have come, and num_cached of them are cached.
    """

    def __init__(self, transcript: Transcript, prompt_is_cached: bool) -> None:
        self.group = transcript.group
        self.sampling = transcript.sampling
        self.prediction_ids = transcript.prediction_ids
        self.num_prompt = len(transcript.prompt_ids)
        said = transcript.likely
        self.likely = None if said is None else pack(said.ids, said.logprobs)
        self.text = np.concatenate([transcript.prompt_ids, transcript.output_ids])
        self.num_tokens = len(transcript.prompt_ids)
        self.num_cached = self.num_tokens - 1 if prompt_is_cached else 0
        self.draft_state: Any = None
        self.num_drafted = 0

    @property
    def token_ids(self) -> Int32:
        """Prompt and output so far; a view."""
        return self.text[: self.num_tokens]

    @property
    def num_uncached(self) -> int:
        """Tokens that still have to run through the model: 1 while decoding, more while prefilling."""
        return self.num_tokens - self.num_cached

    @property
    def is_finished(self) -> bool:
        """Whether the recording has ended."""
        return self.num_tokens == len(self.text)


@dataclass
class Job:
    """Rows through one worker: batch_size rows run at once, and a step takes at most prefill_chunk prompt
    tokens.

    cost: None = prompts are there already and steps take no time. read_text: is given what is read on the
    way, where no model can be asked. drafting_seconds: what drafting takes for each sequence;
    None measures it here, on `clock`.
    """

    cost: CostModel | None
    batch_size: int
    prefill_chunk: int = NO_LIMIT
    speculation: Speculation | NoSpeculation = field(default_factory=NoSpeculation)
    read_text: Callable[[Int32], None] | None = None
    drafting_seconds: float | None = None
    clock: Callable[[], float] = thread_time

    def __post_init__(self) -> None:
        self.figures = Figures()
        self.candidates = CandidateCounts(self.speculation.source_names)
        self.running: list[Row] = []
        self._prompts: set[bytes] = set()

    def run(self, transcripts: Iterable[Transcript]) -> Figures:
        """Runs rows to their ends, in the order given; raises ValueError where there is no output token."""
        waiting = deque(transcript for transcript in transcripts if len(transcript.output_ids))
        if not waiting:
            raise ValueError("the transcripts hold no output token; there is nothing to replay")
        while waiting or self.running:
            while waiting and len(self.running) < self.batch_size:
                self._admit(waiting.popleft())
            self._step()
            self.running = [row for row in self.running if not row.is_finished]
        return self.figures

    def _admit(self, transcript: Transcript) -> None:
        prompt = transcript.prompt_ids.tobytes()
        self.running.append(Row(transcript, self.cost is None or prompt in self._prompts))
        self._prompts.add(prompt)
        self._learn(transcript.prompt_ids)

    def _chunks(self) -> list[tuple[Row, int]]:
        """The last token of every decoding row, then prompt tokens, oldest first, as the engine's scheduler
        does it.
        """
        chunks = [(row, 1) for row in self.running if row.num_uncached == 1]
        room = self.prefill_chunk
        for row in self.running:
            if row.num_uncached > 1 and room > 0:
                chunks.append((row, min(row.num_uncached, room)))
                room -= chunks[-1][1]
        return chunks

    def _step(self) -> None:
        chunks = self._chunks()
        plain = StepShape.of(chunks)
        ending = [row for row, num_tokens in chunks if num_tokens == row.num_uncached]
        started = self.clock()
        candidates, trees = self._draft(ending, plain)
        drafted = self.clock()
        for row, num_tokens in chunks:
            row.num_cached += num_tokens
        tokens, accepted = self._commit(ending, trees)
        committed = self.clock()
        self._tell(ending, candidates, tokens)
        for row in ending:
            if row.is_finished:
                self.speculation.finish(row)
        drafting = drafted - started + self.clock() - committed if candidates is not None else 0.0
        if candidates is not None:
            self.candidates.add(candidates, trees, accepted)
            if self.drafting_seconds is not None:
                drafting = self.drafting_seconds * len(ending)
        self._count(
            plain.with_nodes(len(trees.token_ids)), drafting, candidates is not None, sum(map(len, tokens))
        )

    def _tell(
        self, ending: list[Row], candidates: CandidateTrees | None, tokens: list[tuple[int, ...]]
    ) -> None:
        """Tells the proposer which tokens came, and what the model said there if the recording has it."""
        likely = self._said(ending, tokens) if self.speculation.wants_likely() else None
        if likely is not None and candidates is not None and self.speculation.wants_successors():
            before = [
                row.text[row.num_tokens - len(some) - 1 :][: len(some)]
                for row, some in zip(ending, tokens, strict=True)
            ]
            self.speculation.recycle(np.concatenate(before), likely)
        if candidates is not None:
            self.speculation.learn(ending, candidates, tokens, likely)
        elif likely is not None:
            self.speculation.extend(ending, tokens, likely)

    def _said(self, ending: list[Row], tokens: list[tuple[int, ...]]) -> UInt32 | None:
        """What the model said at the tokens that came, packed; None where a recording does not know it."""
        said = []
        for row, some in zip(ending, tokens, strict=True):
            if row.likely is None:
                return None
            first = row.num_tokens - row.num_prompt - len(some)
            said.append(row.likely[first : first + len(some)])
        return np.concatenate(said) if said else None

    def _draft(self, ending: list[Row], plain: StepShape) -> tuple[CandidateTrees | None, DraftTrees]:
        """What is proposed and what is verified.

        A recording does not say where it will end, so drafts may be long.
        """
        if ending and self.speculation.wants_drafts(lambda: plain, len(ending)):
            candidates = self.speculation.propose(ending, np.full(len(ending), NO_LIMIT, np.int32))
            assert candidates is not None, "every row has room for drafts"
            return candidates, self.speculation.choose(candidates)
        return None, DraftTrees.empty(len(ending))

    def _commit(self, ending: list[Row], trees: DraftTrees) -> tuple[list[tuple[int, ...]], Int64]:
        """The recorded tokens that the step gives each row, and the accepted nodes of all."""
        names = self.speculation.source_names
        given = []
        accepted = [np.zeros(0, np.int64)]
        for number, row in enumerate(ending):
            counts = self.figures.groups.setdefault(row.group, ReplayCounts())
            tokens, nodes = accept(trees, number, row.text[row.num_tokens :], names, counts)
            accepted.append(nodes)
            self._learn(row.text[row.num_tokens - 1 : row.num_tokens + len(tokens)])
            row.num_tokens += len(tokens)
            row.num_cached += len(tokens) - 1
            given.append(tuple(tokens.tolist()))
        nodes = np.concatenate(accepted)
        if len(trees.token_ids):
            self.speculation.reward(trees.sources[nodes])
        return given, nodes

    def _learn(self, token_ids: Int32) -> None:
        if self.read_text is not None:
            self.read_text(token_ids)

    def _count(self, shape: StepShape, drafting: float, is_priced: bool, num_tokens: int) -> None:
        figures = self.figures
        seconds = self.cost.seconds(shape) if self.cost else 0.0
        figures.seconds += seconds + drafting
        figures.drafting_seconds += drafting
        figures.num_steps += 1
        figures.num_speculating += shape.nodes > 0
        figures.num_priced += is_priced
        figures.price_sum += self.speculation.price if is_priced else 0.0
        self.speculation.observe(lambda: (seconds, drafting), num_tokens)


def compare(plain: Figures, speculated: Figures, source_names: Iterable[str]) -> dict[str, Any]:
    """The figures of one job, plain and with speculation, ready for JSON.

    speedup: the ratio of their seconds.
    """
    counts = speculated.counts
    return {
        "speedup": plain.seconds / speculated.seconds,
        "plain": {
            "tokens_per_s": plain.tokens_per_second,
            "seconds": plain.seconds,
            "steps": plain.num_steps,
        },
        "tokens_per_s": speculated.tokens_per_second,
        "seconds": speculated.seconds,
        "steps": speculated.num_steps,
        "tokens": counts.tokens,
        "acceptance_length": counts.tokens / counts.calls,
        "nodes_per_call": counts.nodes / counts.calls,
        "price": speculated.price_sum / speculated.num_priced if speculated.num_priced else 0.0,
        "speculating_steps": speculated.num_speculating / speculated.num_steps,
        "drafting_share": speculated.drafting_seconds / speculated.seconds,
        "by_source": counts.by_source(source_names),
    }
