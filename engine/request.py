"""What enters the engine (Request) and what comes out (Event, Completion).

Token ids only: no text, no columns, no files.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from drafting.sampling import Sampling as Sampling  # older versions had it here: benchmarks import it

FinishReason = Literal["stop", "length", "error"]
# Sees every output token of one sequence, in order; True when the output ends with it.
StopCheck = Callable[[int], bool]


@dataclass(frozen=True)
class Request:
    """One prompt to continue.

    id: unique among unfinished requests. prompt_ids: at least one token. max_tokens: output tokens at most.
    stop_ids: token ids that end the output (besides the model's eos ids, unless ignore_eos); the stop token
    is the last of the output. make_stop_check: called once, for what else may end the output (the engine
    knows no text). logprobs: how many of the likeliest tokens to name at each position, 0 = the chosen one
    only, None = none. group: rows that resemble each other, such as the samples of one prompt. speculate:
    False = plain decoding for this request. prediction_ids: what the output probably becomes, such as an
    older answer; drafts are taken from it, the text does not depend on it.
    """

    id: str
    prompt_ids: tuple[int, ...]
    max_tokens: int
    sampling: Sampling = Sampling()
    stop_ids: frozenset[int] = frozenset()
    ignore_eos: bool = False
    group: str = ""
    make_stop_check: Callable[[], StopCheck] | None = None
    logprobs: int | None = None
    speculate: bool = True
    prediction_ids: tuple[int, ...] = ()


@dataclass
class SequenceStats:
    """Counts of one sequence: integers only, divided when printed.

    num_steps: forward passes that gave at least one output token (the paper's calls). verified and accepted:
    nodes, by source. num_cached_tokens: of the prompt, those found in the prefix cache when the sequence
    first started.
    """

    num_prompt_tokens: int = 0
    num_generated_tokens: int = 0
    num_steps: int = 0
    verified: dict[str, int] = field(default_factory=dict)
    accepted: dict[str, int] = field(default_factory=dict)
    num_cached_tokens: int = 0

    @property
    def num_verified(self) -> int:
        """The nodes verified, of all sources."""
        return sum(self.verified.values())

    @property
    def num_accepted(self) -> int:
        """The nodes accepted, of all sources."""
        return sum(self.accepted.values())


@dataclass(frozen=True, eq=False)
class Logprobs:
    """Log-probabilities at T output positions: log-softmax in float32 of the model's own logits, before
    temperature and filters.

    chosen float32 [T]: of the output's tokens; top_ids int32 [T, K], top float32 [T, K]: the likeliest
    tokens, best first, of equal ones the lowest id first.
    """

    chosen: NDArray[np.float32]
    top_ids: NDArray[np.int32]
    top: NDArray[np.float32]

    def first(self, num_tokens: int) -> "Logprobs":
        """The log-probabilities of the first tokens."""
        if num_tokens == len(self.chosen):
            return self
        return Logprobs(self.chosen[:num_tokens], self.top_ids[:num_tokens], self.top[:num_tokens])

    @staticmethod
    def joined(parts: "Sequence[Logprobs]") -> "Logprobs":
        """The log-probabilities of several parts, in their order."""
        arrays = zip(*((part.chosen, part.top_ids, part.top) for part in parts), strict=True)
        return Logprobs(*map(np.concatenate, arrays))


class RequestFailed(ValueError):
    """A request that had begun cannot go on; says why. The others go on."""


class Event(NamedTuple):  # a frozen dataclass takes four times as long to make, and every token makes one
    """New tokens of one request.

    sources: for each token the source that drafted it, None = the model's own. finish_reason: None while the
    request goes on. stop = an eos or stop token came, or a stop check said so; length = max_tokens or the
    context is full; error = the request cannot go on, and `error` says why; the event may then be without
    tokens. stats: with the last event only. logprobs: of a request that asks for them.
    """

    request_id: str
    token_ids: tuple[int, ...]
    sources: tuple[str | None, ...] = ()
    finish_reason: FinishReason | None = None
    stats: SequenceStats | None = None
    logprobs: Logprobs | None = None
    error: str | None = None


@dataclass(frozen=True)
class Completion:
    """A finished request: all its output tokens, and the error that ended it, if one did."""

    request_id: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    stats: SequenceStats
    logprobs: Logprobs | None = None
    error: str | None = None

    @staticmethod
    def of(events: Sequence[Event]) -> "Completion":
        """The completion that all events of a request make up."""
        last = events[-1]
        assert last.finish_reason and last.stats, last
        parts = [event.logprobs for event in events if event.logprobs is not None]
        token_ids = tuple(chain.from_iterable(event.token_ids for event in events))
        logprobs = Logprobs.joined(parts) if parts else None
        return Completion(last.request_id, token_ids, last.finish_reason, last.stats, logprobs, last.error)
