"""Nothing in the engine depends on a small vocabulary: one that real models have, plain, with drafts, and
sampled.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from drafting.config import MixedConfig
from drafting.mixed_proposer import MixedProposer
from drafting.sampling import Sampling
from drafting.tables import Tables
from engine.request import Request
from tests.engine.harness import Case, ChainProposer, make_engine
from tests.tiny_models import reference_greedy, tiny_model

VOCABULARY = 152_000
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
PROMPTS = [(151_999, 3, 151_998), (100_000,) * 9, (8,), (65_536, 32_768, 131_072, 65_535)]


@cache
def model(attention: str = "ngram_tree"):
    return tiny_model("llama", attention, dtype=torch.float32, **SMALL)


@cache
def cases() -> list[Case]:
    return [
        Case(f"{n}", p, tuple(reference_greedy(model("sdpa"), list(p), 12))) for n, p in enumerate(PROMPTS)
    ]


def bigram_proposer(draft_len: int) -> MixedProposer:
    table = np.random.default_rng(0).integers(0, VOCABULARY, (VOCABULARY, 5), np.int32)
    for case in cases():
        table[list(case.token_ids[:-1]), 0] = case.token_ids[1:]
    config = MixedConfig(num_drafts=2, draft_len=draft_len)
    return MixedProposer(config, 2 * draft_len, Tables(bigram=table))


@pytest.mark.parametrize(
    "make_proposer",
    [lambda: None, lambda: bigram_proposer(4), lambda: ChainProposer(cases(), 5)],
    ids=["off", "mixed", "known"],
)
def test_every_token_equals_generate(make_proposer):
    engine = make_engine(model(), make_proposer(), max_running=4)
    completions = engine.generate([case.request() for case in cases()])
    assert [completion.token_ids for completion in completions] == [case.token_ids for case in cases()]
    assert max(token for case in cases() for token in case.token_ids) > 65_535, (
        "ids beyond 16 bits were meant to occur"
    )


@pytest.mark.slow
def test_sampled_text_depends_on_the_seed_alone():
    sampling = [
        Sampling(1.0, seed=1),
        Sampling(0.8, top_p=0.9, seed=2),
        Sampling(1.0, top_k=1000, seed=3),
        Sampling(1.0, min_p=0.01, seed=4),
    ]
    requests = [
        Request(f"{n}", p, 6, s, ignore_eos=True)
        for n, (p, s) in enumerate(zip(PROMPTS, sampling, strict=True))
    ]
    plain = [make_engine(model(), max_running=1).generate([request])[0].token_ids for request in requests]
    mixed = make_engine(model(), bigram_proposer(2), max_running=4).generate(
        [replace(r, id=r.id + "m") for r in requests]
    )
    assert [completion.token_ids for completion in mixed] == plain
