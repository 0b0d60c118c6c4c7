"""Runs an engine in its own thread and hands its events to asyncio callers.

The batch worker and the Serve replica share it.

A cancelled or closed stream aborts its request. A request that cannot run, or cannot go on, is its caller's
error alone. An engine fault ends the loop: every caller gets EngineDead, and the process is expected to exit,
because the state of the device is unknown. After a fault the engine is not touched any more.
"""

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from copy import deepcopy
from dataclasses import dataclass

from engine.engine import Engine
from engine.request import Completion, Event, Request, RequestFailed
from engine.stats import EngineStats


class EngineDead(RuntimeError):
    """The engine failed in a step; nothing more will come out of it."""


@dataclass(eq=False)
class _Caller:
    """Where a request's events go: a queue of the asyncio loop that asked.

    held: the events so far of a caller who wants one completion. is_served: the engine has its request.
    """

    loop: asyncio.AbstractEventLoop
    events: "asyncio.Queue[Event | Completion | Exception]"
    held: list[Event] | None
    is_served: bool = False

    def give(self, item: Event | Completion | Exception) -> None:
        if self.held is not None and isinstance(item, Event):
            self.held.append(item)
            if item.finish_reason is None:
                # waking the other thread for every token costs a batch of 16 several percent of its speed
                return
            item = Completion.of(self.held)
        with suppress(RuntimeError):  # the caller's loop has closed: nobody waits any more
            self.loop.call_soon_threadsafe(self.events.put_nowait, item)


@dataclass(frozen=True)
class _Command:
    """What a caller asks of the engine: to take a request in, or to give it up."""

    request: Request
    caller: _Caller
    aborts: bool = False


class EngineLoop:
    """Owns the thread that steps the engine; the engine is touched by no other thread."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.fault: BaseException | None = None
        self._callers: dict[str, _Caller] = {}
        self._commands: queue.SimpleQueue[_Command | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the engine still takes requests."""
        return self.fault is None and self._thread.is_alive()

    async def stream(self, request: Request) -> AsyncGenerator[Event, None]:
        """The request's events as they come.

        Raises ValueError for a request that cannot run, RequestFailed when it cannot go on, EngineDead after
        a fault of the engine.
        """
        async with aclosing(self._events(request, held=None)) as events:
            async for event in events:
                assert isinstance(event, Event), event
                yield event

    async def complete(self, request: Request) -> Completion:
        """All tokens of a request, once it is finished; raises what `stream` does."""
        async with aclosing(self._events(request, held=[])) as events:
            completion = await anext(events)
        assert isinstance(completion, Completion), completion
        return completion

    async def _events(
        self, request: Request, held: list[Event] | None
    ) -> AsyncGenerator[Event | Completion, None]:
        caller = _Caller(asyncio.get_running_loop(), asyncio.Queue(), held)
        self._submit(request, caller)
        finished = False
        try:
            while not finished:
                item = await caller.events.get()
                if isinstance(item, Exception):
                    finished = True
                    raise item
                finished = item.finish_reason is not None
                if item.error is not None:
                    raise RequestFailed(item.error)
                yield item
        finally:
            if not finished:
                self._commands.put(_Command(request, caller, aborts=True))

    def stats(self) -> EngineStats:
        """A copy of the engine's counts."""
        return deepcopy(self.engine.stats)

    def close(self) -> None:
        """Ends the thread after the step it is in; unfinished requests get EngineDead."""
        self._commands.put(None)
        self._thread.join()

    def _submit(self, request: Request, caller: _Caller) -> None:
        self._commands.put(_Command(request, caller))
        if not self.alive:  # checked after the put: what is put before the loop ends is answered by _end
            raise EngineDead(f"the engine has ended: {self.fault or 'closed'}") from self.fault

    def _add(self, request: Request, caller: _Caller) -> None:
        try:
            self.engine.add(request)
        except ValueError as error:
            caller.give(error)
        except Exception as error:  # nothing was queued: the engine is as it was before
            caller.give(ValueError(f"the request cannot be taken in: {type(error).__name__}: {error}"))
        else:
            self._callers[request.id] = caller
            caller.is_served = True

    def _abort(self, request: Request, caller: _Caller) -> None:
        if caller.is_served:  # else it has ended, or was refused: its id may be that of another request
            caller.is_served = False
            del self._callers[request.id]
            self.engine.abort(request.id)

    def _run(self) -> None:
        try:
            while self._take_commands():
                for event in self.engine.step():
                    caller = self._callers[event.request_id]
                    if event.finish_reason:
                        del self._callers[event.request_id]
                        caller.is_served = False
                    caller.give(event)
        except BaseException as error:
            self.fault = error
        finally:
            self._end()

    def _take_commands(self) -> bool:
        """Runs what callers asked for, and waits for it when the engine is idle; False = the loop
        was closed.
        """
        while True:
            try:
                command = self._commands.get(block=not self.engine.has_work)
            except queue.Empty:
                return True
            if command is None:
                return False
            (self._abort if command.aborts else self._add)(command.request, command.caller)

    def _end(self) -> None:
        """Gives EngineDead to every caller, also to those whose request was not taken in yet."""
        self.fault = self.fault or EngineDead("the engine was closed")
        dead = EngineDead(f"the engine has ended: {type(self.fault).__name__}: {self.fault}")
        dead.__cause__ = self.fault
        while True:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                break
            if command and not command.aborts:
                command.caller.give(dead)
        for caller in self._callers.values():
            caller.give(dead)
        self._callers.clear()
