"""Log-probabilities: those of transformers' own forward pass over the text, whatever is drafted, batched or
preempted.
"""

from collections.abc import Sequence as Many
from typing import Any

import numpy as np
import pytest
import torch

from drafting.sampling import Sampling
from engine.logprobs import likeliest
from engine.request import Completion, Logprobs, Request
from tests.engine.harness import (
    Case,
    ChainProposer,
    RandomTrees,
    greedy_cases,
    make_engine,
    mixed_proposer,
    random_prompts,
)
from tests.tiny_models import tiny_model


def reference(prompt_ids: Many[int], token_ids: Many[int]) -> torch.Tensor:
    """Log-softmax in float32 of the logits that a plain forward gives for each output token's position."""
    with torch.inference_mode():
        logits = tiny_model("llama", attention="sdpa")(torch.tensor([[*prompt_ids, *token_ids]])).logits[0]
    return logits[len(prompt_ids) - 1 : -1].float().log_softmax(-1)


def assert_as_reference(completion: Completion, prompt_ids: Many[int], num_best: int) -> None:
    wanted = reference(prompt_ids, completion.token_ids)
    found = completion.logprobs
    assert found is not None
    chosen = wanted.gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0]
    np.testing.assert_allclose(found.chosen, chosen.numpy(), atol=1e-5)
    best = wanted.topk(num_best)
    assert found.top_ids.tolist() == best.indices.tolist()
    np.testing.assert_allclose(found.top, best.values.numpy(), atol=1e-5)
    assert (found.chosen.dtype, found.top_ids.dtype, found.top.dtype) == (np.float32, np.int32, np.float32)


def proposer(mode: str, cases: Many[Case]) -> Any:
    return {
        "off": lambda: None,
        "mixed": lambda: mixed_proposer(5, 4, cases),
        "chain": lambda: ChainProposer(cases, depth=4),
        "trees": lambda: RandomTrees(cases, depth=5, max_nodes=12, seed=1),
    }[mode]()


@pytest.mark.parametrize("mode", ["off", "mixed", "chain", "trees"])
def test_logprobs_are_those_of_a_plain_forward_for_the_rows_that_ask_and_only_for_them(mode):
    """A cache of 128 tokens for texts of up to 80: sequences are preempted and their tokens run again."""
    cases = greedy_cases("llama")
    engine = make_engine(
        tiny_model("llama"), proposer(mode, cases), 96, cache_tokens=128, max_running=16, prefill_chunk=23
    )
    wanted = [None if n % 3 == 0 else n % 5 for n in range(len(cases))]
    completions = engine.generate(
        [case.request(logprobs=num_best) for case, num_best in zip(cases, wanted, strict=True)]
    )
    assert engine.stats.num_preemptions > 0
    for case, num_best, completion in zip(cases, wanted, completions, strict=True):
        assert completion.token_ids == case.token_ids
        if num_best is None:
            assert completion.logprobs is None
        else:
            assert_as_reference(completion, case.prompt_ids, num_best)


def test_logprobs_of_a_draw_are_of_the_raw_logits_before_temperature_and_filters():
    prompts = random_prompts(6, seed=4)
    engine = make_engine(tiny_model("llama"), mixed_proposer(3, 3), max_running=4)
    sampling = Sampling(temperature=2.5, top_p=0.8, top_k=7, seed=3)
    requests = [Request(f"{n}", p, 20, sampling, ignore_eos=True, logprobs=20) for n, p in enumerate(prompts)]
    for request, completion in zip(requests, engine.generate(requests), strict=True):
        assert_as_reference(completion, request.prompt_ids, 20)


def test_what_lies_past_the_end_of_a_path_has_no_logprobs():
    case = max(greedy_cases("llama"), key=lambda case: len(set(case.token_ids[:6])))
    engine = make_engine(tiny_model("llama"), ChainProposer([case], depth=9))
    (completion,) = engine.generate([case.request(stop_ids=frozenset([case.token_ids[3]]), logprobs=1)])
    assert completion.token_ids == case.token_ids[:4]
    assert_as_reference(completion, case.prompt_ids, 1)


def test_of_equal_logits_the_lowest_id_comes_first():
    """Not in topk's order, which is any; and 0.0 equals -0.0."""
    logits = torch.tensor([[1.0, 3.0, -2.0, 3.0, 3.0, 1.0], [-0.0, 0.0, -1.0, -0.0, -5.0, float("-inf")]])
    assert likeliest(logits, 4).tolist() == [[1, 3, 4, 0], [0, 1, 3, 2]]
    assert likeliest(logits, 9).tolist() == [[1, 3, 4, 0, 5, 2], [0, 1, 3, 2, 4, 5]]
    assert likeliest(logits, 0).shape == (2, 0)


def test_the_likeliest_of_many_ties_are_the_lowest_ids_in_a_vocabulary_as_large_as_real_ones():
    logits = torch.randint(-9, 9, (4, 32_003), generator=torch.Generator().manual_seed(1)).float()
    stable = logits.sort(dim=-1, descending=True, stable=True).indices[:, :20]
    assert torch.equal(likeliest(logits, 20), stable)


def test_parts_join_in_order_and_a_beginning_can_be_taken():
    def part(*values: float) -> Logprobs:
        none = np.zeros((len(values), 0))
        return Logprobs(np.array(values, np.float32), none.astype(np.int32), none.astype(np.float32))

    joined = Logprobs.joined([part(-1, -2), part(-3), part(-4)])
    assert joined.chosen.tolist() == [-1, -2, -3, -4]
    assert (joined.first(2).chosen.tolist(), joined.first(2).top_ids.shape) == ([-1, -2], (2, 0))
