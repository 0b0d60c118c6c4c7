"""OpenAI batch files: JSON lines of custom_id, method, url and body.

A body's fields become the row's prompt and settings.

What would change the text and cannot be done is an error of the row that names the field; what cannot change
it has no effect. The job's model answers: body.model is carried, not obeyed.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from engine.config import SAMPLING_FIELDS, check_generation
from engine.settings import shown
from pipeline.formats.jsonl import parse_object
from pipeline.formats.lines import BadRow
from pipeline.formats.text_format import TextFormat
from pipeline.schema import SAMPLING_TYPE
from rows.chat_messages import ChatTemplateError, joined_parts, prediction_text, template_messages
from rows.unicode import printable

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
FUNCTION = pa.struct([("name", pa.string()), ("arguments", pa.string())])
TOOL_CALL = pa.struct([("id", pa.string()), ("type", pa.string()), ("function", FUNCTION)])
MESSAGE = pa.struct(
    [
        *[(name, pa.string()) for name in ("role", "content", "name", "tool_call_id")],
        ("tool_calls", pa.list_(TOOL_CALL)),
    ]
)
STRINGS = [(name, pa.string()) for name in ("custom_id", "url", "model", "prompt")]
SCHEMA = pa.schema(
    [*STRINGS, ("messages", pa.list_(MESSAGE)), ("tools", pa.string()), ("sampling", SAMPLING_TYPE)]
)
MESSAGE_FIELDS = ("role", "content", "name", "tool_calls", "tool_call_id")
# NO_EFFECT: OpenAI's fields that cannot change a text. HARMLESS: of other fields, the values that ask for
# nothing.
NO_EFFECT = {
    "model", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "service_tier",
    "metadata", "store", "parallel_tool_calls",
}  # fmt: skip
HARMLESS: dict[str, tuple[Any, ...]] = {
    "stream": (False,), "best_of": (1,), "echo": (False,), "suffix": ("",), "logit_bias": ({},),
    "top_logprobs": (0,),
    "presence_penalty": (0,), "frequency_penalty": (0,), "repetition_penalty": (1,),
    "tools": ([],), "tool_choice": ("none", "auto"), "functions": ([],), "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},), "modalities": (["text"],),
}  # fmt: skip


class OpenAIBatch(TextFormat):
    """A request per line, for either endpoint."""

    def parse(self, row: bytes, first: bool, names: Sequence[str]) -> dict[str, Any]:
        """A row with the columns of SCHEMA; raises BadRow, with the custom_id and url where they
        are known.
        """
        request = parse_object(row, first)
        known = {name: _string(request, name) for name in ("custom_id", "url")}
        try:
            return known | _read_request(request)
        except ValueError as error:
            raise BadRow(str(error), known) from error

    def carried(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row with the parts of its contents joined, and without the prediction, which has no column."""
        kept = {name: value for name, value in row.items() if name != "prediction"}
        messages = row.get("messages")
        return kept | {"messages": [_carried(message) for message in messages]} if messages else kept

    def schema(self, rows: Iterable[Mapping[str, Any]], names: Sequence[str]) -> pa.Schema:
        """Every file has the same columns."""
        return SCHEMA

    def holds_chats(self, rows: Iterable[Mapping[str, Any]]) -> bool:
        """Whether any of these requests has messages."""
        return any("messages" in row for row in rows)


def _string(request: Mapping[str, Any], name: str) -> str | None:
    return value if isinstance(value := request.get(name), str) else None


def _read_request(request: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(request.get("custom_id"), str):
        raise BadRow(f"custom_id is {shown(request.get('custom_id'))}; it must be a string")
    if request.get("method", "POST") != "POST":
        raise BadRow(f"method is {shown(request['method'])}; it must be POST")
    url = request.get("url")
    body = request.get("body")
    if url not in (CHAT, COMPLETIONS):
        raise BadRow(f"url is {shown(url)}; it must be {CHAT} or {COMPLETIONS}")
    if not isinstance(body, dict):
        raise BadRow(
            f"body is {shown(body)}; it must be an object with model and "
            f"{'messages' if url == CHAT else 'prompt'}"
        )
    name, read = ("messages", _messages) if url == CHAT else ("prompt", _prompt)
    given = {key: value for key, value in body.items() if value is not None}
    tools = given.pop("tools", None) if url == CHAT else None
    prediction = given.pop("prediction", None) if url == CHAT else None
    sampling = _sampling({key: value for key, value in given.items() if key not in {*NO_EFFECT, name}})
    row = {name: read(body.get(name)), "model": _string(body, "model"), "sampling": sampling or None}
    if prediction is not None:
        row["prediction"] = prediction_text(prediction, "body.prediction")
    return row | {"tools": None if tools in (None, []) else json.dumps(tools, ensure_ascii=False)}


def _prompt(prompt: Any) -> Any:
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise BadRow(
            f"body.prompt is {shown(prompt)}; it must be one string (a request for each, with a custom_id of "
            "its own)"
        )
    return prompt


def _messages(messages: Any) -> Any:
    is_list = isinstance(messages, list) and bool(messages)
    if not is_list or not all(isinstance(message, dict) for message in messages):
        raise BadRow(
            f"body.messages is {shown(messages)}; it must be a list of messages, each with role and content"
        )
    found = [_message(message, f"body.messages[{index}]") for index, message in enumerate(messages)]
    try:
        template_messages(found)
    except ChatTemplateError as error:
        raise BadRow(f"body.{error}") from error
    return found


def _message(message: dict[str, Any], place: str) -> dict[str, Any]:
    """The fields that say something: those of an answer that is sent back may be null or empty."""
    given = {name: value for name, value in message.items() if value is not None and value != []}
    unknown = sorted(set(given) - {*MESSAGE_FIELDS})
    if unknown:
        named = printable(unknown[0])
        raise BadRow(f"{place}.{named} is not supported; a message has {', '.join(MESSAGE_FIELDS)}")
    return given


def _carried(message: dict[str, Any]) -> dict[str, Any]:
    """A message with the one text that a column of texts has room for."""
    return message | {"content": joined_parts(message["content"], "")} if "content" in message else message


def _sampling(given: dict[str, Any]) -> dict[str, Any]:
    """The row's own settings: OpenAI's names are ours, but for these that are spelt differently."""
    if "max_completion_tokens" in given:
        newer = given.pop("max_completion_tokens")
        if given.setdefault("max_tokens", newer) != newer:
            raise BadRow(
                f"body.max_completion_tokens is {newer!r} and body.max_tokens is {given['max_tokens']!r}; "
                "give one of them"
            )
    if isinstance(given.get("stop"), str):
        given["stop"] = [given["stop"]] if given["stop"] else []
    if isinstance(given.get("logprobs"), bool):  # of a chat, which has the number elsewhere
        asked = given.pop("logprobs")
        number = given.pop("top_logprobs", 0)
        given |= {"logprobs": number} if asked else {"top_logprobs": number}
    unsupported = sorted(
        name for name, value in given.items() if name not in SAMPLING_FIELDS and not _harmless(name, value)
    )
    if unsupported:
        named = ", ".join(f"{printable(name)} ({shown(given[name])})" for name in unsupported)
        raise BadRow(f"body sets {named}, which is not supported; leave it out")
    settings = {name: value for name, value in given.items() if name in SAMPLING_FIELDS}
    check_generation(settings, "body.")
    return settings


def _harmless(name: str, value: Any) -> bool:
    # True equals 1 in Python, but means something else in a body
    same = [known for known in HARMLESS.get(name, ()) if value == known]
    return any(isinstance(value, bool) == isinstance(known, bool) for known in same)
