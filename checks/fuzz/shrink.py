"""Makes a failing case of the engine's random test smaller, as long as it still fails.

Knows how a case can become simpler: fewer requests, settings at their defaults, shorter prompts and outputs.
Does not know why a case fails.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

from checks.fuzz.fuzz_case import Case, RequestChoice
from checks.fuzz.fuzz_models import MAX_CONTEXT


def shrink(case: Case, fails: Callable[[Case], bool], seconds: float = 300.0) -> Case:
    """A case that fails and none of whose simpler neighbours does, or the simplest that was found in time."""
    end = time.monotonic() + seconds
    tried: set[Case] = set()

    def simplest(case: Case, ways: Callable[[Case], Iterator[Case]]) -> Case:
        """The case after all that one way of simplifying can do for it."""
        for simpler in ways(case):
            if simpler not in tried and _is_valid(simpler) and time.monotonic() < end:
                tried.add(simpler)
                if fails(simpler):
                    return simplest(simpler, ways)
        return case

    before = None
    while case != before:
        before = case
        for ways in WAYS:
            case = simplest(case, ways)
    return case


def _is_valid(case: Case) -> bool:
    """Whether a case asks nothing that the engine's builder, or `add`, would refuse."""
    engine = case.engine
    return (
        bool(case.requests)
        and engine.max_context <= min(MAX_CONTEXT, engine.num_pages * engine.page_size)
        and all(0 < len(request.prompt_ids) < engine.max_context for request in case.requests)
    )


def _fewer_requests(case: Case) -> Iterator[Case]:
    for requests in _without_part(case.requests):
        yield replace(case, requests=requests)


def _simpler_settings(case: Case) -> Iterator[Case]:
    for speculation in _defaults(case.engine.speculation):
        yield replace(case, engine=replace(case.engine, speculation=speculation))
    for engine in _defaults(case.engine):
        yield replace(case, engine=engine)
    for model in _defaults(case.model):
        yield replace(case, model=model)
    for eos_ids in _without_part(case.eos_ids):
        yield replace(case, eos_ids=eos_ids)
    for refused in _without_part(case.refused):
        yield replace(case, refused=refused)


def _simpler_features(case: Case) -> Iterator[Case]:
    for index, request in enumerate(case.requests):
        for simpler in _with_less(request):
            yield replace(case, requests=_with(case.requests, index, simpler))


def _shorter_texts(case: Case) -> Iterator[Case]:
    for index, request in enumerate(case.requests):
        for simpler in _shorter(request):
            yield replace(case, requests=_with(case.requests, index, simpler))


def _with_less(request: RequestChoice) -> Iterator[RequestChoice]:
    yield from _defaults(request)
    for sampling in _defaults(request.sampling):
        yield replace(request, sampling=sampling)
    for stop_ids in _without_part(request.stop_ids):
        yield replace(request, stop_ids=stop_ids)
    for stop_words in _without_part(request.stop_words):
        yield replace(request, stop_words=stop_words)
    for prediction_ids in _without_part(request.prediction_ids):
        yield replace(request, prediction_ids=prediction_ids)
    for arrives in _smaller(request.arrives, 0):
        yield replace(request, arrives=arrives)
    for aborted in _smaller(request.aborted or 0, request.arrives):
        yield replace(request, aborted=aborted)


def _shorter(request: RequestChoice) -> Iterator[RequestChoice]:
    for max_tokens in _smaller(request.max_tokens, 1):
        yield replace(request, max_tokens=max_tokens)
    for prompt_ids in _without_part(request.prompt_ids):
        yield replace(request, prompt_ids=prompt_ids)
    for index, token in enumerate(request.prompt_ids):
        if token:
            yield replace(request, prompt_ids=_with(request.prompt_ids, index, 0))


def _smaller_engines(case: Case) -> Iterator[Case]:
    """Numbers that cannot be at their defaults, made smaller one by one."""
    for engine in _smaller_fields(case.engine, ("max_context", "num_pages", "page_size", "max_running")):
        yield replace(case, engine=engine)
    if case.engine.speculation.mode != "off":
        names = ("num_drafts", "draft_len", "query_len", "max_nodes", "corpus_tokens")
        for speculation in _smaller_fields(case.engine.speculation, names):
            yield replace(case, engine=replace(case.engine, speculation=speculation))


def _smaller_fields(choice: Any, names: tuple[str, ...]) -> Iterator[Any]:
    default = type(choice)()
    for name in names:
        if getattr(choice, name) != getattr(default, name):
            for number in _smaller(getattr(choice, name), 1):
                yield replace(choice, **{name: number})


def _defaults(choice: Any) -> Iterator[Any]:
    """All settings at their defaults, then each of them."""
    default = type(choice)()
    others = [
        known.name for known in fields(choice) if getattr(choice, known.name) != getattr(default, known.name)
    ]
    if others and not isinstance(choice, RequestChoice):
        yield default
    for name in others:
        if name not in ("prompt_ids", "max_tokens"):
            yield replace(choice, **{name: getattr(default, name)})


def _without_part(values: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Without half of the values, a quarter and so on, down to a single one."""
    size = max(1, len(values) // 2) if values else 0
    while size:
        for first in range(0, len(values), size):
            yield values[:first] + values[first + size :]
        size //= 2


def _smaller(number: int, least: int) -> Iterator[int]:
    """Numbers from `least` up to the one below, half-way each time."""
    while least < number:
        yield least
        least += max(1, (number - least) // 2)


def _with(values: tuple[Any, ...], index: int, value: Any) -> tuple[Any, ...]:
    return values[:index] + (value,) + values[index + 1 :]


# What leaves out most comes first.
WAYS = (_fewer_requests, _simpler_settings, _simpler_features, _shorter_texts, _smaller_engines)
