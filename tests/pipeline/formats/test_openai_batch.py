"""OpenAI batch files: bodies become prompts and settings; what cannot be done is named in the row's error."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.reading import prepared, told

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


def request(
    url: str = COMPLETIONS, custom_id: Any = "r", method: str = "POST", **body: Any
) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": method, "url": url, "body": {"model": "m", **body}}


def read(tmp_path: Path, *requests: Any) -> list[dict[str, Any]]:
    (tmp_path / "batch.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in requests))
    return prepared(tmp_path / "batch.jsonl", format="openai_batch")


def test_both_endpoints_in_one_file_and_settings_under_openais_names(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    rows = read(
        tmp_path,
        request(prompt="p", custom_id="1", max_tokens=5, temperature=0, top_p=0.5, seed=3),
        request(
            CHAT,
            "2",
            messages=[{"role": "system", "content": "s"}, {"role": "user", "content": parts}],
            max_completion_tokens=7,
        ),
        request(
            prompt=["only one"],
            custom_id="3",
            n=1,
            stream=False,
            presence_penalty=0.0,
            user="u",
            metadata={"k": "v"},
            logprobs=None,
        ),
    )
    assert [bytes(row["token_ids"]) for row in rows] == [b"p", b"\x01<system>s<user>ab", b"only one"]
    assert [json.loads(row["sampling"]) for row in rows] == [
        {"max_tokens": 5, "temperature": 0, "top_p": 0.5, "seed": 3}, {"max_tokens": 7}, {"n": 1},
    ]  # fmt: skip
    assert [row["carried"]["custom_id"] for row in rows] == ["1", "2", "3"]
    assert (rows[0]["carried"]["model"], rows[0]["carried"]["url"], rows[1]["carried"]["prompt"]) == (
        "m",
        COMPLETIONS,
        None,
    )


@pytest.mark.parametrize(
    ("body", "settings"),
    [
        ({"stop": "\n\n", "n": 2}, {"stop": ["\n\n"], "n": 2}),
        ({"stop": ["a", "b"], "logprobs": 3}, {"stop": ["a", "b"], "logprobs": 3}),
        ({"stop": None, "logprobs": False, "top_logprobs": 0}, {}),
        ({"logprobs": True}, {"logprobs": 0}),
        ({"logprobs": True, "top_logprobs": 5}, {"logprobs": 5}),
    ],
)
def test_stop_samples_and_logprobs_as_openai_spells_them(
    tmp_path: Path, body: dict[str, Any], settings: dict[str, Any]
) -> None:
    (row,) = read(tmp_path, request(prompt="p", **body))
    assert (row["error"], json.loads(row["sampling"])) == (None, settings)
    carried = {key: value for key, value in (row["carried"]["sampling"] or {}).items() if value is not None}
    assert carried == settings


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (request(prompt="p", logit_bias={"5": 1}), "body sets logit_bias ({'5': 1}), which is not "
                                                   "supported; leave it out"),
        (
            request(
                CHAT,
                messages=[{"role": "user", "content": "x"}],
                tools=[{}],
                response_format={"type": "json_object"},
            ),
            "body sets response_format ({'type': 'json_object'}), which is not supported; leave it out",
        ),
        (request(prompt="p", logprobs=False, top_logprobs=2), "body sets top_logprobs (2), which is not "
                                                              "supported; leave it out"),
        (request(prompt="p", stream=True), "body sets stream (true), which is not supported; leave it out"),
        (request(prompt="p", max_tokens=0), "body.max_tokens is 0; it must be an integer of at least 1"),
        (request(prompt="p", temperature="hot"), "body.temperature is 'hot'; it must be a number of at "
                                                 "least 0 (0 = greedy)"),
        (
            request(CHAT, messages=[{"role": "user", "content": "x"}], max_tokens=1, max_completion_tokens=2),
            "body.max_completion_tokens is 2 and body.max_tokens is 1; give one of them",
        ),
        (request(prompt=["a", "b"]), "body.prompt is ['a', 'b']; it must be one string (a request for each, "
                                     "with a custom_id of its own)"),
        (request(), "body.prompt is null; it must be one string (a request for each, with a custom_id of "
                    "its own)"),
        (request(CHAT, messages=[]), "body.messages is []; it must be a list of messages, each with role "
                                     "and content"),
        (
            request(CHAT, messages=[{"role": "user", "content": [{"type": "image_url"}]}]),
            "body.messages[0].content[0] is of type 'image_url'; only parts of type text, with a text, are "
            "supported",
        ),
        (
            request(CHAT, messages=[{"role": "assistant", "tool_calls": []}]),
            "body.messages[0] has no content; only one with tool_calls may leave it out",
        ),
        (
            request(CHAT, messages=[{"role": "user", "content": "x", "audio": {}}]),
            "body.messages[0].audio is not supported; a message has role, content, name, tool_calls, "
            "tool_call_id",
        ),
        (request(CHAT, messages=[{"content": "x"}]), "body.messages[0].role is null; it must be a text"),
        (request("/v1/embeddings", input="x"), f"url is '/v1/embeddings'; it must be {CHAT} or "
                                               f"{COMPLETIONS}"),
        (request(method="GET", prompt="p"), "method is 'GET'; it must be POST"),
        (request(custom_id=7, prompt="p"), "custom_id is 7; it must be a string"),
        ({"custom_id": "r", "url": CHAT, "body": "x"}, "body is 'x'; it must be an object with model and "
                                                       "messages"),
        ("text", "the line is a JSON str; it must be an object with named fields"),
        (
            request(CHAT, messages=[{"role": "nobody", "content": "x"}]),
            "column 'messages': the chat template refused the messages: no such role; fix them",
        ),
    ],
)  # fmt: skip
def test_a_hostile_request_is_an_error_that_names_the_field_and_keeps_its_custom_id(
    tmp_path: Path, line: Any, error: str
) -> None:
    rows = read(tmp_path, request(prompt="before"), line, request(prompt="behind"))
    assert told(rows) == ["before", error, "behind"]
    assert rows[1]["carried"]["custom_id"] == (
        line["custom_id"] if isinstance(line, dict) and line["custom_id"] != 7 else None
    )


def test_a_batch_file_read_as_json_lines_is_refused_with_the_setting_that_helps(tmp_path: Path) -> None:
    (tmp_path / "batch.jsonl").write_text(json.dumps(request(prompt="p")))
    with pytest.raises(
        ValueError, match="it looks like an OpenAI batch file: set input.format: openai_batch"
    ):
        prepared(tmp_path / "batch.jsonl")


def test_a_prediction_of_a_chat_reaches_the_worker_and_is_not_carried(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "x"}]
    rows = read(
        tmp_path,
        request(CHAT, messages=messages, prediction={"type": "content", "content": "old"}),
        request(CHAT, messages=messages, prediction=None),
        request(CHAT, messages=messages, prediction="old"),
        request(prompt="p", prediction={"type": "content", "content": "old"}),
    )
    assert [bytes(row["prediction_ids"]) for row in rows] == [b"old", b"", b"", b""]
    assert "prediction" not in rows[0]["carried"]
    assert [(row["error"] or "")[:29] for row in rows] == [
        "", "", "body.prediction is 'old'; it ", "body sets prediction ({'type'",
    ]  # fmt: skip
