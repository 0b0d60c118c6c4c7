"""What the app takes and refuses, and what reaches the engine."""

import json
from typing import Any

import pytest

from drafting.sampling import Sampling
from engine.config import GenerationConfig
from tests.serving.fakes import EOS, ScriptedBackend, client_for, text_steps

COMPLETION = {"model": "tiny", "prompt": "ab"}
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
PATHS = {"completion": ("/v1/completions", COMPLETION), "chat": ("/v1/chat/completions", CHAT)}


def backend() -> ScriptedBackend:
    return ScriptedBackend(text_steps("ok"))


async def sent(
    body: dict[str, Any], generation: GenerationConfig | None = None, path: str = "/v1/completions"
) -> ScriptedBackend:
    """The backend after a request that was taken."""
    replica = backend()
    reply = await client_for(replica, generation).post(path, json=body)
    assert reply.status_code == 200, reply.text
    return replica


async def refusal(body: Any, path: str = "/v1/completions") -> dict[str, Any]:
    """The error of a request that was refused with 400 and never reached the engine."""
    replica = backend()
    content = json.dumps(body).encode()  # ASCII, so that half a surrogate pair can be sent
    reply = await client_for(replica).post(
        path, content=content, headers={"Content-Type": "application/json"}
    )
    assert (reply.status_code, replica.requests) == (400, [])
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"
    return error


async def test_a_request_without_settings_has_those_of_the_configuration() -> None:
    generation = GenerationConfig(
        max_tokens=7, temperature=0.5, top_p=0.9, top_k=3, min_p=0.1, ignore_eos=True, stop_token_ids=[10]
    )
    [request] = (await sent(COMPLETION, generation)).requests
    sampling = request.sampling
    assert (request.max_tokens, request.ignore_eos, request.stop_ids) == (7, True, frozenset({10}))
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.5, 0.9, 3, 0.1)


async def test_the_settings_of_a_request_win_also_when_they_are_zero_or_false() -> None:
    own = {
        "max_tokens": 2,
        "temperature": 0,
        "top_p": 1,
        "top_k": 0,
        "min_p": 0,
        "seed": 0,
        "ignore_eos": False,
        "stop_token_ids": [],
    }
    generation = GenerationConfig(
        temperature=1.0, top_p=0.5, top_k=5, min_p=0.5, seed=9, ignore_eos=True, stop_token_ids=[1]
    )
    [request] = (await sent(COMPLETION | own, generation)).requests
    assert (request.max_tokens, request.ignore_eos, request.stop_ids) == (2, False, frozenset())
    assert request.sampling == Sampling(temperature=0, top_p=1, top_k=0, min_p=0, seed=0)


async def test_two_requests_without_a_seed_differ_and_the_prompts_of_one_share_it() -> None:
    first = (await sent(COMPLETION)).requests[0]
    second = (await sent(COMPLETION)).requests[0]
    assert first.sampling.seed != second.sampling.seed
    pair = (await sent({"model": "tiny", "prompt": ["a", "b"]})).requests
    assert pair[0].sampling.seed == pair[1].sampling.seed and pair[0].id != pair[1].id


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("ab", [(97, 98)]),
        (["a", "é"], [(97,), (195, 169)]),
        ([5, 6], [(5, 6)]),
        ([[5], "a"], [(5,), (97,)]),
        ("<eos>", [(EOS,)]),
    ],
)
async def test_a_prompt_is_text_or_token_ids_one_or_many(
    prompt: Any, expected: list[tuple[int, ...]]
) -> None:
    assert [
        request.prompt_ids for request in (await sent({"model": "tiny", "prompt": prompt})).requests
    ] == expected


@pytest.mark.parametrize(
    "prompt", [None, 5, [], [[]], ["a", 5], [5, "a"], [1.5], [True], {"text": "a"}, "\ud800"]
)
async def test_anything_else_is_no_prompt(prompt: Any) -> None:
    assert (await refusal({"model": "tiny", "prompt": prompt}))["param"] == "prompt"


