"""The replica is a thin adapter: it loads, it passes on, and it reports an engine that died."""

from typing import Any

import pytest

import actors.replica
from actors.replica import Replica
from drafting.config import SpeculationConfig
from engine.config import ModelConfig
from tests.serving.fakes import ByteCodec


class FakeLoop:
    """An engine loop whose life is set by the test."""

    def __init__(self) -> None:
        self.alive = True
        self.fault: Exception | None = None
        self.engine = type("Engine", (), {"max_context": 64})
        self.closed = False

    def stream(self, request: Any) -> str:
        return f"events of {request}"

    def close(self) -> None:
        self.closed = True


async def started(monkeypatch: pytest.MonkeyPatch, codec: Any) -> tuple[Any, FakeLoop]:
    loop = FakeLoop()
    monkeypatch.setattr(actors.replica, "TextCodec", lambda *_: codec)
    monkeypatch.setattr(actors.replica, "start_loop", lambda *_: loop)
    replica = Replica.__new__(Replica)
    await replica.__init__(
        ModelConfig(path="tiny"), SpeculationConfig(), lambda replica: f"app of {replica.max_context}"
    )
    return replica, loop


async def test_the_app_is_built_from_the_loaded_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    replica, _ = await started(monkeypatch, ByteCodec())
    assert replica.__serve_build_asgi_app__() == "app of 64"
    assert replica.stream("a") == "events of a"


async def test_a_dead_engine_fails_the_health_check_so_that_serve_replaces_the_replica(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replica, loop = await started(monkeypatch, ByteCodec())
    replica.check_health()
    loop.alive = False
    loop.fault = MemoryError("no pages")
    with pytest.raises(RuntimeError, match="the engine ended: no pages"):
        replica.check_health()


async def test_a_tokenizer_that_cannot_stream_is_refused_before_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    codec = ByteCodec()
    codec.tokenizer = object()
    with pytest.raises(
        ValueError,
        match="the tokenizer of 'tiny' is a object; serving needs one that comes as a tokenizer.json",
    ):
        await started(monkeypatch, codec)
