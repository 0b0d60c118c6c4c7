"""In the engine, what the model said is kept beside each output token: transformers' own eight likeliest, at
the very places, however steps draft or pause, whatever is preempted, and wherever an output ends.
"""

import random

import numpy as np
import pytest
import torch

from drafting.adaptive.segments import place_after
from drafting.likely import LOGPROB_BITS, NUM_LEVELS, UNKNOWN
from drafting.sampling import Sampling
from engine.engine import Engine
from tests.engine.harness import adaptive_proposer, greedy_cases, make_engine, with_price
from tests.tiny_models import tiny_model

TOLERANCE = 1 / 512 + 1e-3


def pausing(engine: Engine, seed: int) -> Engine:
    """An engine whose steps draft or pause at random, and keep what the model says in most of them."""
    rng = random.Random(seed)
    speculation = with_price(engine, 0.0).speculation
    speculation.wants_drafts = lambda *args: rng.random() < 0.5
    speculation.wants_likely = lambda: 8 if rng.random() < 0.8 else 0
    return engine


def kept(engine: Engine) -> list[tuple[list[int], np.ndarray]]:
    """Of each finished row, its tokens and the entries beside them."""
    arena = engine.speculation.proposer.arena
    rows = []
    for first in arena._finished[arena._oldest :]:
        places = [first]
        while (place := place_after(arena.arrays, places[-1])) >= 0 and arena.arrays.tokens[place] >= 0:
            places.append(place)
        rows.append((arena.arrays.tokens[places].tolist(), arena.arrays.likely_PM[places]))
    return rows


@pytest.mark.parametrize("seed", range(3))
def test_every_token_is_kept_once_with_what_the_model_said_where_it_came(seed):
    cases = greedy_cases("llama")
    proposer = adaptive_proposer(cases)
    proposer.arena.max_finished_places = 10**6
    settings = {"cache_tokens": 128, "max_running": 16, "prefill_chunk": 9}
    engine = pausing(make_engine(tiny_model("llama"), proposer, 96, **settings), seed)
    rng = random.Random(seed)
    requests = []
    for case in (*cases, *cases):  # the second time a row may follow the first, past its own end
        stop = case.token_ids[rng.randrange(len(case.token_ids))]
        changes = {
            "max_tokens": rng.randint(1, 40),
            "sampling": rng.choice([Sampling(), Sampling(0.7, seed=seed)]),
        }
        stops = {"stop_ids": frozenset([stop])} if rng.random() < 0.5 else {}
        requests.append((case, {**changes, **stops}))
    done = []
    for half in (requests[: len(cases)], requests[len(cases) :]):
        done += engine.generate([case.request(**settings) for case, settings in half])
    assert engine.stats.num_preemptions > 0 and sum(engine.stats.accepted.values()) > 20
    texts = [
        [*case.prompt_ids, *completion.token_ids]
        for (case, _), completion in zip(requests, done, strict=True)
    ]
    found = kept(engine)
    assert sorted(text for text, _ in found) == sorted(texts)
    model = tiny_model("llama", attention="sdpa")
    num_known = 0
    for text, entries in found:
        with torch.inference_mode():
            logits = model(torch.tensor([text])).logits[0].float()
        wanted, ids = logits.log_softmax(-1).topk(8)
        for place in range(1, len(text)):
            if entries[place, 0] != UNKNOWN:
                num_known += 1
                assert (entries[place] >> LOGPROB_BITS).tolist() == ids[place - 1].tolist(), (text, place)
                logprobs = -(entries[place] & (NUM_LEVELS - 1)).astype(float) / 256
                np.testing.assert_allclose(logprobs, wanted[place - 1].clamp(min=-4095 / 256), atol=TOLERANCE)
        assert entries[0, 0] == UNKNOWN
    assert num_known > 0.6 * sum(len(completion.token_ids) for completion in done)
