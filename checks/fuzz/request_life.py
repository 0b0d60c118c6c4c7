"""One request of a random case, from when it is added until it ends or is aborted, and what must hold for it.

Compares tokens, finish reasons, log-probabilities, counts, and what the stop check saw. Does not know the
engine.
"""

from dataclasses import dataclass, field

import numpy as np

from checks.fuzz.fuzz_case import RequestChoice
from checks.fuzz.references import Difference, Expected, ends_with
from engine.request import Event, Request, StopCheck

LOGPROB_TOLERANCE = 2e-5  # log-probabilities are float32


def check(condition: object, message: str) -> None:
    """Raises Difference unless the condition holds."""
    if not condition:
        raise Difference(message)


@dataclass(eq=False)
class Life:
    """One life of a request in the engine, and what came of it.

    stop_ids: the token ids that end it, the model's own included. seen, num_checks: what its stop checks saw,
    and how many were made.
    """

    name: str
    choice: RequestChoice
    expected: Expected
    stop_ids: set[int]
    events: list[Event] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)
    num_checks: int = 0

    def request(self) -> Request:
        """The engine's request."""
        choice = self.choice
        return Request(
            self.name,
            choice.prompt_ids,
            choice.max_tokens,
            choice.sampling,
            frozenset(choice.stop_ids),
            choice.ignore_eos,
            choice.group,
            self._stop_check if self.is_checked else None,
            choice.logprobs,
            choice.speculate,
            choice.prediction_ids,
        )

    @property
    def is_checked(self) -> bool:
        """Whether the request has a stop check."""
        return bool(self.choice.stop_words) or self.choice.check_fails is not None

    def _stop_check(self) -> StopCheck:
        self.num_checks += 1

        def check(token: int) -> bool:
            self.seen.append(token)
            if len(self.seen) == self.choice.check_fails:
                raise OSError("this check was made to fail")
            return ends_with(self.seen, self.choice.stop_words)

        return check

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The tokens that came so far."""
        return tuple(token for event in self.events for token in event.token_ids)

    def compare_counts(self) -> None:
        """Compares the counts of a finished request with its events."""
        stats = self.events[-1].stats
        assert stats
        drafted = [source for event in self.events for source in event.sources if source is not None]
        check(stats.num_steps == len(self.events), f"{self.name}: {stats} after {len(self.events)} events")
        check(stats.num_generated_tokens == len(self.token_ids), f"{self.name}: {stats}")
        check(stats.num_accepted == len(drafted), f"{self.name}: {stats}, but {len(drafted)} drafted tokens")
        check(stats.num_accepted <= stats.num_verified, f"{self.name}: {stats}")
        check(stats.num_cached_tokens < len(self.choice.prompt_ids), f"{self.name}: {stats}")
        check(self.choice.speculate or not stats.num_verified, f"{self.name}: drafts that nobody wanted")

    def take(self, event: Event) -> None:
        """Takes in an event of a step."""
        self.events.append(event)
        check(event.token_ids, f"{self.name}: an event without tokens")
        check(len(event.sources) == len(event.token_ids), f"{self.name}: sources {event.sources}")
        check(None not in event.sources[:-1], f"{self.name}: sources {event.sources}")

    def compare(self) -> bool:
        """Compares what came so far with what must come; returns False where it left the expected text at a
        place where either token is right.
        """
        found = self.token_ids
        wanted = self.expected
        if self.is_checked:
            shown = found[:-1] if found and found[-1] in self.stop_ids else found  # a stop id ends it unasked
            check(tuple(self.seen) == shown, f"{self.name}: its stop check saw {self.seen}, of {found}")
            check(self.num_checks == 1, f"{self.name}: {self.num_checks} stop checks were made")
        same = next(
            (n for n, (a, b) in enumerate(zip(found, wanted.token_ids, strict=False)) if a != b),
            min(len(found), len(wanted.token_ids)),
        )
        self._compare_logprobs(same)
        if same < min(len(found), len(wanted.token_ids)) and same in wanted.text.close:
            return False
        reason = self.events[-1].finish_reason if self.events else None
        complete = found == wanted.token_ids and reason == wanted.finish_reason
        begun = found == wanted.token_ids[: len(found)] and len(found) < len(wanted.token_ids)
        check(
            complete or (begun and not reason),
            f"{self.name}: got {found} ({reason}), must be {wanted.token_ids} ({wanted.finish_reason})",
        )
        return True

    def _compare_logprobs(self, num_tokens: int) -> None:
        """Compares the log-probabilities of the first tokens."""
        parts = [event.logprobs for event in self.events]
        if self.choice.logprobs is None:
            check(not any(parts), f"{self.name}: log-probabilities that nobody asked for")
            return
        place = 0
        for event, part in zip(self.events, parts, strict=True):
            check(part is not None and len(part.chosen) == len(event.token_ids), f"{self.name}: {part}")
            assert part is not None
            for token, chosen, ids, top in zip(
                event.token_ids, part.chosen, part.top_ids, part.top, strict=True
            ):
                if place < num_tokens:
                    self._compare_position(place, token, chosen, ids, top)
                place += 1

    def _compare_position(
        self, place: int, token: int, chosen: float, ids: np.ndarray, top: np.ndarray
    ) -> None:
        row = self.expected.text.logits[place].astype(np.float64)
        shifted = row - row.max()
        wanted = shifted - np.log(np.exp(shifted).sum())
        best = np.sort(wanted)[::-1][: self.choice.logprobs]
        far = [abs(chosen - wanted[token]), *np.abs(top - best), *np.abs(wanted[ids] - best)]
        check(
            len(ids) == len({*ids.tolist()}) == len(best) and np.max(far) < LOGPROB_TOLERANCE,
            f"{self.name}: log-probabilities of output token {place}: {chosen}, {ids}, {top}; "
            f"must be {wanted[token]} and {best}",
        )
