"""A row's samples: their requests, what the row gets, and its texts, tokens and log-probabilities cut
together.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from drafting.sampling import Sampling
from engine.config import GenerationConfig
from engine.loop import EngineLoop
from engine.request import Completion, Logprobs, Request, SequenceStats
from rows.output_columns import Generated, OutputColumns
from rows.prompts import Prompt, row_seed
from rows.samples import RowGenerator, sample_requests
from tests.actors.fakes import ReversingLoop
from tests.engine.harness import Case, ChainProposer, make_engine
from tests.serving.fakes import ByteCodec
from tests.tiny_models import tiny_model

CODEC = ByteCodec()
BYTES = {"vocab_size": 257, "eos_token_id": 256}


def row(
    loop: Any,
    prompt: str = "row",
    columns: OutputColumns | None = None,
    own: dict[str, Any] | None = None,
    row_id: str = "7",
    **settings: Any,
) -> Any:
    generation = GenerationConfig(**{"max_tokens": 60, "ignore_eos": True, **settings})
    columns = columns or OutputColumns.of(generation, "", True, False, False)
    rows = RowGenerator(loop, generation, columns, CODEC)
    return rows.generate(row_id, Prompt(list(prompt.encode()), own or {}), 42)


@pytest.fixture(scope="module")
def plain() -> Iterator[EngineLoop]:
    loop = EngineLoop(make_engine(tiny_model("llama", **BYTES), max_running=4))
    yield loop
    loop.close()


def drafting(*texts: tuple[int, ...], prompt: str = "row") -> EngineLoop:
    """A loop whose drafts are these texts, nine tokens at a time: whatever ends them, drafts go past it."""
    cases = [Case(f"{n}", tuple(prompt.encode()), text) for n, text in enumerate(texts)]
    return EngineLoop(make_engine(tiny_model("llama", **BYTES), ChainProposer(cases, depth=9), max_running=4))


def test_the_first_sample_is_the_row_itself_and_the_others_have_seeds_made_of_its_seed() -> None:
    request = Request("7", (1, 2), 9, Sampling(0.5, seed=42))
    samples = sample_requests(request, 3)
    assert [sample.id for sample in samples] == ["7", "7/1", "7/2"]
    assert [sample.sampling.seed for sample in samples] == [
        42,
        row_seed(42, "sample", 1),
        row_seed(42, "sample", 2),
    ]
    assert {(sample.group, sample.prompt_ids, sample.sampling.temperature) for sample in samples} == {
        ("7", (1, 2), 0.5)
    }
    assert sample_requests(request, 1) == [request]
    assert {sample.group for sample in sample_requests(replace(request, group="law"), 3)} == {"law"}, (
        "siblings are in it anyway"
    )


async def test_the_prompt_of_several_samples_runs_once_but_for_its_last_page(plain: EngineLoop) -> None:
    found = await row(plain, "twenty bytes of text", n=4, temperature=1.0, max_tokens=5)
    assert plain.engine.runner.page_size == 4
    assert [completion.stats.num_cached_tokens for completion in found.completions] == [0, 16, 16, 16]


def test_all_samples_of_a_row_share_its_prediction() -> None:
    request = Request("7", (1, 2), 9, Sampling(0.5, seed=42), prediction_ids=(3, 4))
    assert [sample.prediction_ids for sample in sample_requests(request, 3)] == [(3, 4)] * 3


def test_seeds_of_samples_are_fixed_for_ever() -> None:
    assert row_seed(42, "sample", 1) == 10696112392951883201


async def test_greedy_samples_are_decoded_once() -> None:
    loop = ReversingLoop()
    found = await row(loop, n=3)
    assert len(loop.seen) == 1
    table = OutputColumns(samples=True).table([found], CODEC.decode).to_pylist()[0]
    assert [sample["text"] for sample in table["samples"]] == ["wor"] * 3
    assert (table["num_generated_tokens"], table["num_steps"]) == (3, 2)


async def test_samples_differ_and_the_first_is_what_the_row_gives_alone(plain: EngineLoop) -> None:
    settings = {"temperature": 1.0, "max_tokens": 12}
    three = await row(plain, n=3, **settings)
    one = await row(plain, own={"seed": 42}, **settings)
    texts = [completion.token_ids for completion in three.completions]
    assert texts[0] == one.completions[0].token_ids
    assert len(set(texts)) == 3


@pytest.mark.parametrize("temperature", [0.0, 0.8])
async def test_a_row_whose_numbers_overflow_is_an_error_and_the_next_row_is_not(temperature: float) -> None:
    model = tiny_model("llama", **BYTES)
    with torch.no_grad():
        model.get_input_embeddings().weight[ord("!")] = float("nan")
        model.get_output_embeddings().weight[ord("!")] = 0  # it is never said
    loop = EngineLoop(make_engine(model, max_running=4))
    bad, good = await asyncio.gather(
        row(loop, "a!", temperature=temperature, max_tokens=3),
        row(loop, "ab", row_id="8", temperature=temperature, max_tokens=3),
    )
    loop.close()
    assert bad.startswith("the model's logits are not finite at output token 1: use model.dtype bfloat16")
    assert [len(completion.token_ids) for completion in good.completions] == [3]


@pytest.mark.parametrize(
    ("settings", "own", "error"),
    [
        (
            {},
            {"n": 2},
            "n is 2, but the output has no column 'samples'; set output.samples: true for the job "
            "(samples_column=True for Generate), or leave n out of the row",
        ),
        (
            {"n": 2},
            {"logprobs": 0},
            "logprobs is 0, but the output has no column 'logprobs'; set output.logprobs: true for the job "
            "(logprobs_column=True for Generate), or leave logprobs out of the row",
        ),
    ],
)
async def test_a_row_that_asks_for_more_than_the_output_has_room_for_is_told(
    settings: Any, own: Any, error: str
) -> None:
    loop = ReversingLoop()
    assert await row(loop, own=own, **settings) == error
    assert loop.seen == []


async def test_a_tokenizer_that_cannot_tell_text_token_by_token_is_told_with_what_to_use() -> None:
    class Slow:
        tokenizer = object()
        can_stream = False

    generation = GenerationConfig(stop=["x"])
    rows = RowGenerator(ReversingLoop(), generation, OutputColumns(), Slow())  # type: ignore[arg-type]
    found = await rows.generate("7", Prompt([1]), 0)
    assert (
        found == "stop needs a tokenizer that comes as a tokenizer.json, and this model's is a object; use "
        "stop_token_ids"
    )


def first_end(token_ids: tuple[int, ...], stop: str) -> int:
    """By brute force: how many tokens it takes until their decoding holds the stop string."""
    return next(
        n for n in range(1, len(token_ids) + 1) if stop in CODEC.decode(token_ids[:n]).rstrip("\ufffd")
    )


async def test_text_tokens_and_logprobs_end_together_where_brute_force_ends_them_with_drafts_and_without(
    plain: EngineLoop,
) -> None:
    """The random model's bytes hold characters of one byte and of two, and wrong bytes; each of some stops
    lies in a path of drafts.
    """
    whole = (await row(plain)).completions[0].token_ids
    text = CODEC.decode(whole)
    columns = OutputColumns(generated_ids=True, logprobs=True)
    loop = drafting(whole)
    for start in range(3, 40, 4):
        stop = text[start : start + 2]
        end = first_end(whole, stop)
        for engine in (plain, loop):
            for include in (False, True):
                found = await row(
                    engine, stop=["never", stop], include_stop=include, logprobs=1, columns=columns
                )
                (table,) = columns.table([found], CODEC.decode).to_pylist()
                assert table["generated_ids"] == list(whole[:end])
                assert [token["token_id"] for token in table["logprobs"]] == list(whole[:end])
                assert table["finish_reason"] == "stop"
                assert table["generated_text"] == text[: text.index(stop) + (len(stop) if include else 0)]
    loop.close()


def part(chosen: list[float], top_ids: list[list[int]], top: list[list[float]]) -> Logprobs:
    return Logprobs(np.array(chosen, np.float32), np.array(top_ids, np.int32), np.array(top, np.float32))


TWO_TOKENS = Completion(
    "0",
    (104, 105),
    "stop",
    SequenceStats(3, 2, 1),
    part([-1, -2], [[104, 9], [7, 8]], [[-1, -2], [-0.5, -3]]),
)
ONE_TOKEN = Completion(
    "0/1",
    (106,),
    "length",
    SequenceStats(3, 1, 1, {"context": 4}, {"context": 1}),
    part([-4], [[5]], [[-0.25]]),
)
NO_LOGPROBS = Completion("1", (107,), "stop", SequenceStats(1, 1, 1))
FIRST_LOGPROBS = [
    {
        "token_id": 104,
        "logprob": -1.0,
        "top": [{"token_id": 104, "logprob": -1.0}, {"token_id": 9, "logprob": -2.0}],
    },
    {
        "token_id": 105,
        "logprob": -2.0,
        "top": [{"token_id": 7, "logprob": -0.5}, {"token_id": 8, "logprob": -3.0}],
    },
]
SECOND_LOGPROBS = [{"token_id": 106, "logprob": -4.0, "top": [{"token_id": 5, "logprob": -0.25}]}]
SAMPLES = [
    {"text": "hi", "finish_reason": "stop", "num_generated_tokens": 2, "logprobs": FIRST_LOGPROBS},
    {"text": "j", "finish_reason": "length", "num_generated_tokens": 1, "logprobs": SECOND_LOGPROBS},
]


def test_columns_of_rows_with_samples_logprobs_and_errors() -> None:
    columns = OutputColumns("o_", samples=True, logprobs=True)
    rows_given: list[Generated | str] = [
        Generated([TWO_TOKENS, ONE_TOKEN], 2),
        "broken",
        Generated([NO_LOGPROBS], 2),
    ]
    table = columns.table(rows_given, CODEC.decode)
    assert table.schema == columns.schema
    rows = table.to_pylist()
    assert (rows[0]["o_samples"], rows[0]["o_logprobs"], rows[0]["o_generated_text"]) == (
        SAMPLES,
        FIRST_LOGPROBS,
        "hi",
    )
    sums = [
        rows[0][f"o_num_{name}"]
        for name in ("prompt_tokens", "generated_tokens", "steps", "verified", "accepted")
    ]
    assert sums == [3, 3, 2, 4, 1]
    assert (rows[1]["o_samples"], rows[1]["o_logprobs"], rows[1]["o_error"]) == (None, None, "broken")
    alone = {"text": "k", "finish_reason": "stop", "num_generated_tokens": 1, "logprobs": None}
    assert (rows[2]["o_samples"], rows[2]["o_logprobs"]) == ([alone, alone], None)
    assert columns.table(["a", "b"], CODEC.decode).schema == columns.schema
