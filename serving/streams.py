"""From engine requests to deltas of text: one stream per prompt, merged into one.

Leaving a stream early aborts its requests.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from engine.request import Event, Request, RequestFailed, SequenceStats
from rows.detokenizer import Detokenizer
from rows.text_codec import TextCodec
from serving.errors import ApiError


class Backend(Protocol):
    """What the app needs of a replica."""

    codec: TextCodec
    max_context: int

    @property
    def alive(self) -> bool:
        """Whether the engine still takes requests."""

    def stream(self, request: Request) -> AsyncGenerator[Event, None]:
        """The request's events; closing the iterator aborts the request."""


@dataclass(frozen=True)
class TextDelta:
    """New text of the prompt at `index`; the last delta has finish_reason and stats."""

    index: int
    text: str
    finish_reason: str | None = None
    stats: SequenceStats | None = None


async def text_deltas(backend: Backend, requests: Sequence[Request]) -> AsyncGenerator[TextDelta, None]:
    """The text of all requests as it grows, in the order in which it comes."""
    queue: asyncio.Queue[TextDelta | Exception] = asyncio.Queue()
    tasks = [
        asyncio.create_task(_pump(backend, index, request, queue)) for index, request in enumerate(requests)
    ]
    unfinished = len(tasks)
    try:
        while unfinished:
            item = await queue.get()
            if isinstance(item, Exception):
                raise item
            unfinished -= item.finish_reason is not None
            yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(
    backend: Backend, index: int, request: Request, queue: asyncio.Queue[TextDelta | Exception]
) -> None:
    try:
        async with aclosing(_text(backend, index, request)) as texts:
            async for delta in texts:
                queue.put_nowait(delta)
    except Exception as error:
        queue.put_nowait(error)


async def _text(backend: Backend, index: int, request: Request) -> AsyncGenerator[TextDelta, None]:
    detokenizer = Detokenizer(backend.codec.tokenizer, request.prompt_ids)
    try:
        async with aclosing(backend.stream(request)) as events:
            async for event in events:
                text = detokenizer.push(event.token_ids)
                if event.finish_reason:
                    yield TextDelta(index, text + detokenizer.held(), event.finish_reason, event.stats)
                elif text:
                    yield TextDelta(index, text)
    except RequestFailed as error:
        raise ApiError(500, str(error)) from error
    except ValueError as error:
        raise ApiError(400, str(error)) from error
    except RuntimeError as error:
        raise ApiError(503, f"the engine stopped: {error}; try again, another replica takes over") from error
