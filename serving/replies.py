"""Replies in the OpenAI API's shapes, whole or as server-sent events; completions and chat differ by a
Format.
"""

import json
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from engine.request import SequenceStats
from serving.errors import ApiError
from serving.streams import TextDelta


@dataclass(frozen=True)
class Format:
    """How one endpoint writes its replies. opening: what a choice's first chunk carries before any text."""

    id_prefix: str
    whole: str
    chunk: str
    text: Callable[[str], dict[str, Any]]
    delta: Callable[[str], dict[str, Any]]
    opening: dict[str, Any] | None = None


COMPLETION = Format(
    "cmpl", "text_completion", "text_completion", lambda text: {"text": text}, lambda text: {"text": text}
)
CHAT = Format(
    "chatcmpl",
    "chat.completion",
    "chat.completion.chunk",
    lambda text: {"message": {"role": "assistant", "content": text, "refusal": None}},
    lambda text: {"delta": {"content": text} if text else {}},
    {"delta": {"role": "assistant", "content": ""}},
)


@dataclass
class Reply:
    """What all parts of one reply share, and its count of tokens."""

    format: Format
    model: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))
    num_prompt_tokens: int = 0
    num_generated_tokens: int = 0

    def count(self, stats: SequenceStats | None) -> None:
        """Adds a finished prompt's tokens to the usage."""
        if stats:
            self.num_prompt_tokens += stats.num_prompt_tokens
            self.num_generated_tokens += stats.num_generated_tokens

    def usage(self) -> dict[str, int]:
        """OpenAI's usage object."""
        prompt = self.num_prompt_tokens
        completion = self.num_generated_tokens
        total = prompt + completion
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}

    def envelope(
        self, kind: str, choices: list[dict[str, Any]], usage: dict[str, int] | None
    ) -> dict[str, Any]:
        """The object around choices."""
        about = {"id": f"{self.format.id_prefix}-{self.id}", "object": kind, "created": self.created}
        return {**about, "model": self.model, "choices": choices, "usage": usage}


def _choice(index: int, content: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
    return {"index": index, **content, "logprobs": None, "finish_reason": finish_reason}


async def whole(reply: Reply, num_prompts: int, deltas: AsyncGenerator[TextDelta, None]) -> dict[str, Any]:
    """The reply once everything is generated."""
    texts: list[list[str]] = [[] for _ in range(num_prompts)]
    reasons: list[str | None] = [None] * num_prompts
    async with aclosing(deltas):
        async for delta in deltas:
            texts[delta.index].append(delta.text)
            reasons[delta.index] = delta.finish_reason
            reply.count(delta.stats)
    choices = [_choice(i, reply.format.text("".join(texts[i])), reasons[i]) for i in range(num_prompts)]
    return reply.envelope(reply.format.whole, choices, reply.usage())


async def events(
    reply: Reply, num_prompts: int, deltas: AsyncGenerator[TextDelta, None], include_usage: bool
) -> AsyncGenerator[str, None]:
    """The reply as server-sent events; an error after the first event becomes the last one,
    without [DONE].
    """
    chunk = reply.format.chunk
    opening = reply.format.opening
    if opening:
        yield _event(*(reply.envelope(chunk, [_choice(i, opening, None)], None) for i in range(num_prompts)))
    try:
        async with aclosing(deltas):
            async for delta in deltas:
                reply.count(delta.stats)
                choice = _choice(delta.index, reply.format.delta(delta.text), delta.finish_reason)
                yield _event(reply.envelope(chunk, [choice], None))
    except ApiError as error:
        yield _event(error.body())
        return
    if include_usage:
        yield _event(reply.envelope(chunk, [], reply.usage()))
    yield "data: [DONE]\n\n"


def _event(*objects: Any) -> str:
    # Plain ASCII: some clients also split lines at U+2028 and its like, which JSON leaves as they are.
    return "".join(f"data: {json.dumps(item)}\n\n" for item in objects)