async def test_a_chat_goes_through_the_models_template_up_to_the_assistants_turn() -> None:
    parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
    body = {
        "model": "tiny",
        "messages": [{"role": "system", "content": "x"}, {"role": "user", "content": parts}],
    }
    [request] = (await sent(body, path="/v1/chat/completions")).requests
    assert bytes(request.prompt_ids).decode() == "<system>x<user>hi<assistant>"


async def test_max_completion_tokens_is_the_newer_name_of_max_tokens() -> None:
    [request] = (await sent(CHAT | {"max_completion_tokens": 3}, path="/v1/chat/completions")).requests
    assert request.max_tokens == 3
    error = await refusal(CHAT | {"max_completion_tokens": 3, "max_tokens": 4}, "/v1/chat/completions")
    assert error["message"] == "max_completion_tokens is 3 and max_tokens is 4; send one of them"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("temperature", -1, "temperature is -1; it must be a number of at least 0 (0 = greedy)"),
        ("temperature", "hot", "temperature is 'hot'; it must be a number of at least 0 (0 = greedy)"),
        ("top_p", 0, "top_p is 0; it must be a number above 0 and at most 1 (1 = off)"),
        ("top_k", -1, "top_k is -1; it must be an integer of at least 0 (0 = off)"),
        ("min_p", 1, "min_p is 1; it must be a number of at least 0 and below 1 (0 = off)"),
        ("max_tokens", 0, "max_tokens is 0; it must be an integer of at least 1"),
        ("max_tokens", 1.5, "max_tokens is 1.5; it must be an integer of at least 1"),
        ("seed", "x", "seed is 'x'; it must be an integer"),
        ("ignore_eos", 1, "ignore_eos is 1; it must be true or false"),
        ("stop_token_ids", [-1], "stop_token_ids is [-1]; it must be a list of token ids"),
        ("stream", "yes", "stream: input should be a valid boolean"),
        (
            "stream_options",
            {"include_usage": True},
            "stream_options needs stream: true; leave it out or stream",
        ),
    ],
)
@pytest.mark.parametrize("kind", PATHS)
async def test_a_value_out_of_range_is_refused_with_its_limit(
    kind: str, field: str, value: Any, message: str
) -> None:
    path, body = PATHS[kind]
    error = await refusal(body | {field: value}, path)
    assert (error["param"], error["message"]) == (field, message)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("completion", "n", 2),
        ("completion", "stop", "\n"),
        ("completion", "logprobs", 0),
        ("completion", "echo", True),
        ("completion", "best_of", 3),
        ("completion", "suffix", "end"),
        ("completion", "logit_bias", {"5": 1}),
        ("completion", "presence_penalty", 0.5),
        ("completion", "frequency_penalty", -0.5),
        ("chat", "n", 2),
        ("chat", "stop", ["a"]),
        ("chat", "logprobs", True),
        ("chat", "tools", [{"type": "function"}]),
        ("chat", "tool_choice", "required"),
        ("chat", "response_format", {"type": "json_object"}),
        ("chat", "reasoning_effort", "low"),
    ],
)
async def test_what_is_not_supported_yet_is_refused_by_name_never_ignored(
    kind: str, field: str, value: Any
) -> None:
    path, body = PATHS[kind]
    error = await refusal(body | {field: value}, path)
    assert error["param"] == field
    shown = "true" if value is True else repr(value)
    assert error["message"].startswith(
        f"{field} is {shown}, which this server does not support yet; leave it out"
    )


@pytest.mark.parametrize(
    ("kind", "extra"),
    [
        (
            "completion",
            {
                "n": 1,
                "best_of": 1,
                "echo": False,
                "logprobs": None,
                "presence_penalty": 0,
                "frequency_penalty": 0.0,
                "stop": None,
                "user": "me",
            },
        ),
        (
            "chat",
            {
                "n": 1,
                "logprobs": False,
                "tools": [],
                "tool_choice": "auto",
                "response_format": {"type": "text"},
                "store": False,
                "metadata": {},
            },
        ),
    ],
)
async def test_what_asks_for_nothing_is_taken(kind: str, extra: dict[str, Any]) -> None:
    path, body = PATHS[kind]
    await sent(body | extra, path=path)


