"""Messages of the chat endpoint: what reaches the template, and what is refused."""

import json
from typing import Any

import httpx
import pytest

from tests.serving.fakes import ByteCodec, ScriptedBackend, client_for, text_steps

USER = {"role": "user", "content": "hi"}
CALLS_TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% for call in m.tool_calls or [] %}"
    "{{ call.function.name }}(){% endfor %}{% endfor %}"
)


async def post(messages: Any, codec: ByteCodec | None = None) -> tuple[httpx.Response, list[str]]:
    """The reply, and the prompts that reached the engine."""
    replica = ScriptedBackend(text_steps("ok"), codec=codec)
    # ASCII, so that half a surrogate pair can be sent
    content = json.dumps({"model": "tiny", "messages": messages}).encode()
    headers = {"Content-Type": "application/json"}
    reply = await client_for(replica).post("/v1/chat/completions", content=content, headers=headers)
    return reply, [bytes(request.prompt_ids).decode() for request in replica.requests]


async def refusal(messages: Any, codec: ByteCodec | None = None) -> dict[str, Any]:
    """The error of messages that were refused with 400 and never reached the engine."""
    reply, prompts = await post(messages, codec)
    assert (reply.status_code, prompts) == (400, [])
    error: dict[str, Any] = reply.json()["error"]
    return error


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ("hi", "messages"),
        ([{"role": "user"}], "messages"),
        ([{"role": "user", "content": None}], "messages"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages"),
        ([{"role": "robot", "content": "x"}], "messages.0.role"),
        ([{"role": "user", "content": "x", "tool_calls": [{}]}], "messages"),
    ],
)
async def test_messages_that_are_none_are_refused_at_their_place(messages: Any, param: str) -> None:
    assert (await refusal(messages))["param"] == param


async def test_messages_of_tools_reach_the_template() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "3"},
    ]
    _, prompts = await post(messages, ByteCodec(CALLS_TEMPLATE))
    assert prompts == ["<user>ab<assistant>f()<tool>3"]


async def test_an_answer_can_be_sent_back_as_it_came() -> None:
    """OpenAI's clients send back every field of an answer, those that are null or empty too."""
    reply, _ = await post([USER])
    ours = reply.json()["choices"][0]["message"]
    openais = {**ours, "annotations": [], "audio": None, "function_call": None, "tool_calls": None}
    for answer in (ours, openais):
        _, prompts = await post([USER, answer, {"role": "user", "content": "so?"}])
        assert prompts == ["<user>hi<assistant>ok<user>so?<assistant>"]


async def test_a_field_of_a_message_that_is_not_known_is_refused_by_name() -> None:
    error = await refusal([{**USER, "contents": "y"}])
    assert error["message"] == "unknown parameter 'messages.0.contents'"
    assert error["code"] == "unknown_parameter"


async def test_messages_that_are_no_unicode_are_refused() -> None:
    error = await refusal([{"role": "user", "content": "\ud800"}])
    assert "not valid Unicode: surrogates not allowed at position 6" in error["message"]


async def test_messages_that_the_template_does_not_take_are_refused_in_its_words() -> None:
    error = await refusal([USER, {"role": "system", "content": "late"}])
    assert error["message"] == "the chat template refused the messages: system comes first; fix them"


async def test_whatever_a_template_raises_is_the_requests_error_and_can_be_sent() -> None:
    codec = ByteCodec("{{ raise_exception('no ' + messages[0].content) }}")
    error = await refusal([{"role": "user", "content": "\ud800"}], codec)
    assert error["message"] == "the chat template refused the messages: no \\ud800; fix them"


async def test_calls_that_the_template_has_no_place_for_are_refused() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    error = await refusal([USER, {"role": "assistant", "content": None, "tool_calls": [call]}])
    assert error["message"].startswith(
        "the model's chat template has no place for tool_calls, those of messages"
    )


async def test_a_model_without_a_chat_template_says_so() -> None:
    assert (await refusal([USER], ByteCodec(chat_template=None)))["code"] == "no_chat_template"


async def predicted(prediction: Any) -> tuple[httpx.Response, list[bytes]]:
    """The reply to a request with a prediction, and the predictions that reached the engine."""
    replica = ScriptedBackend(text_steps("ok"))
    body = {"model": "tiny", "messages": [USER], "prediction": prediction}
    content = json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    reply = await client_for(replica).post("/v1/chat/completions", content=content, headers=headers)
    return reply, [bytes(request.prediction_ids) for request in replica.requests]


@pytest.mark.parametrize(
    ("prediction", "found"),
    [
        ({"type": "content", "content": "old answer"}, b"old answer"),
        (
            {"type": "content", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            b"ab",
        ),
        ({"type": "content", "content": ""}, b""),
        (None, b""),
    ],
)
async def test_a_prediction_reaches_the_engine_as_output_text(prediction: Any, found: bytes) -> None:
    reply, predictions = await predicted(prediction)
    assert (reply.status_code, predictions) == (200, [found])


@pytest.mark.parametrize(
    ("prediction", "told"),
    [
        ("old answer", "prediction is 'old answer'; it must be {"),
        ({"content": "x"}, "prediction is {'content': 'x'}; it must be {"),
        ({"type": "content", "content": "x", "more": 1}, "it must be {"),
        ({"type": "content", "content": 5}, "prediction.content is 5; it must be a text or a list of parts"),
        (
            {"type": "content", "content": [{"type": "image_url"}]},
            "prediction.content[0] is of type 'image_url'",
        ),
        ({"type": "content", "content": "\ud800"}, "prediction is not valid Unicode"),
    ],
)
async def test_a_prediction_of_another_shape_is_refused(prediction: Any, told: str) -> None:
    reply, predictions = await predicted(prediction)
    assert (reply.status_code, predictions) == (400, [])
    error = reply.json()["error"]
    assert (told in error["message"], error["param"]) == (True, "prediction")
