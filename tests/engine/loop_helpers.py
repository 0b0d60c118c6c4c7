"""What the tests of the engine's loop share: a request that lasts, waiting, and steps that are held."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from engine.loop import EngineLoop
from engine.request import Request

LONG = Request("long", (5, 6, 7), 240, ignore_eos=True)


async def until(condition) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("waited ten seconds in vain")


def free_pages(loop: EngineLoop) -> int:
    return loop.engine.scheduler.pool.num_free


def hold_steps(
    loop: EngineLoop, monkeypatch: Any, step: Callable[[], Any]
) -> tuple[threading.Event, threading.Event]:
    """Every step says that it has begun, and goes on with `step` once it may; returns these two events."""
    entered = threading.Event()
    go_on = threading.Event()

    def held_step() -> Any:
        entered.set()
        go_on.wait(10)
        return step()

    monkeypatch.setattr(loop.engine, "step", held_step)
    return entered, go_on


def lose_device(*_: Any) -> None:
    """What a step may come to."""
    raise RuntimeError("the device is gone")
