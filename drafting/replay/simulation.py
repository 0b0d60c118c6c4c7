"""A whole job on a machine that is not there: recorded outputs decoded by an engine whose steps take the
predicted seconds.

Rows are admitted, prefilled in chunks and decoded as the engine does it, and guesses are chosen by the
engine's own code. What is left out: limits of memory, prefixes that only begin alike (equal prompts are
computed once), and reading and writing.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import thread_time
from typing import Any

import numpy as np

from drafting.adaptive.cost_model import CostModel, StepShape
from drafting.bigram import learn_successors
from drafting.replay.replay import NO_LIMIT, Counts, accept
from drafting.replay.transcripts import Transcript
from drafting.speculation import Speculation
from drafting.tree import Candidates, DraftTrees, Int32


@dataclass
class Figures:
    """What a job took: predicted seconds, of which `thinking` were spent on guesses beside the steps.

    speculating: steps that verified a guess. priced: steps that weighed guesses, at prices that add up to
    price_sum.
    """

    seconds: float = 0.0
    thinking: float = 0.0
    steps: int = 0
    speculating: int = 0
    priced: int = 0
    price_sum: float = 0.0
    counts: Counts = field(default_factory=Counts)

    @property
    def tokens_per_second(self) -> float:
        """Output tokens by all of the time."""
        return self.counts.tokens / self.seconds


class Row:
    """A recorded sequence in flight, of which num_tokens tokens are said and num_cached have been "
    "computed."""

    def __init__(self, transcript: Transcript, prompt_is_known: bool) -> None:
        self.group = transcript.group
        self.text = np.concatenate([transcript.prompt_ids, transcript.output_ids])
        self.num_tokens = len(transcript.prompt_ids)
        self.num_cached = self.num_tokens - 1 if prompt_is_known else 0
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
    def finish_reason(self) -> str | None:
        """Where the recording ends."""
        return "recorded" if self.num_tokens == len(self.text) else None


