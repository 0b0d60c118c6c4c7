"""What the engine counts since it was made: steps, packed tokens, output tokens, nodes, and the time of its
phases.

Counting costs one reading of the clock per phase and step, so it is always on. Knows no sequences and no
model.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from time import perf_counter, thread_time
from typing import Protocol, TypeVar

import torch

from drafting.outcomes import STAGES, CandidateCounts

# The parts of a step, in order. CUDA runs asynchronously: what the device still owes is waited for in sample.
PHASES = ("admit", "propose", "choose", "plan", "forward", "sample", "verify", "commit", "learn", "retire")
DRAFTING = ("propose", "choose", "learn")  # the phases that plain decoding does not have

MAX_CALL_LENGTH = 32  # calls that gave this many tokens or more are counted together
NODE_CLASSES = 24  # steps are counted by the bit length of their number of nodes


@dataclass
class EngineStats:
    """Counts since the engine was made.

    num_calls: forward passes that gave a sequence tokens, summed over sequences. num_prompt_tokens: of the
    sequences that have started; num_cached_tokens: the prompt tokens that were found in the prefix cache.
    candidates: what became of drafts. num_proposals: steps that proposed drafts. num_pauses: steps that did
    not draft because it did not pay. price_sum: the prices of the steps that proposed, in tokens per second.
    call_lengths[n]: calls that gave n tokens. step_nodes[n]: steps that verified 2^(n-1) to 2^n - 1 nodes,
    [0] none. seconds: time by phase.
    """

    candidates: CandidateCounts
    num_steps: int = 0
    num_packed_tokens: int = 0
    num_calls: int = 0
    num_tokens: int = 0
    num_preemptions: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_proposals: int = 0
    num_pauses: int = 0
    price_sum: float = 0.0
    call_lengths: list[int] = field(default_factory=lambda: [0] * (MAX_CALL_LENGTH + 1))
    step_nodes: list[int] = field(default_factory=lambda: [0] * NODE_CLASSES)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))

    @property
    def verified(self) -> dict[str, int]:
        """Verified nodes by source."""
        return self.candidates.by_source("verified")

    @property
    def accepted(self) -> dict[str, int]:
        """Accepted nodes by source."""
        return self.candidates.by_source("accepted")

    def count_step(self, num_packed_tokens: int, num_nodes: int, lengths: list[int]) -> None:
        """Adds a step.

        num_nodes of its packed tokens were nodes; lengths: the tokens that each sequence got.
        """
        self.num_steps += 1
        self.num_packed_tokens += num_packed_tokens
        self.num_calls += len(lengths)
        self.num_tokens += sum(lengths)
        self.step_nodes[num_nodes.bit_length()] += 1
        for length in lengths:
            self.call_lengths[min(length, MAX_CALL_LENGTH)] += 1

    def counts(self) -> dict[str, dict[str, float]]:
        """What a job's report adds up over its workers: by kind and name, without zeros."""
        kinds: dict[str, dict[str, float]] = {
            "steps": {
                "all": self.num_steps,
                "proposed": self.num_proposals,
                "paused": self.num_pauses,
                "price_sum": round(self.price_sum, 6),
            },
            "step_nodes": {range_name(bits): count for bits, count in enumerate(self.step_nodes)},
            "call_lengths": {
                f"{n}+" if n == MAX_CALL_LENGTH else str(n): count
                for n, count in enumerate(self.call_lengths)
            },
            "seconds": {phase: round(seconds, 6) for phase, seconds in self.seconds.items()},
        }
        for source, depth, match, stages in self.candidates.entries():
            for stage, count in zip(STAGES, stages, strict=True):
                kinds.setdefault(stage, {})[f"{source} {depth} {match}"] = count
        without_zeros = {
            kind: {name: count for name, count in named.items() if count} for kind, named in kinds.items()
        }
        return {kind: named for kind, named in without_zeros.items() if named}


def range_name(bits: int) -> str:
    """The numbers that have this bit length: 0, 1, 2-3, 4-7 and so on."""
    return str(bits) if bits < 2 else f"{1 << (bits - 1)}-{(1 << bits) - 1}"


def step_clock(device: torch.device) -> Callable[[], float]:
    """The clock that tells what steps cost.

    It is the thread's CPU time where that thread does all the work, so that other processes of a shared
    machine do not make drafts look expensive; else it is the wall clock.
    """
    return thread_time if device.type == "cpu" and torch.get_num_threads() == 1 else perf_counter


class PhaseTimer:
    """Times a step as a whole by `clock`, and shares the time out to its phases by the wall clock."""

    def __init__(
        self, seconds: dict[str, float], clock: Callable[[], float], wall: Callable[[], float] = perf_counter
    ) -> None:
        """seconds: time by phase, added up over all steps."""
        self._seconds = seconds
        self._clock = clock
        self._wall = wall
        self._step = dict.fromkeys(seconds, 0.0)
        self._started = 0.0
        self._last = 0.0

    def start(self) -> None:
        """Begins a step; the time before it belongs to no phase."""
        self._started = self._clock()
        self._last = self._wall()

    def mark(self, phase: str) -> None:
        """Ends a phase, which began where the one before it ended."""
        now = self._wall()
        self._step[phase] = now - self._last
        self._seconds[phase] += now - self._last
        self._last = now

    def split(self) -> tuple[float, float]:
        """The seconds since the step began, in two parts: without drafting, and drafting alone."""
        seconds = self._clock() - self._started
        wall = sum(self._step.values()) or 1.0
        drafting = seconds * sum(self._step[phase] for phase in DRAFTING) / wall
        return seconds - drafting, drafting


class Timed(Protocol):
    """An object whose methods are the phases of a step."""

    timer: PhaseTimer


Owner = TypeVar("Owner", bound=Timed)
Step = TypeVar("Step")


def phase(name: str) -> Callable[[Callable[[Owner, Step], None]], Callable[[Owner, Step], None]]:
    """Decorates the method that is this phase of a step: when it returns, the phase has ended."""

    def decorate(method: Callable[[Owner, Step], None]) -> Callable[[Owner, Step], None]:
        @wraps(method)
        def timed(owner: Owner, step: Step) -> None:
            method(owner, step)
            owner.timer.mark(name)

        return timed

    return decorate
