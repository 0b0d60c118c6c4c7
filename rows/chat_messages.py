"""From the messages of a chat, as people write and store them, to what a chat template takes.

Templates are written for the messages of transformers' apply_chat_template. Those of OpenAI's API differ in
two ways: a content may be a list of parts, and the arguments of a tool call are JSON in a string. Fields that
are null count as absent, as in transformers.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any

from engine.settings import shown
from rows.unicode import unicode_fault

ROLES = ("system", "developer", "user", "assistant", "tool")
TEXT_FIELDS = ("role", "name", "tool_call_id")
UNSUPPORTED = ("audio", "function_call", "refusal")  # OpenAI's; templates would leave them out


class ChatTemplateError(ValueError):
    """The messages are no chat, or the model's template does not take them."""


class Shape(Enum):
    """What a template takes as the content of a message: a text, a list of parts, or either."""

    TEXT = "text"
    PARTS = "parts"
    EITHER = "either"


def template_messages(
    messages: Sequence[Mapping[str, Any]], shape_of: Callable[[str], Shape] = lambda role: Shape.TEXT
) -> list[dict[str, Any]]:
    """The messages for a template; shape_of: the contents that it takes from messages of a role.

    Raises ChatTemplateError for what a template would write out as it stands, or could not write.
    """
    return [_message(message, f"messages[{index}]", shape_of) for index, message in enumerate(messages)]


def template_tools(tools: Any) -> list[dict[str, Any]] | None:
    """Tools for a template: a list of JSON schemas, or the same as JSON in a string. None = no tools.

    Raises ChatTemplateError.
    """
    if isinstance(tools, str):
        tools = _from_json(tools, "tools")
    if tools is None or tools == []:
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise ChatTemplateError(f"tools is {shown(tools)}; it must be a list of functions as JSON schemas")
    return tools


def joined_parts(content: Any, place: str) -> str:
    """The text of a content, which is a text or a list of parts of type text. Raises ChatTemplateError."""
    return content if isinstance(content, str) else "".join(part["text"] for part in _parts(content, place))


def prediction_text(prediction: Any, place: str) -> str:
    """The text of OpenAI's `prediction`, {"type": "content", "content": a text or a list of parts of text}.

    Raises ChatTemplateError.
    """
    is_content = isinstance(prediction, dict) and prediction.get("type") == "content"
    if not is_content or set(prediction) != {"type", "content"}:
        wanted = 'it must be {"type": "content", "content": a text or a list of parts of type text}'
        raise ChatTemplateError(f"{place} is {shown(prediction)}; {wanted}")
    text = joined_parts(prediction["content"], f"{place}.content")
    if fault := unicode_fault(text):
        raise ChatTemplateError(f"{place} is not valid Unicode: {fault}")
    return text


def present(struct: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are not null."""
    return {name: value for name, value in struct.items() if value is not None}


def _message(message: Mapping[str, Any], place: str, shape_of: Callable[[str], Shape]) -> dict[str, Any]:
    given = present(message)
    _check_fields(given, place)
    calls = given.pop("tool_calls", [])
    if calls != []:
        given["tool_calls"] = _tool_calls(calls, f"{place}.tool_calls")
    content = given.pop("content", [])
    if content != []:
        given["content"] = _content(content, f"{place}.content", shape_of(given["role"]))
    elif calls == []:
        raise ChatTemplateError(f"{place} has no content; only one with tool_calls may leave it out")
    return given


def _check_fields(given: Mapping[str, Any], place: str) -> None:
    for name in TEXT_FIELDS:
        if not isinstance(given.get(name, "" if name != "role" else None), str):
            raise ChatTemplateError(f"{place}.{name} is {shown(given.get(name))}; it must be a text")
    role = given["role"]
    meant = role.strip().lower()
    if not meant or (role not in ROLES and meant in ROLES):
        remedy = f"did you mean {meant!r}?" if meant else "it must be a name, such as user"
        raise ChatTemplateError(f"{place}.role is {shown(role)}; {remedy}")
    for name in UNSUPPORTED:
        if name in given:
            found = f"{place}.{name} is {shown(given[name])}"
            raise ChatTemplateError(f"{found}, which is not supported; leave it out")


def _content(content: Any, place: str, shape: Shape) -> Any:
    if shape is Shape.PARTS and isinstance(content, str):
        return [{"type": "text", "text": content}]
    if shape is not Shape.TEXT and isinstance(content, list):
        return _parts(content, place)
    return joined_parts(content, place)


def _parts(content: Any, place: str) -> list[dict[str, Any]]:
    if not isinstance(content, list):
        wanted = "it must be a text or a list of parts of type text"
        raise ChatTemplateError(f"{place} is {shown(content)}; {wanted}")
    return [_part(part, f"{place}[{index}]") for index, part in enumerate(content)]


def _part(part: Any, place: str) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, dict) or not isinstance(part.get("text"), str) or part.get("type") != "text":
        kind = part.get("type") if isinstance(part, dict) else None
        found = f"of type {shown(kind)}" if kind not in (None, "text") else shown(part)
        raise ChatTemplateError(f"{place} is {found}; only parts of type text, with a text, are supported")
    return present(part)


def _tool_calls(calls: Any, place: str) -> list[dict[str, Any]]:
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise ChatTemplateError(f"{place} is {shown(calls)}; it must be a list of calls")
    return [_tool_call(present(call), f"{place}[{index}]") for index, call in enumerate(calls)]


def _tool_call(call: dict[str, Any], place: str) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ChatTemplateError(f"{place} is {shown(call)}; it must have a function with a name")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        arguments = _from_json(arguments, f"{place}'s arguments")
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise ChatTemplateError(f"{place}'s arguments are {shown(arguments)}; they must be an object")
    return {**call, "function": {**present(function), "arguments": arguments}}


def _from_json(text: str, place: str) -> Any:
    try:
        return json.loads(text) if text.strip() else None
    except (ValueError, RecursionError) as error:
        raise ChatTemplateError(f"{place} must be JSON: {error}; it is {shown(text)}") from error
