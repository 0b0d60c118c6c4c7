"""Compares the engine with transformers in random cases, for as long as you like.

    python -m checks.fuzz_engine --minutes 30 --seed 0       # exits 1 at the first difference
    python -m checks.fuzz_engine --case '{"requests": ...}'  # runs one case again

Tiny random models of every supported family in float64, random settings, random requests that come and go. A
case follows from the seed and its number alone. A difference is shrunk to a minimal case, which is printed as
one line of JSON. checks/fuzz/references.py says what is compared with what, checks/fuzz/random_case.py how
likely what is. With NUMBA_BOUNDSCHECK=1 the compiled loops check their indices as well.
"""

import argparse
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer
from typing import NamedTuple

import torch

from checks.fuzz.coverage import Coverage
from checks.fuzz.fuzz_case import Case, from_json, to_json
from checks.fuzz.random_case import random_case
from checks.fuzz.run_case import run_case
from checks.fuzz.shrink import shrink

REPORT_SECONDS = 60.0
MAX_CASE_SECONDS = 120.0  # a case takes less than a second; one that takes this long has no end


class Finding(NamedTuple):
    """A case that fails, and what is wrong with it."""

    name: str
    case: Case
    message: str


def main(arguments: list[str] | None = None) -> int:
    """Runs cases until the time is over; returns 1 after a difference."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--max_cases", type=int, default=sys.maxsize)
    parser.add_argument("--case", help="a case as JSON, instead of random ones")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if given.case:
        message = failure(from_json(given.case))
        print(message or "no difference")
        return 1 if message else 0
    coverage = Coverage()
    found = search(given.seed, coverage, given.first, given.max_cases, given.minutes * 60)
    if found is None:
        print(f"no difference: {coverage}")
        return 0
    print(f"{found.name}: {found.message}\n{to_json(found.case)}\nshrinking it ...", flush=True)
    small = minimal(found)
    print(f"minimal: {failure(small)}\n{to_json(small)}")
    return 1


def search(
    seed: int, coverage: Coverage, first: int = 0, max_cases: int = sys.maxsize, seconds: float = 60.0
) -> Finding | None:
    """The first case that fails; tells once a minute what the cases went through."""
    started = time.monotonic()
    reported = 0.0
    for number in range(first, first + max_cases):
        passed = time.monotonic() - started
        if passed > seconds:
            break
        if passed - reported > REPORT_SECONDS:
            reported = passed
            print(f"{passed / 60:.1f} min: {coverage}", flush=True)
        name = f"case {number} of seed {seed}"
        with _time_limit(name):
            case = random_case(seed, number)
        message = failure(case, coverage)
        if message:
            return Finding(name, case, message)
    return None


def failure(case: Case, coverage: Coverage | None = None) -> str | None:
    """What is wrong with a case, its kind first; None = nothing."""
    try:
        with _time_limit(to_json(case)):
            run_case(case, coverage)
    except Exception as error:  # whatever the engine raises is a finding
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({os.path.basename(where.filename)}:{where.lineno})"
    return None


def minimal(found: Finding) -> Case:
    """The smallest case that fails in the same kind of way."""
    kind = found.message.split(":")[0]
    return shrink(found.case, lambda simpler: (failure(simpler) or "").split(":")[0] == kind)


@contextmanager
def _time_limit(name: str) -> Iterator[None]:
    """Ends the process when a case has no end.

    A thread can tell, because the compiled loops run without the GIL.
    """

    def end() -> None:
        print(f"{name} did not end within {MAX_CASE_SECONDS:.0f} s", flush=True)
        os._exit(1)

    timer = Timer(MAX_CASE_SECONDS, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


if __name__ == "__main__":
    sys.exit(main())
