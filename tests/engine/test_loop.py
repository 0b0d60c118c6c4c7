"""The engine in its thread: many callers, cancellation, bad requests, faults and the end."""

import asyncio
import threading
from contextlib import aclosing
from dataclasses import replace

import pytest

from engine.loop import EngineDead, EngineLoop
from tests.engine.harness import greedy_cases, make_engine
from tests.engine.loop_helpers import LONG, free_pages, hold_steps, lose_device, until
from tests.tiny_models import tiny_model


async def test_many_callers_each_get_their_own_tokens(loop):
    cases = greedy_cases("llama")
    completions = await asyncio.gather(*(loop.complete(case.request()) for case in cases))
    assert [(c.request_id, c.token_ids) for c in completions] == [
        (case.name, case.token_ids) for case in cases
    ]
    assert {c.finish_reason for c in completions} == {"length"}
    assert loop.stats().num_tokens == sum(len(case.token_ids) for case in cases)


async def test_callers_in_several_event_loops_share_one_engine(loop):
    cases = greedy_cases("llama")[:6]
    found = {}

    def call(case):
        found[case.name] = asyncio.run(loop.complete(case.request())).token_ids

    threads = [threading.Thread(target=call, args=[case]) for case in cases]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert found == {case.name: case.token_ids for case in cases}


async def test_a_stream_brings_the_same_tokens_piece_by_piece_and_the_counts_at_its_end(loop):
    case = max(greedy_cases("llama"), key=lambda case: len(case.token_ids))
    events = [event async for event in loop.stream(case.request())]
    assert tuple(token for event in events for token in event.token_ids) == case.token_ids
    assert len(events) == events[-1].stats.num_steps > 1
    assert [event.finish_reason for event in events] == [None] * (len(events) - 1) + ["length"]


async def test_cancelling_a_caller_frees_its_pages_and_leaves_the_others_alone(loop):
    case = greedy_cases("llama")[3]
    task = asyncio.create_task(loop.complete(LONG))
    await until(lambda: loop.stats().num_tokens > 3)
    other = asyncio.create_task(loop.complete(case.request()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await other).token_ids == case.token_ids
    await until(lambda: not loop.engine.has_work)
    assert free_pages(loop) == loop.engine.scheduler.pool.num_pages
    assert loop.stats().num_tokens < 240


async def test_closing_a_stream_aborts_its_request(loop):
    async with aclosing(loop.stream(LONG)) as events:
        async for _ in events:
            break
    await until(lambda: not loop.engine.has_work)
    assert free_pages(loop) == loop.engine.scheduler.pool.num_pages


async def test_a_cancelled_request_that_still_waits_never_runs(loop):
    running = [asyncio.create_task(loop.complete(replace(LONG, id=str(n)))) for n in range(4)]
    waiting = asyncio.create_task(loop.complete(replace(LONG, id="waits")))
    await until(lambda: len(loop.engine.scheduler.waiting) == 1)
    waiting.cancel()
    await until(lambda: not loop.engine.scheduler.waiting)
    for task in running:
        task.cancel()
    await until(lambda: not loop.engine.has_work)


async def test_an_id_may_be_used_again_after_its_end(loop):
    request = greedy_cases("llama")[2].request()
    once = await loop.complete(request)
    again = await loop.complete(request)
    assert (once.token_ids, once.finish_reason) == (again.token_ids, again.finish_reason)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt_ids": ()}, "the prompt is empty; give it at least one token"),
        ({"prompt_ids": (5,) * 256}, "256 tokens; the context is 256 and needs room for one more"),
        ({"prompt_ids": (5, 97)}, "token id 97; ids of this model go from 0 to 96"),
        ({"prompt_ids": (5, -1)}, "token id -1"),
        ({"max_tokens": 0}, "max_tokens is 0; it must be an integer of at least 1"),
    ],
)
async def test_a_bad_request_is_its_callers_error_and_nobody_elses(loop, change, message):
    case = greedy_cases("llama")[4]
    good, bad = await asyncio.gather(
        loop.complete(case.request()), loop.complete(replace(LONG, **change)), return_exceptions=True
    )
    assert good.token_ids == case.token_ids
    assert isinstance(bad, ValueError)
    assert message in str(bad)
    assert loop.alive


