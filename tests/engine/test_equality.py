"""Lossless: every token equals what transformers' generate gives for the prompt alone, whatever is drafted,
batched, preempted or aborted.

Tiny random models in float64 (design: equality tests, i). The whole matrix is slow; one combination of most
families runs always.
"""

import math
from dataclasses import replace

import pytest

from drafting.sampling import Sampling
from engine.engine import Engine
from engine.request import Request
from tests.engine.harness import (
    Case,
    ChainProposer,
    RandomTrees,
    adaptive_proposer,
    greedy_cases,
    make_engine,
    mixed_proposer,
    random_prompts,
    run_under_load,
    with_price,
)
from tests.tiny_models import FAMILIES, reference_greedy, tiny_model

MODES = {"off": None, "mixed-1-4": (1, 4), "mixed-5-4": (5, 4), "mixed-10-10": (10, 10), "adaptive": None}
# The longest case has 80 tokens; a cache of 128 cannot hold three of them, so sequences are preempted.
CONTEXT = 96
CACHE = 128


def engine_under_test(family: str, mode: str, max_running: int, page_size: int) -> Engine:
    grid = MODES[mode]
    cases = greedy_cases(family)
    proposer = (
        mixed_proposer(*grid, cases) if grid else adaptive_proposer(cases) if mode == "adaptive" else None
    )
    settings = {
        "cache_tokens": CACHE,
        "max_running": max_running,
        "page_size": page_size,
        "prefill_chunk": 23,
    }
    engine = make_engine(tiny_model(family), proposer, CONTEXT, **settings)
    # What a step costs is measured, and on a tiny model no draft may be worth it.
    return with_price(engine, 0.0) if mode == "adaptive" else engine


def assert_equal_under_load(family: str, mode: str, max_running: int, page_size: int) -> None:
    engine = engine_under_test(family, mode, max_running, page_size)
    run_under_load(engine, greedy_cases(family), seed=max_running)
    assert engine.stats.num_preemptions > 0 or max_running < 16, "the cache was meant to be too small"
    assert (sum(engine.stats.accepted.values()) > 0) == (mode != "off")


@pytest.mark.parametrize(
    ("family", "mode", "max_running", "page_size"),
    [
        ("llama", "off", 16, 4), ("llama", "mixed-10-10", 16, 4), ("mistral-window", "mixed-5-4", 16, 4),
        ("qwen2", "mixed-1-4", 16, 1), ("gpt2", "mixed-5-4", 16, 16),
    ],
)  # fmt: skip
def test_every_token_equals_generate_under_random_load(family, mode, max_running, page_size):
    assert_equal_under_load(family, mode, max_running, page_size)


@pytest.mark.slow
@pytest.mark.parametrize("page_size", [1, 4, 16])
@pytest.mark.parametrize("max_running", [1, 3, 16])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_whole_matrix_equals_generate_under_random_load(family, mode, max_running, page_size):
    assert_equal_under_load(family, mode, max_running, page_size)


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("llama", {"num_key_value_heads": 1}), ("llama", {"num_key_value_heads": 4}),
        ("llama", {"head_dim": 24, "attention_bias": True}),
        ("llama", {"tie_word_embeddings": True}), ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
        ("gpt2", {"scale_attn_weights": False}),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0}}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1}),
        ("mistral", {"sliding_window": 2}),
    ],
)  # fmt: skip
def test_members_of_a_family_with_other_settings_equal_generate(family, settings):
    """Head counts and sizes, scaling, rotary angles, windows in some layers only, or of two tokens.

    Not of one: there generate with its cache differs from the same model without, which the engine equals.
    """
    reference = tiny_model(family, attention="sdpa", **settings)
    prompts = random_prompts(4, seed=2)
    cases = [
        Case(f"{n}", prompt, tuple(reference_greedy(reference, list(prompt), 16)))
        for n, prompt in enumerate(prompts)
    ]
    engine = make_engine(
        tiny_model(family, **settings),
        RandomTrees(cases, depth=5, max_nodes=12, seed=0),
        max_running=3,
        prefill_chunk=9,
    )
    completions = engine.generate([case.request() for case in cases])
    assert [completion.token_ids for completion in completions] == [case.token_ids for case in cases]
    assert engine.stats.num_calls < engine.stats.num_tokens


