"""What enters the engine (Request) and what comes out of a step (Event). Token ids only: no text, no columns, no files."""

from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Sampling:
    """How a target token is made from logits. temperature 0 = greedy; top_k 0, top_p 1 and min_p 0 = off; seed: 64 bits used."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Request:
    """One prompt to continue.

    id: unique among unfinished requests. prompt_ids: at least one token. max_tokens: output tokens at most.
    stop_ids: token ids that end the output (besides the model's eos ids, unless ignore_eos); the stop token is the
    last of the output. group: rows that resemble each other, such as the samples of one prompt.
    """

    id: str
    prompt_ids: tuple[int, ...]
    max_tokens: int
    sampling: Sampling = Sampling()
    stop_ids: frozenset[int] = frozenset()
    ignore_eos: bool = False
    group: str = ""


@dataclass
class SequenceStats:
    """Counts of one sequence: integers only, divided when printed.

    num_steps: forward passes that gave at least one output token (the paper's calls). verified and accepted: nodes, by source.
    """

    num_prompt_tokens: int = 0
    num_generated_tokens: int = 0
    num_steps: int = 0
    verified: dict[str, int] = field(default_factory=dict)
    accepted: dict[str, int] = field(default_factory=dict)

    @property
    def num_verified(self) -> int:
        """Nodes verified, all sources."""
        return sum(self.verified.values())

    @property
    def num_accepted(self) -> int:
        """Nodes accepted, all sources."""
        return sum(self.accepted.values())


@dataclass(frozen=True)
class Event:
    """New tokens of one request. sources: for each token the source that guessed it, None = the model's own.

    finish_reason: None while the request goes on. stop: an eos or stop token; length: max_tokens or the context is full.
    stats: with the last event only.
    """

    request_id: str
    token_ids: tuple[int, ...]
    sources: tuple[str | None, ...] = ()
    finish_reason: FinishReason | None = None
    stats: SequenceStats | None = None