class Job:
    """Rows through one worker: batch_size of them run at once, and a step takes at most prefill_chunk tokens
    of prompts.

    speculation None = plain decoding. learned_bigram: a table to fill with what is read on the way, since no
    model can be asked. think_seconds: what guessing costs beside a step, for each sequence guessed for; None
    = measured here, on clock.
    """

    def __init__(
        self,
        cost: CostModel,
        batch_size: int,
        prefill_chunk: int,
        speculation: Speculation | None = None,
        learned_bigram: Int32 | None = None,
        think_seconds: float | None = None,
        clock: Callable[[], float] = thread_time,
    ) -> None:
        self.cost = cost
        self.batch_size = batch_size
        self.prefill_chunk = prefill_chunk
        self.speculation = speculation
        self.learned_bigram = learned_bigram
        self.think_seconds = think_seconds
        self.clock = clock
        self.figures = Figures()
        self.running: list[Row] = []
        self._prompts: set[bytes] = set()

    def run(self, transcripts: Iterable[Transcript]) -> Figures:
        """Runs rows to their ends, in the order given; raises ValueError where there is nothing to say."""
        waiting = deque(transcript for transcript in transcripts if len(transcript.output_ids))
        if not waiting:
            raise ValueError("the transcripts hold no output token; there is nothing to replay")
        while waiting or self.running:
            while waiting and len(self.running) < self.batch_size:
                self._admit(waiting.popleft())
            self._step()
            self.running = [row for row in self.running if not row.finish_reason]
        return self.figures

    def _admit(self, transcript: Transcript) -> None:
        prompt = transcript.prompt_ids.tobytes()
        self.running.append(Row(transcript, prompt in self._prompts))
        self._prompts.add(prompt)
        if self.learned_bigram is not None:
            learn_successors(self.learned_bigram, transcript.prompt_ids)

    def _chunks(self) -> list[tuple[Row, int]]:
        """Every decoding row's last token, then prompt tokens, oldest first: as the engine's scheduler does
        it.
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
        keys = [row.num_cached for row, _ in chunks]
        attended = sum(rows * cached for (_, rows), cached in zip(chunks, keys, strict=True))
        plain = StepShape(
            packed_tokens=sum(rows for _, rows in chunks),
            cached_tokens=sum(keys),
            attended_tokens=attended,
            sequences=len(chunks),
        )
        finishing = [row for row, rows in chunks if rows == row.num_uncached]
        started = self.clock()
        candidates, trees = self._guess(finishing, plain)
        guessed = self.clock()
        for row, rows in chunks:
            row.num_cached += rows
        taken = self._commit(finishing, trees)
        committed = self.clock()
        if self.speculation and candidates is not None:
            self.speculation.learn(finishing, candidates, taken)
        if self.speculation:
            for row in (row for row in finishing if row.finish_reason):
                self.speculation.finish(row)
        thinking = guessed - started + self.clock() - committed if self.speculation else 0.0
        if self.think_seconds is not None:
            thinking = self.think_seconds * len(finishing) * (candidates is not None)
        self._count(plain, candidates, trees, thinking, sum(map(len, taken)))

    def _guess(self, finishing: list[Row], plain: StepShape) -> tuple[Candidates | None, DraftTrees]:
        """What is weighed and what is verified.

        A recording does not say where it will end, so guesses are as deep as they like.
        """
        if not (
            self.speculation and finishing and self.speculation.wants_drafts(lambda: plain, len(finishing))
        ):
            return None, DraftTrees.empty(len(finishing))
        candidates = self.speculation.propose(finishing, np.full(len(finishing), NO_LIMIT, np.int32))
        assert candidates is not None, "every row may be guessed for"
        return candidates, self.speculation.choose(candidates)

    def _commit(self, finishing: list[Row], trees: DraftTrees) -> list[tuple[int, ...]]:
        """The recorded tokens that the step gives each row."""
        names = self.speculation.proposer.source_names if self.speculation else ()
        taken = []
        accepted = []
        for number, row in enumerate(finishing):
            tokens, sources = accept(trees, number, row.text[row.num_tokens :], names, self.figures.counts)
            accepted.append(sources)
            if self.learned_bigram is not None:
                learn_successors(
                    self.learned_bigram, row.text[row.num_tokens - 1 : row.num_tokens + len(tokens)]
                )
            row.num_tokens += len(tokens)
            row.num_cached += len(tokens) - 1
            taken.append(tuple(tokens.tolist()))
        if self.speculation and len(trees.token_ids):
            self.speculation.proposer.reward(np.concatenate(accepted))
        return taken

    def _count(
        self,
        plain: StepShape,
        candidates: Candidates | None,
        trees: DraftTrees,
        thinking: float,
        num_tokens: int,
    ) -> None:
        figures = self.figures
        num_nodes = len(trees.token_ids)
        seconds = self.cost.seconds(plain.with_nodes(num_nodes))
        figures.seconds += seconds + thinking
        figures.thinking += thinking
        figures.steps += 1
        figures.speculating += num_nodes > 0
        if self.speculation:
            figures.priced += candidates is not None
            figures.price_sum += self.speculation.price if candidates is not None else 0.0
            self.speculation.observe(lambda: (seconds, thinking), num_tokens)


def compare(plain: Figures, guessed: Figures, source_names: Iterable[str]) -> dict[str, Any]:
    """The figures of one job, plain and with guesses, ready for JSON.

    speedup: of seconds, how many times fewer.
    """
    counts = guessed.counts
    return {
        "speedup": plain.seconds / guessed.seconds,
        "plain": {"tokens_per_s": plain.tokens_per_second, "seconds": plain.seconds, "steps": plain.steps},
        "tokens_per_s": guessed.tokens_per_second,
        "seconds": guessed.seconds,
        "steps": guessed.steps,
        "tokens": counts.tokens,
        "acceptance_length": counts.tokens / counts.calls,
        "nodes_per_call": counts.nodes / counts.calls,
        "price": guessed.price_sum / guessed.priced if guessed.priced else 0.0,
        "speculating_steps": guessed.speculating / guessed.steps,
        "thinking_share": guessed.thinking / guessed.seconds,
        "by_source": {
            name: {"verified": counts.verified[name], "accepted": counts.accepted[name]}
            for name in source_names
        },
    }
