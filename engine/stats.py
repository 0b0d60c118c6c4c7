"""What the engine counts since it was made: steps, rows, tokens, guesses, and where the time of its steps goes.

Counting costs one reading of the clock per phase and step, so it is always on. Knows no sequences and no model.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter, thread_time

import torch

# The parts of a step, in its order. On CUDA the device runs behind the host: what it still owes is waited for in sample.
PHASES = ("schedule", "propose", "choose", "plan", "forward", "sample", "verify", "commit", "learn", "retire")


@dataclass
class EngineStats:
    """Counts since the engine was made. num_calls: forward passes per sequence that gave tokens, summed over sequences.

    num_prompt_tokens: of sequences that have started; num_cached_tokens: those of them that were found in the prefix cache.
    verified and accepted: nodes, by source. seconds: time within steps, by phase, on step_clock.
    """

    num_steps: int = 0
    num_rows: int = 0
    num_calls: int = 0
    num_tokens: int = 0
    num_preemptions: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    verified: dict[str, int] = field(default_factory=dict)
    accepted: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))


def step_clock(device: torch.device) -> Callable[[], float]:
    """What steps are timed by: the thread's own time where it does all the work, so that other processes of a shared machine
    do not make guesses look dear; else the wall's."""
    return thread_time if device.type == "cpu" and torch.get_num_threads() == 1 else perf_counter


class PhaseTimer:
    """Gives the time between two marks to the phase that the second one names."""

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

    def since_start(self) -> float:
        """Seconds from the start to the last mark."""
        return self._last - self._first
