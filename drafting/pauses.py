"""When thinking of guesses pauses: while what steps gain by it, measured, is less than what it costs.

Knows tokens gained per step, not where they come from. An expected gain is not trusted here: what guessing costs beside rows
(memory that is touched, sequences that get out of step) is in no model, but it is in the clock.
"""

LONGEST_PAUSE = 64
TRIAL_STEPS = 4  # after a pause, before it is judged whether the next one follows
MEMORY_STEPS = 16.0
# A load that has changed by this factor since the last trial began ends a pause.
LOAD_CHANGE = 1.5


class Pauses:
    """Steps that think and steps that do not. A pause is followed by a trial of 4 steps; one that gains nothing, or whose first
    step finds nothing to verify, is followed by a pause of twice the length, up to 64 steps."""

    def __init__(self) -> None:
        self._gain = 0.0  # of the trial, or of about the last 16 steps that thought
        self._trial = TRIAL_STEPS  # steps left of it; 0 = thinking pays
        self._pause = self._waited = self._load = 0

    def wants(self, load: int) -> bool:
        """Whether this step should think; load: sequences that run."""
        self._waited += 1
        if not self._load / LOAD_CHANGE <= load <= self._load * LOAD_CHANGE:
            self._load = load
            self._waited = max(self._waited, self._pause + 1)
        return self._waited > self._pause

    def judge(self, gain: float, num_nodes: int) -> None:
        """A step that thought verified so many guesses and gained so many tokens over a plain one, the cost of its time taken off."""
        if self._trial:
            self._gain, self._trial = self._gain + gain, self._trial - 1
            if num_nodes and self._trial:
                return
            self._gain /= TRIAL_STEPS
        else:
            self._gain += (gain - self._gain) / MEMORY_STEPS
        if self._gain > 0:
            self._trial = self._pause = 0
        else:
            self._pause = min(LONGEST_PAUSE, 2 * self._pause or 1)
            self._gain, self._trial = 0.0, TRIAL_STEPS
            self._waited = 0
