"""What the cases of the engine's random test went through, so that a reader sees what was really tried."""

from dataclasses import dataclass, field

from checks.fuzz.fuzz_case import Case
from engine.engine import Engine


@dataclass
class Coverage:
    """Counts over all cases.

    sampled: requests that are not greedy. stops_inside: outputs that ended at a drafted token. failed:
    outputs that ended because their stop check raised. close: texts that differed where the last digits
    decide.
    """

    cases: int = 0
    requests: int = 0
    sampled: int = 0
    tokens: int = 0
    verified: int = 0
    accepted: int = 0
    stops_inside: int = 0
    preemptions: int = 0
    cached_tokens: int = 0
    pauses: int = 0
    aborts: int = 0
    failed: int = 0
    close: int = 0
    families: set[str] = field(default_factory=set)

    def add(self, case: Case, engine: Engine) -> None:
        """Takes in a case that has run."""
        stats = engine.stats
        self.cases += 1
        self.requests += len(case.requests)
        self.sampled += sum(request.sampling.temperature > 0 for request in case.requests)
        self.tokens += stats.num_tokens
        self.verified += sum(stats.verified.values())
        self.accepted += sum(stats.accepted.values())
        self.preemptions += stats.num_preemptions
        self.cached_tokens += stats.num_cached_tokens
        self.pauses += stats.num_pauses
        self.families.add(case.model.family)

    def __str__(self) -> str:
        counts = [
            f"{count} {name.replace('_', ' ')}" for name, count in vars(self).items() if name != "families"
        ]
        return f"{', '.join(counts)}, {len(self.families)} families"
