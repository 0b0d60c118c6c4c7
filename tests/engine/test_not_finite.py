"""A row whose activations overflow fails alone: its neighbours get what they get without it."""

from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from drafting.sampling import Sampling
from engine.engine import Engine
from engine.request import Completion, Request
from engine.targets import NOT_FINITE, TargetSampling, target_tokens
from tests.engine.harness import VOCABULARY, adaptive_proposer, make_engine, mixed_proposer, with_price
from tests.tiny_models import reference_greedy, tiny_family, tiny_model

POISON = 13  # the token whose embedding is not finite
ERROR = (
    "the model's logits are not finite at output token {}: use model.dtype bfloat16 or float32; "
    "if it is one of these, the weights are damaged"
)
PROMPTS = [
    (5, 6, 7, 5, 6, 7, 5, 6),
    (9, 8, 9, 8, 9, 8, 9),
    (40,),
    tuple(range(20, 60)),
    (61, 62, 63) * 7,
    (70, 71, 72, 73, 74, 75, 76, 77, 78, 79, 80),
]
POISONED = [(5, 6, 7, POISON, 6), (POISON,), (*range(20, 60), POISON), (POISON, *(61, 62, 63) * 7)]
GREEDY = Sampling()
SAMPLED = Sampling(0.8, top_p=0.9, top_k=40, min_p=0.01, seed=5)
NUM_TOKENS = 24


@cache
def healthy(family: str, attention: str = "ngram_tree") -> Any:
    """A model that never says POISON."""
    model = (tiny_model if family == "llama" else tiny_family)(family, attention)
    with torch.no_grad():
        head = model.get_output_embeddings()
        head.weight = torch.nn.Parameter(head.weight.clone())  # not that of the input embeddings
        head.weight[POISON] = 0
    return model


def poisoned(family: str, token: int, value: float) -> Any:
    """The same model, with an embedding that is not finite."""
    model = deepcopy(healthy(family))
    with torch.no_grad():
        model.get_input_embeddings().weight[token] = value
    return model


def engine_of(model: Any, mode: str, **settings: Any) -> Engine:
    settings = {"max_running": 4, "page_size": 16, "prefill_chunk": 23, "cache_tokens": 192, **settings}
    proposer = {"off": lambda: None, "mixed": lambda: mixed_proposer(5, 4), "adaptive": adaptive_proposer}
    engine = make_engine(model, proposer[mode](), 96, **settings)
    return with_price(engine, 0.0) if mode == "adaptive" else engine


def run(engine: Engine, prompts: list[tuple[int, ...]], sampling: Sampling = GREEDY) -> list[Completion]:
    return engine.generate(
        Request(f"{n}", prompt, NUM_TOKENS, sampling, ignore_eos=True, logprobs=2)
        for n, prompt in enumerate(prompts)
    )


def interleaved() -> list[tuple[int, ...]]:
    """Rows that fail among rows that do not, twice, so that pages are used again."""
    mixed = [prompt for pair in zip(PROMPTS, [*POISONED, *POISONED], strict=False) for prompt in pair]
    return mixed + mixed


@pytest.mark.parametrize("value", [float("nan"), pytest.param(float("inf"), marks=pytest.mark.slow)])
@pytest.mark.parametrize("mode", ["off", "mixed", "adaptive"])
@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_neighbours_of_a_row_that_overflows_get_their_own_tokens(value, mode, sampling):
    prompts = interleaved()
    alone = engine_of(healthy("llama"), "off", max_running=1)
    wanted = {prompt: run(alone, [prompt], sampling)[0] for prompt in PROMPTS}
    engine = engine_of(poisoned("llama", POISON, value), mode)
    for prompt, found in zip(prompts, run(engine, prompts, sampling), strict=True):
        if prompt in PROMPTS:
            assert (found.token_ids, found.error) == (wanted[prompt].token_ids, None)
            assert np.allclose(found.logprobs.chosen, wanted[prompt].logprobs.chosen, rtol=0, atol=1e-5)
        else:
            assert (found.token_ids, found.finish_reason) == ((), "error")
            assert found.error == ERROR.format(1)
            assert found.stats.num_steps == 0, "no step gave it a token"
            assert found.logprobs is None or not len(found.logprobs.chosen)
    assert engine.scheduler.pool.num_free == engine.scheduler.pool.num_pages
    assert engine.stats.call_lengths[0] == 0


