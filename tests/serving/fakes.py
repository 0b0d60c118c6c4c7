"""A byte tokenizer and a backend that answers from a script, so that the HTTP app runs without a model, an
engine or Ray.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence

import httpx
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from engine.config import GenerationConfig
from engine.request import Event, Request, SequenceStats
from rows.text_codec import TextCodec
from serving.app import build_app

CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}{{ raise_exception('system comes "
    "first') }}{% endif %}"
    "<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
EOS = 256


class ByteCodec(TextCodec):
    """One token per byte (its id is the byte), and token 256 is the special <eos>."""

    def __init__(self, chat_template: str | None = CHAT_TEMPLATE) -> None:
        self.tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=byte_tokenizer(), eos_token="<eos>", chat_template=chat_template
        )


def byte_tokenizer() -> Tokenizer:
    """Byte-level BPE without merges; the id of a token is its byte."""
    letters = bytes_to_letters()
    tokenizer = Tokenizer(models.BPE(vocab={letter: byte for byte, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<eos>"])
    return tokenizer


def bytes_to_letters() -> list[str]:
    """The letter that byte-level BPE writes for each byte: itself where it prints, else the next free one
    from U+0100 on.
    """
    prints = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in prints else chr(next(others)) for byte in range(256)]


class ScriptedBackend:
    """Gives the events of a script to every request.

    An exception in the script is raised; None waits until the request is left.
    """

    def __init__(
        self,
        script: Sequence[Sequence[int] | Exception | None],
        finish_reason: str = "stop",
        codec: TextCodec | None = None,
    ) -> None:
        self.codec = codec or ByteCodec()
        self.max_context = 64
        self.alive = True
        self.requests: list[Request] = []
        self.left: list[str] = []
        self._script = script
        self._finish_reason = finish_reason

    async def stream(self, request: Request) -> AsyncGenerator[Event, None]:
        """The scripted events; a request that is not followed to its end is noted in `left`."""
        self.requests.append(request)
        script = self._script
        finished = False
        num_tokens = 0
        try:
            for number, step in enumerate(script, 1):
                if isinstance(step, Exception):
                    raise step
                if step is None:
                    await asyncio.Event().wait()
                    continue
                await asyncio.sleep(0)
                num_tokens += len(step)
                finished = number == len(script)
                stats = SequenceStats(len(request.prompt_ids), num_tokens) if finished else None
                yield Event(
                    request.id,
                    tuple(step),
                    finish_reason=self._finish_reason if finished else None,
                    stats=stats,
                )  # type: ignore[arg-type]
        finally:
            if not finished:
                self.left.append(request.id)


def client_for(backend: ScriptedBackend, generation: GenerationConfig | None = None) -> httpx.AsyncClient:
    """An HTTP client of the app over this backend; the model is called `tiny`."""
    app = build_app(backend, "tiny", generation or GenerationConfig())
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


def text_steps(*deltas: str) -> list[list[int]]:
    """The token ids of each delta: one event per delta."""
    return [list(delta.encode()) for delta in deltas]