@pytest.mark.parametrize("depth", [1, 4, 9])
def test_a_proposer_that_is_always_right_needs_one_call_for_depth_plus_one_tokens(depth):
    cases = greedy_cases("llama")
    engine = make_engine(tiny_model("llama"), ChainProposer(cases, depth), max_running=5)
    for case, completion in zip(cases, engine.generate([case.request() for case in cases]), strict=True):
        assert completion.token_ids == case.token_ids
        calls = math.ceil(len(case.token_ids) / (depth + 1))
        stats = completion.stats
        assert stats.num_steps == calls
        assert stats.num_accepted == stats.num_verified == len(case.token_ids) - calls
    assert engine.stats.num_tokens == sum(len(case.token_ids) for case in cases)
    # A prompt's rows, then one row per call and the drafts: an accepted token never runs twice.
    in_prompts = sum(len(case.prompt_ids) for case in cases)
    assert engine.stats.num_packed_tokens == in_prompts + (engine.stats.num_calls - len(cases)) + sum(
        engine.stats.verified.values()
    )
    assert (
        engine.stats.accepted
        == engine.stats.verified
        == {"known": engine.stats.num_tokens - engine.stats.num_calls}
    )


def test_a_proposer_that_is_always_wrong_costs_rows_but_changes_nothing():
    cases = greedy_cases("llama")
    engine = make_engine(tiny_model("llama"), ChainProposer(cases, depth=4, shift=1), max_running=5)
    for case, completion in zip(cases, engine.generate([case.request() for case in cases]), strict=True):
        assert completion.token_ids == case.token_ids
        assert completion.stats.num_steps == len(case.token_ids)
        assert completion.stats.num_accepted == 0
        assert completion.stats.num_verified == sum(min(4, left) for left in range(len(case.token_ids)))


@pytest.mark.parametrize("family", ["llama", "mistral-window"])
@pytest.mark.parametrize("seed", range(3))
def test_trees_of_any_shape_change_nothing(family, seed):
    cases = greedy_cases(family)
    proposer = RandomTrees(cases, depth=7, max_nodes=20, seed=seed)
    engine = make_engine(
        tiny_model(family), proposer, CONTEXT, cache_tokens=CACHE, max_running=8, prefill_chunk=9
    )
    run_under_load(engine, cases, seed)
    assert set(engine.stats.accepted) == {"one", "two"}


def test_a_chain_deeper_than_any_output_is_cut_to_what_may_still_come():
    cases = greedy_cases("llama")
    engine = make_engine(tiny_model("llama"), ChainProposer(cases, depth=60), max_running=5)
    for case, completion in zip(cases, engine.generate([case.request() for case in cases]), strict=True):
        assert (completion.token_ids, completion.stats.num_steps) == (case.token_ids, 1)
        assert completion.stats.num_verified == len(case.token_ids) - 1


def test_a_proposer_that_breaks_the_depth_limit_is_found_in_debug_mode():
    class TooDeep(ChainProposer):
        def tree(self, state, depth):
            return super().tree(state, depth + 1)

    cases = greedy_cases("llama")
    engine = make_engine(tiny_model("llama"), TooDeep(cases, depth=60))
    with pytest.raises(AssertionError, match="deeper"):
        engine.generate([cases[1].request()])


def test_the_source_of_each_token_is_named_and_the_models_own_are_none():
    case = greedy_cases("llama")[1]
    engine = make_engine(tiny_model("llama"), ChainProposer([case], depth=2))
    engine.add(case.request(max_tokens=5))
    assert [event.sources for event in (*engine.step(), *engine.step())] == [
        ("known", "known", None),
        ("known", None),
    ]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_an_eos_inside_an_accepted_path_ends_the_text_where_generate_ends_it(family):
    cases = [case for case in greedy_cases(family) if len(case.token_ids) >= 8]
    eos_ids = sorted({case.token_ids[n % 6] for n, case in enumerate(cases)})
    reference = tiny_model(family, attention="sdpa")
    expected = [
        reference_greedy(reference, list(case.prompt_ids), len(case.token_ids), eos_ids) for case in cases
    ]
    # The drafts are the texts without eos: they go past it.
    engine = make_engine(
        tiny_model(family, eos_token_id=eos_ids), ChainProposer(cases, depth=7), max_running=4
    )
    completions = engine.generate([case.request(ignore_eos=False) for case in cases])
    assert [list(completion.token_ids) for completion in completions] == expected
    assert {completion.finish_reason for completion in completions} == {"stop"}
    assert {completion.stats.num_steps for completion in completions} == {1}, (
        "the eos was meant to lie inside an accepted path"
    )
    for completion in completions:
        assert completion.stats.num_accepted == min(
            7, len(completion.token_ids)
        )  # a draft past the end is not counted


