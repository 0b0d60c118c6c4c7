"""What the engine counts since it was made: steps, rows, tokens, guesses, and where the time of its steps goes.

Counting costs one reading of the clock per phase and step, so it is always on. Knows no sequences and no model.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import perf_counter, thread_time

import torch

from drafting.outcomes import STAGES, GuessCounts

# The parts of a step, in its order. On CUDA the device runs behind the host: what it still owes is waited for in sample.
PHASES = ("schedule", "propose", "choose", "plan", "forward", "sample", "verify", "commit", "learn", "retire")
THINKING = ("propose", "choose", "learn")  # those that plain decoding has not

MOST_TOKENS = 32  # calls that gave as many or more are counted together
NODE_CLASSES = 24  # of steps, by the bits of their number of nodes


@dataclass
class EngineStats:
    """Counts since the engine was made. num_calls: forward passes per sequence that gave tokens, summed over sequences.

    num_prompt_tokens: of sequences that have started; num_cached_tokens: those of them that were found in the prefix cache.
    guesses: what became of them. num_proposals: steps that proposed any; num_pauses: steps in which proposing did not pay;
    price_sum: tokens per second, summed over the former. call_lengths[n]: calls that gave n tokens. step_nodes[n]: steps
    that verified 2^(n-1) to 2^n - 1 nodes, [0] none. seconds: time within steps, by phase.
    """

    guesses: GuessCounts
    num_steps: int = 0
    num_rows: int = 0
    num_calls: int = 0
    num_tokens: int = 0
    num_preemptions: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_proposals: int = 0
    num_pauses: int = 0
    price_sum: float = 0.0
    call_lengths: list[int] = field(default_factory=lambda: [0] * (MOST_TOKENS + 1))
    step_nodes: list[int] = field(default_factory=lambda: [0] * NODE_CLASSES)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))

    @property
    def verified(self) -> dict[str, int]:
        """Nodes verified, by source."""
        return self.guesses.by_source("verified")

    @property
    def accepted(self) -> dict[str, int]:
        """Nodes accepted, by source."""
        return self.guesses.by_source("accepted")

    def count_step(self, num_rows: int, num_nodes: int, lengths: list[int]) -> None:
        """A step ran so many rows, num_nodes of them guesses, and gave its sequences these numbers of tokens."""
        self.num_steps += 1
        self.num_rows += num_rows
        self.num_calls += len(lengths)
        self.num_tokens += sum(lengths)
        self.step_nodes[num_nodes.bit_length()] += 1
        for length in lengths:
            self.call_lengths[min(length, MOST_TOKENS)] += 1

    def counts(self) -> dict[str, dict[str, float]]:
        """What a job's report adds up over its workers: by kind and name, without zeros."""
        steps: dict[str, float] = {
            "all": self.num_steps,
            "proposed": self.num_proposals,
            "paused": self.num_pauses,
        }
        steps["price_sum"] = round(self.price_sum, 6)
        nodes: dict[str, float] = {range_name(n): count for n, count in enumerate(self.step_nodes)}
        lengths: dict[str, float] = {
            f"{n}+" if n == MOST_TOKENS else str(n): count for n, count in enumerate(self.call_lengths)
        }
        seconds = {phase: round(seconds, 6) for phase, seconds in self.seconds.items()}
        kinds: dict[str, dict[str, float]] = {
            "steps": steps,
            "step_nodes": nodes,
            "call_lengths": lengths,
            "seconds": seconds,
        }
        for source, depth, match, counts in self.guesses.rows():
            for stage, count in zip(STAGES, counts, strict=True):
                kinds.setdefault(stage, {})[f"{source} {depth} {match}"] = count
        found = {
            kind: {name: count for name, count in named.items() if count} for kind, named in kinds.items()
        }
        return {kind: named for kind, named in found.items() if named}


def range_name(bits: int) -> str:
    """The numbers that have so many bits: 0, 1, 2-3, 4-7 and so on."""
    return str(bits) if bits < 2 else f"{1 << (bits - 1)}-{(1 << bits) - 1}"


def step_clock(device: torch.device) -> Callable[[], float]:
    """What steps are timed by: the thread's own time where it does all the work, so that other processes of a shared machine
    do not make guesses look dear; else the wall's."""
    return thread_time if device.type == "cpu" and torch.get_num_threads() == 1 else perf_counter


class PhaseTimer:
    """Gives the time between two marks to the phase that the second one names, by the wall's clock."""

    def __init__(self, seconds: dict[str, float], clock: Callable[[], float] = perf_counter) -> None:
        self._seconds, self._clock = seconds, clock
        self._last = self._first = 0.0
        self.step = dict.fromkeys(seconds, 0.0)  # of the last step alone

    def start(self) -> Callable[[str], None]:
        """The time before this belongs to no phase; returns `mark`."""
        self._last = self._first = self._clock()
        return self.mark

    def mark(self, phase: str) -> None:
        """The time since the last mark went to this phase."""
        now = self._clock()
        self.step[phase] = now - self._last
        self._seconds[phase] += now - self._last
        self._last = now

    def share(self, phases: Iterable[str]) -> float:
        """The part of the last step's time, up to its last mark, that these phases took."""
        return sum(self.step[phase] for phase in phases) / ((self._last - self._first) or 1.0)
