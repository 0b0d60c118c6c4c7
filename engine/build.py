"""Makes an engine from settings: loads the model, sizes the cache to the memory that is free, gets the draft
tables.

The only place that knows all settings of engine/ and drafting/; everything below takes the leaf values it
uses.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from drafting.adaptive.adaptive_proposer import AdaptiveProposer
from drafting.adaptive.controller import MAX_STEP_NODES, Controller, choose
from drafting.adaptive.cost_model import CostModel
from drafting.config import SpeculationConfig
from drafting.make_proposer import make_proposer
from drafting.proposer import Proposer
from drafting.speculation import NoSpeculation, Speculation, VerifyAll
from drafting.tables import Tables
from drafting.teaching import teach
from drafting.tree import Int32
from engine import draft_tables as tables
from engine.cache_size import StepLimits, num_cache_pages
from engine.config import ModelConfig, default_max_running
from engine.engine import Engine
from engine.model.fingerprint import model_fingerprint
from engine.model.loading import LoadedModel, load_model
from engine.model.probe import check_parity
from engine.model_runner import ModelRunner
from engine.page_pool import PagePool
from engine.recycling import likeliest_successors
from engine.scheduler import Scheduler
from engine.step_profile import profile_steps

logger = logging.getLogger(__name__)


def build_engine(
    model: ModelConfig,
    speculation: SpeculationConfig,
    tables_folder: Path | None = None,
    corpus: Sequence[Int32] = (),
) -> Engine:
    """Loads a model and makes its engine; tables_folder: where draft tables are shared between workers (None
    = the user's cache).

    corpus: the token ids of each text that is drafted from besides the rows.
    """
    loaded = load_model(model)
    proposer = build_proposer(loaded, model, speculation, tables_folder)
    teach(proposer, corpus, loaded.vocab_size)
    return engine_for(loaded, model, proposer)


def engine_for(loaded: LoadedModel, config: ModelConfig, proposer: Proposer | None) -> Engine:
    """An engine over a loaded model, with the cache that config asks for or that fits."""
    max_running = config.max_running or default_max_running(loaded.device.type == "cuda")
    adaptive = isinstance(proposer, AdaptiveProposer)
    max_nodes = proposer.max_nodes if proposer else 0
    limits = StepLimits(max_running, max_nodes, MAX_STEP_NODES if adaptive else None)
    num_pages = num_cache_pages(loaded, config, limits)
    # In a small cache of its own: it must not depend on the page size or the context that were asked for.
    parity = check_parity(ModelRunner(loaded, num_pages=3, page_size=4, limits=StepLimits(1, 4)))
    runner = ModelRunner(loaded, num_pages, config.page_size, limits)
    scheduler = Scheduler(
        PagePool(num_pages, config.page_size), max_running, config.prefill_chunk, config.prefix_cache
    )
    found = (num_pages, config.page_size, max_running, parity)
    logger.info("%d pages of %d tokens, %d sequences at once, parity %.1e", *found)
    if proposer is None:
        return Engine(runner, scheduler, NoSpeculation(), loaded.max_context)
    controller: Controller | VerifyAll = VerifyAll()
    if adaptive:
        _compile_drafting()
        controller = Controller(CostModel(profile_steps(runner, max_running, max_nodes, loaded.max_context)))
    return Engine(runner, scheduler, Speculation(proposer, controller), loaded.max_context)


def _compile_drafting() -> None:
    """Goes once through what a step calls, so that no first step is taken for a slow one."""
    proposer = AdaptiveProposer(
        max_nodes=2, corpus_tokens=16, tables=Tables(bigram=np.zeros((4, 2), np.int32))
    )
    states = [proposer.start(np.array([1, 2, 3, 1, 2, 3, 1], np.int32))]
    candidates = proposer.propose(states, np.array([2], np.int32))
    choose(candidates, np.zeros(2), 1.0)
    proposer.learn(states, candidates, np.array([2, 3], np.int32), np.array([0, 2]))
    proposer.recycle(np.array([1], np.int32), likeliest_successors(torch.zeros(1, 4), 2))
    proposer.finish(states[0])
    proposer.clear()


def build_proposer(
    loaded: LoadedModel, model: ModelConfig, speculation: SpeculationConfig, tables_folder: Path | None = None
) -> Proposer | None:
    """The proposer that the settings ask for, with the draft tables it needs; they are built here where they
    are missing.
    """
    if speculation.mode == "off":
        return None
    fingerprint = model_fingerprint(model)
    cache = tables_folder or tables.default_cache()
    if speculation.mode == "adaptive":
        bigram = tables.load_or_build_tables(loaded.model, fingerprint, cache, ("bigram",))
        return make_proposer(speculation, bigram, cache / fingerprint / "calibration.npz")
    num_successors = max(tables.NUM_SUCCESSORS, speculation.mixed.num_drafts)
    sources = speculation.mixed.sources
    found = tables.load_or_build_tables(loaded.model, fingerprint, cache, sources, num_successors)
    return make_proposer(speculation, found)