def test_a_stop_id_of_one_request_ends_that_request_alone():
    cases = [case for case in greedy_cases("llama") if len(case.token_ids) >= 10]
    reference = tiny_model("llama", attention="sdpa")
    stops = [[case.token_ids[n % 8]] for n, case in enumerate(cases)]
    expected = [
        reference_greedy(reference, list(c.prompt_ids), len(c.token_ids), s)
        for c, s in zip(cases, stops, strict=True)
    ]
    engine = make_engine(tiny_model("llama"), mixed_proposer(5, 4, cases), max_running=16)
    completions = engine.generate(
        [c.request(stop_ids=frozenset(s)) for c, s in zip(cases, stops, strict=True)]
    )
    assert [list(completion.token_ids) for completion in completions] == expected


def test_ignore_eos_goes_on_past_the_models_eos_but_not_past_a_stop_id():
    case = next(case for case in greedy_cases("llama") if len(set(case.token_ids[:8])) == 8)
    engine = make_engine(tiny_model("llama", eos_token_id=case.token_ids[2]), ChainProposer([case], depth=7))
    on, stopped, ended = engine.generate(
        [
            replace(case.request(), id="on"),
            replace(case.request(stop_ids=frozenset([case.token_ids[5]])), id="stopped"),
            replace(case.request(ignore_eos=False), id="ended"),
        ]
    )
    assert (on.token_ids, on.finish_reason) == (case.token_ids, "length")
    assert (stopped.token_ids, stopped.finish_reason) == (case.token_ids[:6], "stop")
    assert (ended.token_ids, ended.finish_reason) == (case.token_ids[:3], "stop")


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_context_ends_a_text_inside_an_accepted_path(family):
    """GPT-2 has no position beyond its context: one node too deep would be an index error."""
    cases = [case for case in greedy_cases(family) if len(case.token_ids) > 20][:2]
    for case in cases:
        context = len(case.prompt_ids) + 17
        model = tiny_model(family, max_position_embeddings=context)
        if family == "gpt2":  # fewer positions, but the same weights for those there are
            weights = tiny_model(family).state_dict()
            model.load_state_dict(
                {**weights, "transformer.wpe.weight": weights["transformer.wpe.weight"][:context]}
            )
        for proposer in (None, ChainProposer([case], depth=5), mixed_proposer(5, 4, cases)):
            engine = make_engine(model, proposer)
            assert engine.max_context == context
            (completion,) = engine.generate([case.request(max_tokens=100)])
            assert (completion.token_ids, completion.finish_reason) == (case.token_ids[:17], "length")


SAMPLED = [
    Sampling(0.8), Sampling(0.8, top_p=0.9), Sampling(1.2, top_k=7), Sampling(0.8, min_p=0.05),
    Sampling(1.0, 0.95, 20, 0.01), Sampling(),
]  # fmt: skip


def sampled_requests(count: int = 12) -> list[Request]:
    prompts = random_prompts(count, seed=4)
    return [
        Request(f"{n}", p, 30, replace(SAMPLED[n % 6], seed=1000 + n), ignore_eos=True)
        for n, p in enumerate(prompts)
    ]


@pytest.fixture(scope="module")
def sampled_cases() -> list[Case]:
    """Each request's text when it is decoded alone and without drafts."""
    requests = sampled_requests()
    engine = make_engine(tiny_model("llama"), max_running=1, page_size=16)
    return [
        Case(r.id, r.prompt_ids, c.token_ids)
        for r, c in zip(requests, engine.generate(requests), strict=True)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("max_running", [1, 3, 16])
@pytest.mark.parametrize("mode", MODES)
def test_a_sampled_text_depends_on_its_seed_alone(sampled_cases, mode, max_running):
    sampling = {request.id: request.sampling for request in sampled_requests()}
    run_under_load(
        engine_under_test("llama", mode, max_running, page_size=4),
        sampled_cases,
        seed=max_running,
        sampling=sampling,
    )


def test_a_sampled_text_is_the_same_in_a_batch_with_drafts_that_are_accepted(sampled_cases):
    sampling = {request.id: request.sampling for request in sampled_requests()}
    engine = make_engine(tiny_model("llama"), ChainProposer(sampled_cases, depth=4), max_running=6)
    completions = engine.generate(
        [case.request(sampling=sampling[case.name]) for case in reversed(sampled_cases)]
    )[::-1]
    assert [completion.token_ids for completion in completions] == [case.token_ids for case in sampled_cases]
    assert {completion.stats.num_steps for completion in completions} == {6}


def test_another_seed_gives_another_text_and_the_same_seed_the_same():
    engine = make_engine(tiny_model("llama"))
    make = lambda name, seed: Request(name, (5, 6, 7), 20, Sampling(1.0, seed=seed), ignore_eos=True)  # noqa: E731
    one, two, other = engine.generate([make("one", 1), make("two", 1), make("other", 2)])
    assert one.token_ids == two.token_ids != other.token_ids
