"""The Serve replica: one engine loop and its tokenizer behind an HTTP app that serving/ builds.

An adapter: it loads, passes requests on and tells Serve when its engine died, so that Serve starts another.
The app runs in the replica itself, one hop less than an ingress of its own. Does not know the OpenAI API.
"""

from collections.abc import AsyncGenerator, Callable
from typing import Any

from ray import serve

from actors.engine_process import start_loop
from drafting.config import SpeculationConfig
from engine.config import ModelConfig
from engine.request import Event, Request
from rows.text_codec import TextCodec


@serve.ingress()
class Replica:
    """Loads the model when Serve starts it; `build_app` makes the ASGI app from the replica."""

    def __init__(
        self, model: ModelConfig, speculation: SpeculationConfig, build_app: Callable[["Replica"], Any]
    ) -> None:
        self.codec = TextCodec(model.path, model.revision, model.trust_remote_code)
        if not self.codec.can_stream:
            kind = type(self.codec.tokenizer).__name__
            raise ValueError(
                f"the tokenizer of {model.path!r} is a {kind}; "
                "serving needs one that comes as a tokenizer.json"
            )
        self._loop = start_loop(model, speculation)
        self.max_context = self._loop.engine.max_context
        self._build_app = build_app

    def __serve_build_asgi_app__(self) -> Any:
        return self._build_app(self)

    @property
    def alive(self) -> bool:
        """Whether the engine still takes requests."""
        return self._loop.alive

    def stream(self, request: Request) -> AsyncGenerator[Event, None]:
        """The request's events; closing the iterator aborts the request."""
        return self._loop.stream(request)

    def check_health(self) -> None:
        """Called by Serve now and then; an exception has the replica replaced."""
        if not self.alive:
            raise RuntimeError(f"the engine ended: {self._loop.fault}")

    def __del__(self) -> None:
        if hasattr(self, "_loop"):
            self._loop.close()