async def test_an_unknown_parameter_is_refused_and_the_nearest_named() -> None:
    error = await refusal(COMPLETION | {"temprature": 1})
    assert (error["param"], error["code"]) == ("temprature", "unknown_parameter")
    assert error["message"] == "unknown parameter 'temprature'; did you mean 'temperature'?"
    await refusal(COMPLETION | {"\ud800": 1})


async def test_a_parameter_of_the_other_endpoint_is_said_to_belong_there() -> None:
    error = await refusal(COMPLETION | {"max_completion_tokens": 3})
    expected = "unknown parameter 'max_completion_tokens'; it belongs to /v1/chat/completions"
    assert (error["message"], error["code"]) == (expected, "unknown_parameter")
    error = await refusal(CHAT | {"echo": True}, "/v1/chat/completions")
    assert error["message"] == "unknown parameter 'echo'; it belongs to /v1/completions"


async def test_values_in_errors_are_spelled_as_in_json() -> None:
    error = await refusal(COMPLETION | {"echo": True})
    assert error["message"].endswith("leave it out, or send false")


async def test_a_missing_parameter_is_named() -> None:
    assert (await refusal({"prompt": "a"}))["message"] == "the parameter 'model' is missing"
    assert (await refusal({"model": "tiny"}, "/v1/chat/completions"))["param"] == "messages"


@pytest.mark.parametrize("kind", PATHS)
async def test_a_prompt_as_long_as_the_context_is_refused(kind: str) -> None:
    long = {
        "completion": {"prompt": ["a", "x" * 64]},
        "chat": {"messages": [{"role": "user", "content": "x" * 64}]},
    }
    path, body = PATHS[kind]
    error = await refusal(body | long[kind], path)
    assert (error["code"], error["param"]) == (
        "context_length_exceeded",
        "prompt" if kind == "completion" else "messages",
    )
    assert "the context is 64 and needs room for one more: shorten it" in error["message"]


async def test_another_models_name_is_not_found() -> None:
    for path, body in PATHS.values():
        reply = await client_for(backend()).post(path, json=body | {"model": "gpt-4"})
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("content", "headers", "message"),
    [
        (
            b"{",
            {"Content-Type": "application/json"},
            "the body is not valid JSON: Expecting property name enclosed in double quotes",
        ),
        (
            b"[]",
            {"Content-Type": "application/json"},
            "the body must be a JSON object, sent with Content-Type: application/json",
        ),
        (
            b'{"model": "tiny"}',
            {"Content-Type": "text/plain"},
            "the body must be a JSON object, sent with Content-Type: application/json",
        ),
        (b"", {}, "the body must be a JSON object, sent with Content-Type: application/json"),
    ],
)
async def test_a_body_that_is_no_json_object_is_refused(
    content: bytes, headers: dict[str, str], message: str
) -> None:
    reply = await client_for(backend()).post("/v1/completions", content=content, headers=headers)
    assert (reply.status_code, reply.json()["error"]["message"]) == (400, message)


async def test_broken_utf8_is_refused_in_the_one_shape() -> None:
    reply = await client_for(backend()).post(
        "/v1/completions", content=b'{"model": "\xff"}', headers={"Content-Type": "application/json"}
    )
    assert (reply.status_code, reply.json()["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/nothing", 404), ("GET", "/v1/completions", 405)]
)
async def test_a_wrong_address_is_answered_in_the_one_shape(method: str, path: str, status: int) -> None:
    reply = await client_for(backend()).request(method, path)
    assert (reply.status_code, reply.json()["error"]["type"]) == (status, "invalid_request_error")
