"""Engines for the engine's random test: as engine/build.py makes them, but without measuring anything.

Everything that decides is derived from the case, the clock too, so that a case runs the same way every time.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from checks.fuzz.fuzz_case import EngineChoice, SpeculationChoice
from checks.fuzz.fuzz_models import VOCABULARY, FuzzModel
from checks.fuzz.known_texts import KnownTexts
from drafting.adaptive.adaptive_proposer import AdaptiveProposer
from drafting.adaptive.controller import MAX_STEP_NODES, Controller
from drafting.adaptive.cost_model import CostModel, Profile, StepShape
from drafting.config import MixedConfig, SpeculationConfig
from drafting.make_proposer import make_proposer
from drafting.proposer import Proposer
from drafting.speculation import NoSpeculation, Speculation, VerifyAll
from drafting.tables import Tables
from engine.cache_size import StepLimits
from engine.engine import Engine
from engine.model_runner import ModelRunner
from engine.page_pool import PagePool
from engine.scheduler import Scheduler
from engine.stats import PhaseTimer

STEP_SECONDS = 0.01
TOKEN_SECONDS = 0.0002
NOISE = 10.0  # of the unwritten cache; keys and values of these models are of the order of 1


def fuzz_engine(
    model: FuzzModel, choice: EngineChoice, eos_ids: Sequence[int], texts: Sequence[Sequence[int]] = ()
) -> Engine:
    """An engine that checks its integrity in every step. texts: what must come of each request, for mode
    trees.
    """
    proposer = _proposer(model, choice.speculation, texts)
    adaptive = isinstance(proposer, AdaptiveProposer)
    loaded = replace(model.loaded, max_context=choice.max_context, eos_ids=frozenset(eos_ids))
    runner = ModelRunner(
        loaded,
        choice.num_pages,
        choice.page_size,
        StepLimits(
            choice.max_running, proposer.max_nodes if proposer else 0, MAX_STEP_NODES if adaptive else None
        ),
    )
    scheduler = Scheduler(
        PagePool(choice.num_pages, choice.page_size),
        choice.max_running,
        choice.prefill_chunk,
        choice.prefix_cache,
    )
    speculation: Speculation | NoSpeculation = NoSpeculation()
    if proposer:
        controller = _controller(choice.speculation.is_free) if adaptive else VerifyAll()
        speculation = Speculation(proposer, controller)
    engine = Engine(runner, scheduler, speculation, choice.max_context)
    engine.debug = True
    _fill_with_noise(engine)
    clock = _clock(choice.speculation.seed)
    engine.timer = PhaseTimer(engine.stats.seconds, clock, clock)
    return engine


def _proposer(model: FuzzModel, choice: SpeculationChoice, texts: Sequence[Sequence[int]]) -> Proposer | None:
    if choice.mode == "off":
        return None
    if choice.mode == "trees":
        return KnownTexts(texts, VOCABULARY, choice.draft_len, choice.max_nodes, choice.seed)
    mixed = MixedConfig(choice.num_drafts, choice.draft_len, choice.query_len, list(choice.sources))
    config = SpeculationConfig(
        choice.mode,
        mixed if choice.mode == "mixed" else MixedConfig(),
        choice.max_nodes,
        choice.corpus_tokens,
    )
    columns = choice.num_successors
    found = (model.tables.bigram, model.tables.unigram)
    bigram, unigram = (ids[..., :columns].copy() if columns and ids is not None else None for ids in found)
    logprobs = model.tables.bigram_logprobs
    return make_proposer(
        config,
        Tables(bigram, unigram, logprobs[:, :columns].copy() if columns and logprobs is not None else None),
    )


class FreeNodes(Controller):
    """Prices nothing: every candidate is verified. Pauses come as they do with prices."""

    def _set_price(self) -> None:
        super()._set_price()
        self.step.price = 0.0


def _controller(is_free: bool) -> Controller:
    shapes = [StepShape.decoding(count, context) for count in (1, 2, 8, 32) for context in (8, 64)]
    shapes += [StepShape.decoding(1, 32).with_nodes(nodes) for nodes in (1, 3, 7, 15, 63)]
    seconds = [STEP_SECONDS + TOKEN_SECONDS * shape.packed_tokens for shape in shapes]
    return (FreeNodes if is_free else Controller)(CostModel(Profile(shapes, seconds)))


def _clock(seed: int) -> Callable[[], float]:
    """An invented clock: a step takes about STEP_SECONDS, its parts more or less."""
    rng = random.Random(seed)
    now = 0.0

    def read() -> float:
        nonlocal now
        now += STEP_SECONDS / 10 * rng.choice((0.1, 0.5, 1.0, 2.0))
        return now

    return read


def _fill_with_noise(engine: Engine) -> None:
    """Fills the cache with noise that changes every text, so that no slot can be read unnoticed before it was
    written.
    """
    noise = torch.Generator().manual_seed(0)
    for side in (*engine.runner.cache.keys, *engine.runner.cache.values):
        side.normal_(0.0, NOISE, generator=noise)
