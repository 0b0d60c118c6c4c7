"""When thinking of guesses pauses: while what steps gain by it, measured, is less than what it costs.

Knows tokens gained per step, not where they come from. An expected gain is not trusted here: what guessing costs beside rows
(memory that is touched, sequences that get out of step) is in no model, but it is in the clock.
"""

from dataclasses import dataclass

LONGEST_PAUSE = 128
# Where steps find nothing to verify, thinking of them is all that is lost: pauses need not be longer than to make that so little.
LEAST_LOSS = 0.002
TRIAL_STEPS = 4  # after a pause, before it is judged whether the next one follows
EMPTY_STEPS = 3  # that find nothing to verify, one after the other: good times are over
MEMORY_STEPS = 16.0
LOOK_EVERY, LOOK_STEPS = (
    64,
    3,
)  # while thinking pays: plain steps now and then, or nobody would know what they cost


@dataclass
class _Load:
    """What is known of loads of one class: it begins with plain steps, to know what they cost, and a trial."""

    gain: float = 0.0  # of the trial, or of about the last 16 steps that thought
    trial: int = TRIAL_STEPS  # steps left of it; 0 = thinking pays
    plain_left: int = LOOK_STEPS  # steps that will not think
    pause: int = 0
    longest: int = LONGEST_PAUSE
    num_empty: int = 0  # steps since one found something to verify
    num_thought: int = 0


class Pauses:
    """Steps that think and steps that do not. A pause is followed by a trial of 4 steps; one that gains nothing, or a step of which
    finds nothing to verify, is followed by a pause of twice the length, up to 128 steps; after a step that found nothing, up to
    as many as bring thinking down to a fifth of a percent of the time.

    Each class of loads (1, 2-3, 4-7 ... sequences) is judged for itself: what does not pay at 64 may pay for the last rows of a job.
    """

    def __init__(self) -> None:
        self._loads: dict[int, _Load] = {}
        self._now = _Load()

    @property
    def hopeless(self) -> bool:
        """Whether guesses have gained nothing at this load for so long that pauses grow no longer."""
        return 0 < self._now.longest == self._now.pause

    def wants(self, load: int) -> bool:
        """Whether this step should think; load: sequences that run."""
        self._now = now = self._loads.setdefault(load.bit_length(), _Load())
        if now.plain_left:
            now.plain_left -= 1
            return False
        return True

    def judge(self, gain: float, num_nodes: int, thinking: float) -> None:
        """A step that thought verified so many guesses and gained so many tokens over a plain one, the cost of its time taken off.
        thinking: the time that it took, by that of a plain step."""
        now = self._now
        now.num_empty = 0 if num_nodes else now.num_empty + 1
        if now.trial:
            now.gain, now.trial = now.gain + gain, now.trial - 1
            if num_nodes and now.trial:
                return
            now.gain /= TRIAL_STEPS
        else:
            now.gain += (gain - now.gain) / MEMORY_STEPS
        if now.gain <= 0 or now.num_empty == EMPTY_STEPS:
            now.longest = LONGEST_PAUSE if num_nodes else min(LONGEST_PAUSE, int(thinking / LEAST_LOSS))
            now.plain_left = now.pause = min(now.longest, 2 * now.pause or 1)
            now.gain, now.trial, now.num_empty = 0.0, TRIAL_STEPS, 0
            return
        now.trial = now.pause = 0
        now.num_thought += 1
        if now.num_thought % LOOK_EVERY == 0:
            now.plain_left = LOOK_STEPS