@pytest.mark.parametrize("mode", ["off", "mixed", "adaptive"])
@pytest.mark.parametrize("page_size", [4, *(pytest.param(size, marks=pytest.mark.slow) for size in (1, 16))])
def test_a_row_that_overflows_in_its_output_keeps_the_tokens_before_and_harms_nobody(mode, page_size):
    model = healthy("llama", "sdpa")
    texts = [reference_greedy(model, list(prompt), NUM_TOKENS) for prompt in PROMPTS]
    poison = next(token for token in texts[0][5:] if token % 7 != 1)  # the parity check uses these
    engine = engine_of(poisoned("llama", poison, float("nan")), mode, page_size=page_size)
    num_failed = 0
    for _ in range(2):
        for prompt, text, found in zip(PROMPTS, texts, run(engine, PROMPTS), strict=True):
            if poison in prompt:
                assert found.error == ERROR.format(1)
            elif poison in text[:-1]:
                end = text.index(poison) + 1
                assert (list(found.token_ids), found.error) == (text[:end], ERROR.format(end + 1))
                num_failed += 1
            else:
                assert (list(found.token_ids), found.finish_reason) == (text, "length")
    assert 2 <= num_failed < 2 * len(PROMPTS)
    assert (sum(engine.stats.accepted.values()) > 0) == (mode != "off")


def test_a_model_that_overflows_for_any_text_is_refused_when_it_is_loaded():
    with pytest.raises(ValueError, match="gives logits that are not finite in float64; use model.dtype bf"):
        engine_of(poisoned("llama", 1, float("nan")), "off")


@pytest.mark.slow
@pytest.mark.parametrize(
    "family", ["mistral", "mixtral", "qwen3_moe", "gemma2", "gemma3_text", "gpt_oss", "deepseek_v3", "olmoe"]
)
def test_windows_experts_caps_and_sinks_do_not_carry_it_to_neighbours(family):
    wanted = run(engine_of(healthy(family), "off", max_running=1), PROMPTS)
    engine = engine_of(poisoned(family, POISON, float("nan")), "mixed")
    found = run(engine, interleaved())
    by_prompt = dict(zip(interleaved(), found, strict=True))
    assert [by_prompt[prompt].token_ids for prompt in PROMPTS[: len(POISONED)]] == [
        completion.token_ids for completion in wanted[: len(POISONED)]
    ]
    assert {by_prompt[prompt].error for prompt in POISONED} == {ERROR.format(1)}


def test_a_draft_that_overflows_is_refused_like_any_other_wrong_draft():
    """Only the model's own path counts: a row does not fail for a guess that it never takes."""
    engine = engine_of(poisoned("llama", POISON, float("nan")), "mixed")
    engine.speculation.proposer._tables.bigram[:, :] = POISON
    texts = [tuple(reference_greedy(healthy("llama", "sdpa"), list(p), NUM_TOKENS)) for p in PROMPTS]
    for _ in range(2):
        assert [found.token_ids for found in run(engine, PROMPTS)] == texts


NAN = float("nan")
INF = float("inf")
LOGITS = torch.tensor(
    [[1, NAN, 0], [1, INF, 0], [-INF, -INF, -INF], [-INF, 2, -INF], [NAN, NAN, NAN], [3, 1, 2]]
)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.8), Sampling(0.8, top_p=0.5), SAMPLED])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_logits_without_a_finite_maximum_have_no_target(sampling, dtype):
    rows = TargetSampling([sampling] * 6, np.zeros(6, np.int64))
    found = target_tokens(LOGITS.to(dtype), rows).tolist()
    assert found[:5] == [NOT_FINITE, NOT_FINITE, NOT_FINITE, 1, NOT_FINITE]
    assert found[5] in range(3)


def test_logits_that_overflow_float32_count_as_infinite():
    assert target_tokens(torch.tensor([[1e300, 0.0]], dtype=torch.float64), None).tolist() == [NOT_FINITE]


def test_rows_drawn_in_pieces_are_drawn_alike(monkeypatch):
    logits = torch.randn(7, VOCABULARY, generator=torch.Generator().manual_seed(0))
    sampling = [Sampling(0.9, top_p=0.8, seed=n) if n != 3 else Sampling() for n in range(7)]
    rows = TargetSampling(sampling, np.arange(7))
    at_once = target_tokens(logits, rows)
    monkeypatch.setattr("engine.targets.LOGITS_AT_ONCE", 2 * VOCABULARY)
    assert target_tokens(logits, rows).tolist() == at_once.tolist()
