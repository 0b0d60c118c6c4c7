"""Lossless with shared pages: prompts that begin alike get what transformers' generate gives, whatever is
shared, evicted or preempted.
"""

import random
from dataclasses import replace
from functools import cache

import pytest

from drafting.sampling import Sampling
from engine.request import Request
from tests.engine.harness import VOCABULARY, Case, ChainProposer, make_engine, mixed_proposer, run_under_load
from tests.tiny_models import reference_greedy, tiny_model

CONTEXT = 128


@cache
def cases_that_begin_alike(family: str, count: int = 16) -> tuple[Case, ...]:
    """Prompts of 3 to 82 tokens: a part of one of two headers and up to 12 tokens more; some prompts occur
    twice.
    """
    rng = random.Random(5)
    model = tiny_model(family, attention="sdpa")
    headers = [tuple(rng.randrange(3, VOCABULARY) for _ in range(70)) for _ in range(2)]
    prompts = [
        (
            *headers[n % 2][: rng.choice([3, 21, 48, 70, 70])],
            *rng.choices(range(3, VOCABULARY), k=rng.randint(0, 12)),
        )
        for n in range(count)
    ]
    prompts[-3:] = prompts[:3]
    return tuple(
        Case(f"case {n}", p, tuple(reference_greedy(model, list(p), rng.randint(1, 24))))
        for n, p in enumerate(prompts)
    )


def assert_equal_under_load(family: str, speculate: bool, max_running: int, page_size: int) -> None:
    """Twice through one engine: the second time the beginnings, and what was generated, may be
    there already.
    """
    cases = cases_that_begin_alike(family)
    proposer = mixed_proposer(5, 4, cases) if speculate else None
    settings = {"cache_tokens": 160, "max_running": max_running, "page_size": page_size, "prefill_chunk": 23}
    engine = make_engine(tiny_model(family), proposer, CONTEXT, **settings)
    for seed in (0, 1):
        run_under_load(engine, cases, seed)
    # A cache of 160 tokens holds two of the longest sequences, and far from all that was computed.
    assert engine.stats.num_preemptions > 0 or max_running < 16
    assert 0 < engine.stats.num_cached_tokens < engine.stats.num_prompt_tokens


def test_prompts_that_begin_alike_equal_generate_under_random_load():
    assert_equal_under_load("llama", speculate=True, max_running=16, page_size=4)


@pytest.mark.slow
@pytest.mark.parametrize("page_size", [1, 4, 16, 64])
@pytest.mark.parametrize("max_running", [1, 3, 16])
@pytest.mark.parametrize("speculate", [False, True])
@pytest.mark.parametrize("family", ["llama", "mistral-window", "gpt2"])
def test_the_whole_matrix_of_shared_beginnings_equals_generate(family, speculate, max_running, page_size):
    assert_equal_under_load(family, speculate, max_running, page_size)


@pytest.mark.parametrize(("prefix_cache", "prefilled"), [(True, 60 + 7 * 12), (False, 8 * 60)])
def test_the_samples_of_one_prompt_run_its_last_page_only_and_equal_those_of_an_engine_that_shares_nothing(
    prefix_cache, prefilled
):
    prompt = tuple(random.Random(1).choices(range(3, VOCABULARY), k=60))
    samples = [
        Request(f"{n}", prompt, 9, Sampling(1.0, seed=n), ignore_eos=True, group="row 1") for n in range(8)
    ]
    alone = make_engine(tiny_model("llama"), max_running=1, prefix_cache=False)
    expected = [completion.token_ids for completion in alone.generate(samples)]
    assert len(set(expected)) == 8
    engine = make_engine(tiny_model("llama"), max_running=8, page_size=16, prefix_cache=prefix_cache)
    completions = engine.generate(samples)
    assert [completion.token_ids for completion in completions] == expected
    assert engine.stats.num_packed_tokens == prefilled + 8 * 8
    assert (engine.stats.num_prompt_tokens, engine.stats.num_cached_tokens) == (480, 480 - prefilled)
    assert [completion.stats.num_cached_tokens for completion in completions] == [0] + [
        48 if prefix_cache else 0
    ] * 7


def test_a_next_turn_finds_what_was_generated_before_also_when_it_was_drafted():
    case = max(cases_that_begin_alike("llama"), key=lambda case: len(case.token_ids))
    model = tiny_model("llama", attention="sdpa")
    turn = (*case.prompt_ids, *case.token_ids, 7, 8, 9)
    expected = tuple(reference_greedy(model, list(turn), 10))
    engine = make_engine(
        tiny_model("llama"), ChainProposer([case, Case("turn", turn, expected)], depth=4), page_size=4
    )
    engine.generate([case.request()])
    (completion,) = engine.generate([Request("turn", turn, 10, ignore_eos=True)])
    assert completion.token_ids == expected
    assert completion.stats.num_cached_tokens > len(case.prompt_ids) + len(case.token_ids) - 10


def test_an_abort_in_the_middle_of_a_prefill_leaves_its_pages_to_those_who_waited_for_it():
    cases = [case for case in cases_that_begin_alike("llama") if len(case.prompt_ids) >= 70][::2]
    engine = make_engine(tiny_model("llama"), prefill_chunk=23, max_running=4)
    engine.add(replace(cases[0], name="aborted").request())
    for case in cases:
        engine.add(case.request())
    engine.step()
    engine.step()
    assert engine.abort("aborted")
    found: dict[str, list[int]] = {case.name: [] for case in cases}
    while engine.has_work:
        for event in engine.step():
            found[event.request_id] += event.token_ids
    assert {name: tuple(token_ids) for name, token_ids in found.items()} == {
        case.name: case.token_ids for case in cases
    }
    assert engine.stats.num_cached_tokens > 0
