"""A bad request, or a caller's code that raises, fails alone; nobody waits for an engine that has ended."""

import asyncio
import re
from dataclasses import replace

import pytest

from drafting.sampling import Sampling
from engine.loop import EngineDead
from engine.request import RequestFailed
from tests.engine.harness import greedy_cases
from tests.engine.loop_helpers import LONG, free_pages, hold_steps, lose_device, until


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": ["a", "list"]}, r"the request's id is \['a', 'list'\]; it must be a text"),
        ({"prompt_ids": (5, "6")}, "the prompt holds '6' in place of a token id; ids are integers"),
        ({"prompt_ids": (5, 6.5)}, r"the prompt holds 6.5 in place of a token id; ids are integers"),
        ({"prompt_ids": (5, None)}, "the prompt holds null in place of a token id; ids are integers"),
        ({"prompt_ids": (5, 2**70)}, f"the prompt holds {2**70} in place of a token id"),
        (
            {"prompt_ids": ((5,), (6, 7))},
            r"prompt_ids is \(\(5,\), \(6, 7\)\); it must be a tuple of token ids",
        ),
        ({"prompt_ids": None}, "prompt_ids is null; it must be a tuple of token ids"),
        ({"prediction_ids": (5, "6")}, "the prediction holds '6' in place of a token id; ids are integers"),
        (
            {"prediction_ids": (5, 10**6)},
            "the prediction holds token id 1000000; ids of this model go from 0",
        ),
        ({"prediction_ids": None}, "prediction_ids is null; it must be a tuple of token ids"),
        ({"max_tokens": "9"}, "max_tokens is '9'; it must be an integer of at least 1"),
        ({"max_tokens": 2.5}, "max_tokens is 2.5; it must be an integer of at least 1"),
        ({"sampling": None}, "sampling is null; it must be a Sampling"),
        (
            {"sampling": Sampling(temperature="hot")},
            "temperature is 'hot'; it must be a number of at least 0",
        ),
        (
            {"sampling": Sampling(temperature=float("nan"))},
            "temperature is nan; it must be a number of at least",
        ),
        ({"sampling": Sampling(1.0, seed="7")}, "seed is '7'; it must be an integer"),
        ({"sampling": Sampling(1.0, top_p=0.0)}, "top_p is 0.0; it must be a number above 0 and at most 1"),
        ({"stop_ids": None}, "stop_ids is null; it must be a set of token ids"),
        ({"logprobs": -1}, "logprobs is -1; it must be an integer of 0"),
        ({"group": 7}, "group is 7; it must be a text"),
        ({"make_stop_check": 7}, "make_stop_check is 7; it must be a function"),
        ({"make_stop_check": lambda: 1 / 0}, "no stop check could be made: ZeroDivisionError"),
    ],
)
async def test_a_request_with_a_value_of_a_wrong_kind_fails_alone(loop, change, message):
    case = greedy_cases("llama")[4]
    good, bad = await asyncio.wait_for(
        asyncio.gather(
            loop.complete(case.request()), loop.complete(replace(LONG, **change)), return_exceptions=True
        ),
        10,
    )
    assert good.token_ids == case.token_ids
    assert isinstance(bad, ValueError)
    assert re.search(message, str(bad)), str(bad)
    assert loop.alive


async def test_a_stop_check_that_raises_fails_its_request_alone(loop):
    case = greedy_cases("llama")[4]
    seen = []

    def check(token: int) -> bool:
        seen.append(token)
        if len(seen) == 3:
            raise KeyError("no such token")
        return False

    good, bad = await asyncio.wait_for(
        asyncio.gather(
            loop.complete(case.request()),
            loop.complete(replace(LONG, make_stop_check=lambda: check)),
            return_exceptions=True,
        ),
        10,
    )
    assert good.token_ids == case.token_ids
    assert isinstance(bad, RequestFailed)
    assert str(bad) == "the stop check raised KeyError at output token 3: 'no such token'"
    await until(lambda: not loop.engine.has_work)
    assert free_pages(loop) == loop.engine.scheduler.pool.num_pages


async def test_a_stream_gives_the_tokens_before_the_one_that_failed_and_then_the_error(loop):
    fails_at = [5]

    def check(token: int) -> bool:
        fails_at[0] -= 1
        return fails_at[0] == 0 and 1 / 0 > 0

    tokens: list[int] = []
    with pytest.raises(RequestFailed, match="ZeroDivisionError at output token 5"):
        async for event in loop.stream(replace(LONG, make_stop_check=lambda: check)):
            tokens += event.token_ids
    undisturbed = await loop.complete(LONG)
    assert len(tokens) < 5
    assert tuple(tokens) == undisturbed.token_ids[: len(tokens)]


async def test_an_abort_that_fails_during_a_fault_leaves_nobody_waiting(loop, monkeypatch):
    entered, go_on = hold_steps(loop, monkeypatch, lose_device)
    monkeypatch.setattr(loop.engine, "abort", lose_device)
    first, second = (asyncio.create_task(loop.complete(replace(LONG, id=name))) for name in ("1", "2"))
    await asyncio.to_thread(entered.wait)
    first.cancel()
    await asyncio.sleep(0.01)
    go_on.set()
    with pytest.raises(EngineDead, match="the device is gone"):
        await asyncio.wait_for(second, 10)


async def test_cancelling_a_request_whose_id_cannot_be_looked_up_harms_nobody(loop, monkeypatch):
    """Its abort comes behind its refusal, which the caller did not wait for."""
    entered, go_on = hold_steps(loop, monkeypatch, loop.engine.step)
    case = greedy_cases("llama")[5]
    first = asyncio.create_task(loop.complete(case.request()))
    await asyncio.to_thread(entered.wait)
    bad = asyncio.create_task(loop.complete(replace(LONG, id=["a", "list"])))
    await asyncio.sleep(0.01)
    bad.cancel()
    await asyncio.sleep(0.01)
    go_on.set()
    assert (await asyncio.wait_for(first, 10)).token_ids == case.token_ids


async def test_a_fault_while_a_request_is_taken_in_is_its_callers_error(loop, monkeypatch):
    def fail(request):
        raise TypeError("nobody expected this")

    monkeypatch.setattr(loop.engine, "add", fail)
    with pytest.raises(ValueError, match="cannot be taken in: TypeError: nobody expected this"):
        await asyncio.wait_for(loop.complete(LONG), 10)
    assert loop.alive
