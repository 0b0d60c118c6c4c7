"""Runs one case of the engine's random test, and raises Difference where the engine gives anything that it
must not.

Owns the order of steps, arrivals and aborts, and what must hold of the engine as a whole: nothing is left of
requests that have ended. request_life.py knows what must hold for each request.
"""

from checks.fuzz.coverage import Coverage
from checks.fuzz.fuzz_case import Case
from checks.fuzz.fuzz_engines import fuzz_engine
from checks.fuzz.fuzz_models import VOCABULARY, fuzz_model
from checks.fuzz.references import Difference, expected, stop_ids_of
from checks.fuzz.request_life import Life, check
from drafting.adaptive.adaptive_proposer import AdaptiveProposer
from engine.request import Event, Request

# A step runs a token at least. After a preemption tokens run again, but never those of the oldest sequence.
STEPS_PER_TOKEN = 20


class CaseRun:
    """An engine and the requests of one case, step by step."""

    def __init__(self, case: Case, coverage: Coverage) -> None:
        self.case = case
        self.coverage = coverage
        self.wanted = [expected(case, request) for request in case.requests]
        texts = [
            request.prompt_ids + wanted.text.token_ids
            for request, wanted in zip(case.requests, self.wanted, strict=True)
        ]
        self.engine = fuzz_engine(fuzz_model(case.model), case.engine, case.eos_ids, texts)
        self.live: dict[str, Life] = {}
        self.events: list[Event] = []

    def run(self) -> None:
        """Runs the case to its end."""
        last = max(
            [request.aborted or request.arrives for request in self.case.requests] + [*self.case.refused]
        )
        step = 0
        longest = sum(
            len(r.prompt_ids) + len(w.token_ids) for r, w in zip(self.case.requests, self.wanted, strict=True)
        )
        while step <= last or self.engine.has_work:
            check(
                step < last + STEPS_PER_TOKEN * longest, f"{sorted(self.live)} still run before step {step}"
            )
            self._come_and_go(step)
            if self.engine.has_work:
                self._step()
            step += 1
        check(not self.live, f"{sorted(self.live)} never ended")
        self._check_end()
        self.coverage.add(self.case, self.engine)

    def _check_end(self) -> None:
        """Nothing is left of requests that have ended, and every token was counted."""
        engine = self.engine
        pool = engine.scheduler.pool
        check(pool.num_free == pool.num_pages, f"{pool.num_free} of {pool.num_pages} pages are free")
        engine.scheduler.check_integrity()
        sources = [source for event in self.events for source in event.sources]
        check(engine.stats.num_tokens == len(sources), f"{engine.stats} after {len(sources)} tokens")
        accepted = {name: sources.count(name) for name in {*sources} - {None}}
        check(engine.stats.accepted == accepted, f"{engine.stats} after drafted tokens {accepted}")
        proposer = getattr(engine.speculation, "proposer", None)
        if isinstance(proposer, AdaptiveProposer):
            proposer.clear()
            arena = proposer.arena
            num_free = int(arena.room.num_free[0])
            num_segments = len(arena.arrays.segments)
            check(num_free == num_segments, f"{num_free} of {num_segments} segments of histories are free")

    def _come_and_go(self, step: int) -> None:
        """Adds and aborts what is due before a step."""
        for index, choice in enumerate(self.case.requests):
            name = f"request {index}"
            if choice.arrives == step:
                self._add(index)
            if choice.aborted == step:
                life = self.live.pop(name, None)
                found = self.engine.abort(name)
                check(found == (life is not None), f"abort of {name} said {found}")
                self.engine.scheduler.check_integrity()
                if life:
                    self.coverage.aborts += 1
                    self.coverage.close += not life.compare()
                    if choice.comes_back:
                        self._add(index)
        if step in self.case.refused:
            self._ask_what_is_refused()

    def _add(self, index: int) -> None:
        choice = self.case.requests[index]
        stop_ids = stop_ids_of(self.case, choice)
        life = Life(f"request {index}", choice, self.wanted[index], stop_ids)
        self.engine.add(life.request())
        self.live[life.name] = life

    def _ask_what_is_refused(self) -> None:
        """Requests that cannot run are refused, and nothing of them stays."""
        wrong = [
            Request("long", (1,) * self.case.engine.max_context, 1),
            Request("token", (VOCABULARY,), 1),
            Request("none", (), 1),
            *(Request(name, (1,), 1) for name in list(self.live)[:1]),
        ]
        for request in wrong:
            try:
                self.engine.add(request)
            except ValueError:
                continue
            raise Difference(f"the engine took {request}")
        self.engine.scheduler.check_integrity()

    def _step(self) -> None:
        steps = self.engine.stats.num_steps
        events = self.engine.step()
        check(self.engine.stats.num_steps > steps, "a step with waiting work ran nothing")
        self.events += events
        names = [event.request_id for event in events]
        check(len({*names}) == len(names), f"two events of one request in a step: {names}")
        for event in events:
            check(event.request_id in self.live, f"an event of {event.request_id}, which does not run")
            life = self.live[event.request_id]
            life.take(event)
            if event.finish_reason:
                self._end(self.live.pop(life.name))

    def _end(self, life: Life) -> None:
        life.compare_counts()
        self.coverage.close += not life.compare()
        last = life.events[-1]
        self.coverage.failed += last.finish_reason == "error"
        self.coverage.stops_inside += last.finish_reason == "stop" and last.sources[-1] is not None


def run_case(case: Case, coverage: Coverage | None = None) -> None:
    """Runs a case; raises Difference, or what the engine raises, where something is wrong."""
    CaseRun(case, coverage or Coverage()).run()
