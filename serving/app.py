"""The OpenAI-compatible HTTP app of one replica: checks a request, turns it into engine requests, answers
whole or as a stream.

Sampling fields that a request leaves out come from the configuration; a seed that it leaves out is drawn at
random.
"""

import secrets
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.responses import Response

from engine.config import GenerationConfig
from engine.prompt_length import PromptLengthError, check_prompt_length
from rows.chat_messages import ChatTemplateError
from rows.prompts import Prompt, make_request
from rows.text_codec import TextCodec
from serving.errors import ApiError, install_handlers
from serving.protocol import ChatBody, CompletionBody, GenerationBody, Message
from serving.replies import CHAT, COMPLETION, Format, Reply, events, whole
from serving.streams import Backend, TextDelta, text_deltas

COMPLETIONS_PATH = "/v1/completions"
CHAT_PATH = "/v1/chat/completions"


def build_app(backend: Backend, model_name: str, generation: GenerationConfig) -> FastAPI:
    """The app; backend: the replica it runs in."""
    app = FastAPI(
        title="N-gram speculative inference",
        description="The part of the OpenAI API that docs/serving.md describes.",
    )
    install_handlers(app, {COMPLETIONS_PATH: CompletionBody, CHAT_PATH: ChatBody})
    api = Api(backend, model_name, generation)
    app.get("/health")(api.health)
    app.get("/v1/models")(api.models)
    app.get("/v1/models/{name:path}")(api.model)
    app.post(COMPLETIONS_PATH, response_model=None)(api.completions)
    app.post(CHAT_PATH, response_model=None)(api.chat)
    return app


class Api:
    """The endpoints; generation: what holds where a request says nothing."""

    def __init__(self, backend: Backend, model_name: str, generation: GenerationConfig) -> None:
        self._backend = backend
        self._model_name = model_name
        self._generation = generation
        self._started = int(time.time())

    async def health(self) -> dict[str, str]:
        """200 while the engine lives, else 503."""
        if not self._backend.alive:
            raise ApiError(503, "the engine stopped; this replica is about to be replaced")
        return {"status": "ok"}

    async def models(self) -> dict[str, Any]:
        """The one model that is served."""
        return {"object": "list", "data": [await self.model(self._model_name)]}

    async def model(self, name: str) -> dict[str, Any]:
        """The model of this name."""
        self._check_model(name)
        return {"id": name, "object": "model", "created": self._started, "owned_by": "local"}

    async def completions(self, body: CompletionBody) -> Response:
        """Continues each prompt."""
        self._check_model(body.model)
        return await self._answer(
            body, COMPLETION, [prompt_ids(self._backend.codec, prompt) for prompt in body.prompt], "prompt"
        )

    async def chat(self, body: ChatBody) -> Response:
        """The assistant's next turn."""
        self._check_model(body.model)
        prompt = chat_ids(self._backend.codec, body.messages)
        prediction = self._backend.codec.encode_output([body.prediction])[0] if body.prediction else []
        return await self._answer(body, CHAT, [prompt], "messages", prediction)

    def _check_model(self, name: str) -> None:
        if name != self._model_name:
            raise ApiError(
                404,
                f"the model {name!r} does not exist; this server has {self._model_name!r}",
                "model",
                "model_not_found",
            )

    def _check_lengths(self, prompts: Sequence[list[int]], param: str) -> None:
        for prompt in prompts:
            try:
                check_prompt_length(len(prompt), self._backend.max_context)
            except PromptLengthError as error:
                raise ApiError(400, str(error), param, "context_length_exceeded") from error

    async def _answer(
        self,
        body: GenerationBody,
        style: Format,
        prompts: Sequence[list[int]],
        param: str,
        prediction_ids: Sequence[int] = (),
    ) -> Response:
        self._check_lengths(prompts, param)
        seed = secrets.randbits(63)
        read = [Prompt(ids, body.settings(), prediction_ids=prediction_ids) for ids in prompts]
        requests = [make_request(uuid.uuid4().hex, prompt, self._generation, seed) for prompt in read]
        reply = Reply(style, self._model_name)
        texts = text_deltas(self._backend, requests)
        if not body.stream:
            return JSONResponse(await whole(reply, len(prompts), texts))
        # The first delta before the headers: what the engine refuses still gets its own status.
        begun = resumed(await anext(texts), texts)
        content = events(reply, len(prompts), begun, body.include_usage)
        return StreamingResponse(
            content, media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
        )


def prompt_ids(codec: TextCodec, prompt: str | list[int]) -> list[int]:
    """The tokens of a prompt; token ids stay as they are."""
    return codec.encode([prompt])[0] if isinstance(prompt, str) else prompt


def chat_ids(codec: TextCodec, messages: Sequence[Message]) -> list[int]:
    """The tokens of a chat, up to where the assistant answers."""
    try:
        text = codec.render([message.as_given() for message in messages])
    except ChatTemplateError as error:
        code = None if codec.tokenizer.chat_template else "no_chat_template"
        raise ApiError(400, str(error), "messages", code) from error
    return codec.encode_rendered([text])[0]


async def resumed(first: TextDelta, rest: AsyncGenerator[TextDelta, None]) -> AsyncGenerator[TextDelta, None]:
    """A stream whose first delta was already taken."""
    try:
        yield first
        async for delta in rest:
            yield delta
    finally:
        await rest.aclose()
