"""What comes back: whole replies and streams, token counts, and errors after the start."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from engine.request import RequestFailed
from tests.serving.fakes import EOS, ScriptedBackend, client_for, text_steps

COMPLETION = {"model": "tiny", "prompt": "ab"}
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


async def streamed(backend: ScriptedBackend, path: str, body: dict[str, Any]) -> list[Any]:
    """The data of each server-sent event, parsed; "[DONE]" stays a string."""
    reply = await client_for(backend).post(path, json=body | {"stream": True})
    assert reply.status_code == 200 and reply.headers["content-type"].startswith("text/event-stream")
    events = reply.text.split("\n\n")
    assert events.pop() == "" and all(event.startswith("data: ") for event in events)
    return [
        data if data == "[DONE]" else json.loads(data)
        for data in (event.removeprefix("data: ") for event in events)
    ]


async def test_a_completion() -> None:
    reply = (
        await client_for(ScriptedBackend([*text_steps("He", "llo"), [EOS]])).post(
            "/v1/completions", json=COMPLETION
        )
    ).json()
    assert reply.pop("id").startswith("cmpl-") and reply.pop("created") > 0
    assert reply == {
        "object": "text_completion",
        "model": "tiny",
        "choices": [{"index": 0, "text": "Hello", "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 2, "completion_tokens": 6, "total_tokens": 8},
    }


async def test_a_chat() -> None:
    backend = ScriptedBackend(text_steps("Hello"), finish_reason="length")
    reply = (await client_for(backend).post("/v1/chat/completions", json=CHAT)).json()
    assert reply["id"].startswith("chatcmpl-") and reply["object"] == "chat.completion"
    message = {"role": "assistant", "content": "Hello", "refusal": None}
    assert reply["choices"] == [{"index": 0, "message": message, "logprobs": None, "finish_reason": "length"}]


async def test_a_streamed_completion_ends_with_its_reason_and_done() -> None:
    *chunks, done = await streamed(ScriptedBackend(text_steps("He", "llo")), "/v1/completions", COMPLETION)
    assert done == "[DONE]" and len({chunk["id"] for chunk in chunks}) == 1
    assert [chunk["choices"] for chunk in chunks] == [
        [{"index": 0, "text": "He", "logprobs": None, "finish_reason": None}],
        [{"index": 0, "text": "llo", "logprobs": None, "finish_reason": "stop"}],
    ]
    assert all(chunk["object"] == "text_completion" and chunk["usage"] is None for chunk in chunks)


async def test_a_streamed_chat_begins_with_the_role() -> None:
    *chunks, done = await streamed(ScriptedBackend([*text_steps("He"), [EOS]]), "/v1/chat/completions", CHAT)
    assert done == "[DONE]" and {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert [(chunk["choices"][0]["delta"], chunk["choices"][0]["finish_reason"]) for chunk in chunks] == [
        ({"role": "assistant", "content": ""}, None),
        ({"content": "He"}, None),
        ({}, "stop"),
    ]


async def test_usage_comes_last_in_a_stream_that_asks_for_it() -> None:
    body = COMPLETION | {"prompt": ["ab", "c"], "stream_options": {"include_usage": True}}
    *chunks, usage, done = await streamed(ScriptedBackend(text_steps("He", "llo")), "/v1/completions", body)
    assert (usage["choices"], usage["usage"], done) == (
        [],
        {"prompt_tokens": 3, "completion_tokens": 10, "total_tokens": 13},
        "[DONE]",
    )
    assert all(chunk["usage"] is None for chunk in chunks)


async def test_many_prompts_are_many_choices_whole_and_streamed() -> None:
    body = {"model": "tiny", "prompt": ["a", "b", "c"]}
    whole = (
        await client_for(ScriptedBackend(text_steps("x", "é"))).post("/v1/completions", json=body)
    ).json()
    assert [(choice["index"], choice["text"]) for choice in whole["choices"]] == [
        (0, "xé"),
        (1, "xé"),
        (2, "xé"),
    ]
    *chunks, _ = await streamed(ScriptedBackend(text_steps("x", "é")), "/v1/completions", body)
    texts = dict.fromkeys(range(3), "")
    for chunk in chunks:
        texts[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
    assert texts == {0: "xé", 1: "xé", 2: "xé"}


async def test_line_separators_in_the_text_do_not_break_the_events() -> None:
    backend = ScriptedBackend(text_steps("a\u2028b\x85c\x1cd\r\n\ne"))
    reply = await client_for(backend).post("/v1/completions", json=COMPLETION | {"stream": True})
    lines = reply.text.splitlines()  # cuts at every separator of Unicode, as httpx's own iter_lines does
    assert json.loads(lines[0].removeprefix("data: "))["choices"][0]["text"] == "a\u2028b\x85c\x1cd\r\n\ne"


@pytest.mark.parametrize("stream", [False, True])
async def test_what_the_engine_refuses_is_a_400_also_for_a_stream(stream: bool) -> None:
    backend = ScriptedBackend([ValueError("the prompt holds token id 9; ids go to 8")])
    reply = await client_for(backend).post("/v1/completions", json=COMPLETION | {"stream": stream})
    assert (reply.status_code, reply.json()["error"]["message"]) == (
        400,
        "the prompt holds token id 9; ids go to 8",
    )


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_that_dies_before_the_first_token_is_a_503(stream: bool) -> None:
    backend = ScriptedBackend([RuntimeError("out of memory")])
    reply = await client_for(backend).post("/v1/completions", json=COMPLETION | {"stream": stream})
    assert (reply.status_code, reply.json()["error"]["type"]) == (503, "server_error")
    assert "out of memory" in reply.json()["error"]["message"]


async def test_an_engine_that_dies_midway_ends_the_stream_with_an_error_and_without_done() -> None:
    first, last = await streamed(
        ScriptedBackend([*text_steps("He"), RuntimeError("boom")]), "/v1/completions", COMPLETION
    )
    assert first["choices"][0]["text"] == "He"
    assert last["error"]["type"] == "server_error" and "boom" in last["error"]["message"]


async def test_one_prompt_that_fails_takes_the_others_of_its_request_along() -> None:
    class SecondFails(ScriptedBackend):
        def stream(self, request: Any) -> Any:
            self._script = [ValueError("bad")] if self.requests else [*text_steps("x"), None]
            return super().stream(request)

    backend = SecondFails([])
    reply = await client_for(backend).post("/v1/completions", json={"model": "tiny", "prompt": ["a", "b"]})
    assert reply.status_code == 400 and sorted(backend.left) == sorted(
        request.id for request in backend.requests
    )


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_has_its_requests_aborted(stream: bool) -> None:
    backend = ScriptedBackend([*text_steps("x"), None])
    body = {"model": "tiny", "prompt": ["a", "b"], "stream": stream}
    call = asyncio.create_task(client_for(backend).post("/v1/completions", json=body))
    while len(backend.requests) < 2:
        await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.sleep(0.01)
    assert sorted(backend.left) == sorted(request.id for request in backend.requests)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_cannot_go_on_is_a_500_with_the_reason(stream: bool) -> None:
    backend = ScriptedBackend([RequestFailed("the model's logits are not finite at output token 1")])
    reply = await client_for(backend).post("/v1/completions", json=COMPLETION | {"stream": stream})
    error = reply.json()["error"]
    assert (reply.status_code, error["type"]) == (500, "server_error")
    assert error["message"] == "the model's logits are not finite at output token 1"


async def test_a_request_that_fails_in_its_stream_ends_it_with_the_reason() -> None:
    backend = ScriptedBackend([*text_steps("He"), RequestFailed("not finite")])
    reply = await client_for(backend).post("/v1/completions", json=COMPLETION | {"stream": True})
    assert reply.status_code == 200
    assert '"text": "He"' in reply.text and '"message": "not finite"' in reply.text
    assert "[DONE]" not in reply.text


async def test_health_is_200_while_the_engine_lives_and_503_after() -> None:
    backend = ScriptedBackend([])
    assert (await client_for(backend).get("/health")).json() == {"status": "ok"}
    backend.alive = False
    reply = await client_for(backend).get("/health")
    assert (reply.status_code, reply.json()["error"]["type"]) == (503, "server_error")


async def test_the_model_is_listed_and_found_by_name() -> None:
    client: httpx.AsyncClient = client_for(ScriptedBackend([]))
    [model] = (await client.get("/v1/models")).json()["data"]
    assert (model["id"], model["object"]) == ("tiny", "model")
    assert (await client.get("/v1/models/tiny")).json() == model
    assert (await client.get("/v1/models/org/other")).status_code == 404
