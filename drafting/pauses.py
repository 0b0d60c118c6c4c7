"""When thinking of guesses pauses: while what steps gain by it, measured, is less than what it costs.

Knows tokens gained per step, not where they come from. An expected gain is not trusted here: what guessing costs beside rows
(memory that is touched, sequences that get out of step) is in no model, but it is in the clock.
"""

LONGEST_PAUSE = 64
TRIAL_STEPS = 4  # after a pause, before it is judged whether the next one follows
MEMORY_STEPS = 16.0
LOOK_EVERY, LOOK_STEPS = 64, 2  # while thinking pays: plain steps now and then, or nobody would know what they cost
# A load that has changed by this factor since the last trial began ends a pause.
LOAD_CHANGE = 1.5


class Pauses:
    """Steps that think and steps that do not. A pause is followed by a trial of 4 steps; one that gains nothing, or whose first
    step finds nothing to verify, is followed by a pause of twice the length, up to 64 steps."""

    def __init__(self) -> None:
        self._gain = 0.0  # of the trial, or of about the last 16 steps that thought
        self._trial = TRIAL_STEPS  # steps left of it; 0 = thinking pays
        self._plain_left = LOOK_STEPS  # steps that will not think
        self._pause = self._load = self._num_thought = 0

    @property
    def hopeless(self) -> bool:
        """Whether guesses have gained nothing for so long that pauses grow no longer."""
        return self._pause == LONGEST_PAUSE

    def wants(self, load: int) -> bool:
        """Whether this step should think; load: sequences that run."""
        if not self._load / LOAD_CHANGE <= load <= self._load * LOAD_CHANGE:
            self._plain_left = self._plain_left if self._load == 0 else 0
            self._load = load
        if self._plain_left:
            self._plain_left -= 1
            return False
        return True

    def judge(self, gain: float, num_nodes: int) -> None:
        """A step that thought verified so many guesses and gained so many tokens over a plain one, the cost of its time taken off."""
        if self._trial:
            self._gain, self._trial = self._gain + gain, self._trial - 1
            if num_nodes and self._trial:
                return
            self._gain /= TRIAL_STEPS
        else:
            self._gain += (gain - self._gain) / MEMORY_STEPS
        if self._gain <= 0:
            self._plain_left = self._pause = min(LONGEST_PAUSE, 2 * self._pause or 1)
            self._gain, self._trial = 0.0, TRIAL_STEPS
            return
        self._trial = self._pause = 0
        self._num_thought += 1
        if self._num_thought % LOOK_EVERY == 0:
            self._plain_left = LOOK_STEPS
