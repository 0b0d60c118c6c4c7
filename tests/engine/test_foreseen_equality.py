"""Lossless whatever a drafter foresees: texts do not depend on predictions, reference texts, drafters, page
sizes or preemptions. Sampled and greedy rows of a tiny Llama in float64.
"""

import random
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from drafting.sampling import Sampling
from engine.engine import Engine
from engine.request import Completion, Request
from tests.engine.harness import (
    VOCABULARY,
    adaptive_proposer,
    make_engine,
    mixed_proposer,
    random_prompts,
    with_price,
)
from tests.tiny_models import tiny_model

CONTEXT = 96
NUM_TOKENS = 40
SAMPLED = [
    Sampling(0.8), Sampling(1.0, top_p=0.9), Sampling(1.2, top_k=7), Sampling(0.3, min_p=0.05),
    Sampling(1.0, 0.95, 20, 0.01), Sampling(),
]  # fmt: skip
PREDICTIONS = ("none", "right", "wrong", "random", "longer than the room", "beginning late", "mixed")

SLOW = ("none", "random", "beginning late", "mixed")


def slow(value: Any) -> Any:
    return pytest.param(value, marks=pytest.mark.slow)


def requests(count: int = 12) -> list[Request]:
    """Every second pair of rows shares a group."""
    return [
        Request(
            f"{n}",
            prompt,
            NUM_TOKENS,
            replace(SAMPLED[n % 6], seed=n - 3),
            ignore_eos=True,
            group="g" if n % 4 < 2 else "",
        )
        for n, prompt in enumerate(random_prompts(count, seed=11))
    ]


def engine_of(mode: str, page_size: int = 16, max_running: int = 16, **settings: Any) -> Engine:
    proposer = {"off": lambda: None, "mixed": lambda: mixed_proposer(5, 4), "adaptive": adaptive_proposer}
    engine = make_engine(
        tiny_model("llama"),
        proposer[mode](),
        CONTEXT,
        page_size=page_size,
        max_running=max_running,
        prefill_chunk=23,
        **settings,
    )
    return with_price(engine, 0.0) if mode == "adaptive" else engine


@cache
def texts() -> tuple[tuple[int, ...], ...]:
    """The text of each request when it is decoded alone and without drafts."""
    return tuple(c.token_ids for c in engine_of("off", max_running=1).generate(requests()))


def prediction(kind: str, number: int) -> tuple[int, ...]:
    """What a request says its text will be."""
    text = texts()[number]
    rng = random.Random(number)
    return {
        "none": (),
        "right": text,
        "wrong": tuple((token + 1) % VOCABULARY for token in text),
        "random": tuple(rng.choices(range(VOCABULARY), k=rng.randint(1, 60))),
        "longer than the room": text * 4,
        "beginning late": text[7:],
        "mixed": tuple(token if rng.random() < 0.8 else 5 for token in text),
    }[kind]


def completed(engine: Engine, kind: str) -> list[Completion]:
    asked = [replace(r, prediction_ids=prediction(kind, n)) for n, r in enumerate(requests())]
    return engine.generate(asked)


def assert_equal(done: list[Completion]) -> None:
    assert tuple(completion.token_ids for completion in done) == texts()


@pytest.mark.parametrize("page_size", [slow(1), 4, slow(16)])
@pytest.mark.parametrize("kind", [slow(kind) if kind in SLOW else kind for kind in PREDICTIONS])
def test_a_prediction_changes_no_text_also_after_a_preemption(kind: str, page_size: int) -> None:
    engine = engine_of("adaptive", page_size, cache_tokens=128)
    done = completed(engine, kind)
    assert_equal(done)
    assert engine.stats.num_preemptions > 0
    if kind in ("right", "longer than the room", "mixed"):
        assert sum(completion.stats.accepted.get("prediction", 0) for completion in done) > 100
    assert_equal(completed(engine, kind))  # now what was said the first time is known too


@pytest.mark.parametrize("mode", ["off", "mixed"])
def test_a_prediction_means_nothing_to_other_modes(mode: str) -> None:
    assert_equal(completed(engine_of(mode), "right"))


@pytest.mark.parametrize("page_size", [slow(1), 4, slow(16)])
@pytest.mark.parametrize("max_running", [slow(1), slow(3), 16])
def test_reference_texts_change_no_text(max_running: int, page_size: int) -> None:
    engine = engine_of("adaptive", page_size, max_running, cache_tokens=128)
    proposer = engine.speculation.proposer
    rng = np.random.default_rng(0)
    for text in texts()[:6]:
        proposer.teach(np.array(text, np.int32))
        proposer.teach(rng.integers(0, VOCABULARY, 50, np.int32))
    done = completed(engine, "random")
    assert_equal(done)
    accepted = sum(completion.stats.accepted.get("reference", 0) for completion in done)
    assert accepted > 50
    proposer.clear()
    assert_equal(completed(engine, "none"))


def test_with_the_right_prediction_a_row_takes_few_steps() -> None:
    (alone,) = engine_of("adaptive").generate(requests()[:1])
    (done,) = engine_of("adaptive").generate([replace(requests()[0], prediction_ids=texts()[0])])
    assert done.token_ids == alone.token_ids
    assert done.stats.num_steps < alone.stats.num_steps / 2
