"""An engine loop that answers from a script, in reverse order, and fails on cue; a codec of plain bytes.

No model, no Ray.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from drafting.config import SpeculationConfig
from drafting.outcomes import CandidateCounts
from engine.config import ModelConfig
from engine.request import Completion, Request, SequenceStats
from engine.stats import EngineStats
from rows.chat_messages import ChatTemplateError, template_messages
from rows.text_codec import TextCodec


class ByteCodec(TextCodec):
    """One token per byte of the text."""

    def __init__(self) -> None:
        pass

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(text.encode()) for text in texts]

    def context(self, prompt_ids: Sequence[int]) -> list[int]:
        return []

    def encode_rendered(self, texts: Sequence[str]) -> list[list[int]]:
        return [[1, *text.encode()] for text in texts]

    def encode_output(self, texts: Sequence[str]) -> list[list[int]]:
        return self.encode(texts)

    def render(self, messages: Sequence[dict[str, Any]], tools: Any = None) -> str:
        if messages[0]["role"] == "nobody":
            raise ChatTemplateError("the chat template refused the messages: no such role; fix them")
        return "".join(f"<{m['role']}>{m['content']}" for m in template_messages(messages))

    def decode(self, token_ids: Sequence[int], context: Sequence[int] = ()) -> str:
        return bytes(token_ids).decode()


class ReversingLoop:
    """Answers a prompt with its bytes turned round, the last request first; prompts that begin with ! or #
    mean trouble.
    """

    def __init__(self) -> None:
        self.seen: list[Request] = []
        self.answered: list[str] = []
        self.counted = EngineStats(CandidateCounts(("context",)))

    def stats(self) -> EngineStats:
        return self.counted

    async def complete(self, request: Request) -> Completion:
        self.seen.append(request)
        await asyncio.sleep(0.05 / len(self.seen))
        if request.prompt_ids[:1] == (ord("!"),):
            raise RuntimeError("the device is gone")
        if request.prompt_ids[:1] == (ord("#"),):
            raise ValueError("the engine cannot run this")
        self.answered.append(request.id)
        self.counted.count_step(num_packed_tokens=2, num_nodes=1, lengths=[1])
        tokens = request.prompt_ids[::-1][: request.max_tokens]
        stats = SequenceStats(len(request.prompt_ids), len(tokens), 2, {"context": 3}, {"context": 1})
        return Completion(request.id, tokens, "length", stats)


def start_reversing_loop(model: ModelConfig, speculation: SpeculationConfig) -> ReversingLoop:
    """In place of actors.engine_process.start_loop."""
    return ReversingLoop()


def load_byte_codec(model: ModelConfig) -> ByteCodec:
    """In place of rows.text_codec.load_codec."""
    return ByteCodec()