async def test_a_second_request_of_a_running_id_is_refused_and_the_first_goes_on(loop):
    case = max(greedy_cases("llama"), key=lambda case: len(case.token_ids))
    first = asyncio.create_task(loop.complete(case.request()))
    await until(lambda: loop.stats().num_tokens > 0)
    with pytest.raises(ValueError, match=r"'case \d+' is already running; give each request its own id"):
        await loop.complete(case.request())
    assert (await first).token_ids == case.token_ids


async def test_cancelling_the_second_caller_of_an_id_does_not_abort_the_first(loop, monkeypatch):
    """The second is cancelled before its refusal reaches it: what it then takes back must not be the first
    one's request.
    """
    case = greedy_cases("llama")[5]
    entered, go_on = hold_steps(loop, monkeypatch, loop.engine.step)
    first = asyncio.create_task(loop.complete(case.request()))
    await asyncio.to_thread(entered.wait)
    second = asyncio.create_task(loop.complete(case.request()))
    await asyncio.sleep(0.01)
    second.cancel()
    await asyncio.sleep(0.01)
    go_on.set()
    assert (await asyncio.wait_for(first, 10)).token_ids == case.token_ids


async def test_a_fault_of_the_engine_reaches_every_caller_and_all_later_ones(loop, monkeypatch):
    tasks = [
        asyncio.create_task(loop.complete(replace(LONG, id=str(n)))) for n in range(6)
    ]  # two of them still wait
    await until(lambda: loop.stats().num_tokens > 8)

    def fail():
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(loop.engine, "step", fail)
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(result, EngineDead)
        assert "RuntimeError: the device is gone" in str(result)
        assert isinstance(result.__cause__, RuntimeError)
    assert not loop.alive
    with pytest.raises(EngineDead, match="the device is gone"):
        await loop.complete(LONG)


async def test_a_request_on_its_way_when_the_engine_fails_is_answered_too(loop, monkeypatch):
    entered, go_on = hold_steps(loop, monkeypatch, lose_device)
    first = asyncio.create_task(loop.complete(LONG))
    await asyncio.to_thread(entered.wait)
    on_its_way = asyncio.create_task(loop.complete(replace(LONG, id="on its way")))
    await asyncio.sleep(0.01)
    go_on.set()
    results = await asyncio.wait_for(asyncio.gather(first, on_its_way, return_exceptions=True), 10)
    assert [type(result) for result in results] == [EngineDead, EngineDead]


async def test_a_request_put_after_the_end_is_refused_even_when_the_loop_seemed_alive(loop, monkeypatch):
    """The end comes between a caller's look and its request: nobody is left to answer from the queue."""
    put = loop._commands.put

    class Late:
        def put(self, command):
            put(None)
            loop._thread.join()
            put(command)

        def __getattr__(self, name):
            return getattr(commands, name)

    commands = loop._commands
    monkeypatch.setattr(loop, "_commands", Late())
    with pytest.raises(EngineDead):
        await asyncio.wait_for(loop.complete(LONG), 10)
    monkeypatch.undo()


async def test_closing_the_loop_ends_waiting_callers_and_refuses_new_ones():
    loop = EngineLoop(make_engine(tiny_model("llama")))
    task = asyncio.create_task(loop.complete(LONG))
    await until(lambda: loop.stats().num_tokens > 0)
    await asyncio.to_thread(loop.close)
    with pytest.raises(EngineDead, match="closed"):
        await task
    with pytest.raises(EngineDead, match="closed"):
        await loop.complete(LONG)
    loop.close()  # a second time does nothing


async def test_a_caller_whose_event_loop_is_gone_does_not_harm_the_others(loop):
    async def leave():
        await anext(loop.stream(LONG))

    await asyncio.to_thread(asyncio.run, leave())
    case = greedy_cases("llama")[6]
    assert (await loop.complete(case.request())).token_ids == case.token_ids


async def test_an_idle_loop_does_not_step(loop):
    await loop.complete(greedy_cases("llama")[0].request())
    before = loop.stats().num_steps
    await asyncio.sleep(0.05)
    assert loop.stats().num_steps == before
