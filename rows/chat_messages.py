"""From the messages of a chat, as people write and store them, to what a chat template takes.

Templates are written for the messages of transformers' apply_chat_template. Those of OpenAI's API differ in
two ways: a content may be a list of parts, and the arguments of a tool call are JSON in a string. Parquet
adds a third: a struct has all fields, and those that a message lacks are null.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import jinja2.ext
from jinja2 import nodes

from engine.settings import shown


class ChatTemplateError(ValueError):
    """The messages are no chat, or the model's template does not take them."""


def template_messages(messages: Sequence[Mapping[str, Any]], keeps_parts: bool) -> list[dict[str, Any]]:
    """The messages for a template; keeps_parts: it takes the parts of a content one by one.

    Raises ChatTemplateError for what a template would write out as it stands, or could not write.
    """
    return [_message(message, f"messages[{index}]", keeps_parts) for index, message in enumerate(messages)]


def template_tools(tools: Any) -> list[dict[str, Any]] | None:
    """Tools for a template: a list of JSON schemas, or the same as JSON in a string. None = no tools.

    Raises ChatTemplateError.
    """
    if isinstance(tools, str):
        tools = _from_json(tools, "tools")
    if not tools:
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise ChatTemplateError(f"tools is {shown(tools)}; it must be a list of functions as JSON schemas")
    return without_none(tools)


def without_none(value: Any) -> Any:
    """A value without the null fields of its structs, at any depth."""
    if isinstance(value, Mapping):
        return {name: without_none(inner) for name, inner in value.items() if inner is not None}
    return [without_none(inner) for inner in value] if isinstance(value, list) else value


def _message(message: Mapping[str, Any], place: str, keeps_parts: bool) -> dict[str, Any]:
    given: dict[str, Any] = without_none(message)
    if calls := given.pop("tool_calls", None):
        given["tool_calls"] = _tool_calls(calls, f"{place}.tool_calls")
    content = given.get("content")
    if isinstance(content, list):
        texts = [_text_of(part, f"{place}.content[{index}]") for index, part in enumerate(content)]
        parts = [{"type": "text", "text": text} for text in texts]
        given["content"] = parts if keeps_parts else "".join(texts)
    elif content is None:
        if not given.keys() - {"role", "name"}:
            raise ChatTemplateError(f"{place} has no content; only one with tool_calls may leave it out")
        if "content" in message:  # templates tell `content: null` beside tool_calls from no content
            given["content"] = None
    elif not isinstance(content, str):
        wanted = "it must be a text or a list of parts of type text"
        raise ChatTemplateError(f"{place}.content is {shown(content)}; {wanted}")
    return given


def _text_of(part: Any, place: str) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict) or not isinstance(part.get("text"), str) or part.get("type") != "text":
        kind = part.get("type") if isinstance(part, dict) else None
        found = f"of type {shown(kind)}" if kind not in (None, "text") else shown(part)
        raise ChatTemplateError(f"{place} is {found}; only parts of type text, with a text, are supported")
    return part["text"]


def _tool_calls(calls: Any, place: str) -> list[dict[str, Any]]:
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise ChatTemplateError(f"{place} is {shown(calls)}; it must be a list of calls")
    return [_tool_call(call, f"{place}[{index}]") for index, call in enumerate(calls)]


def _tool_call(call: dict[str, Any], place: str) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ChatTemplateError(f"{place} is {shown(call)}; it must have a function with a name")
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        return call
    return {**call, "function": {**function, "arguments": _from_json(arguments, f"{place}'s arguments")}}


def _from_json(text: str, place: str) -> Any:
    try:
        return json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        raise ChatTemplateError(f"{place} must be JSON: {error}; it is {shown(text)}") from error


@lru_cache(maxsize=16)
def takes_parts(template: str) -> bool:
    """Whether a template goes through the parts of a content, as those of models for images and text do."""
    environment = jinja2.Environment(extensions=["jinja2.ext.loopcontrols", _GenerationTag])
    try:
        tree = environment.parse(template)
    except jinja2.TemplateSyntaxError:
        return False  # rendering says what is wrong with it
    names = {
        node.target.name
        for node in tree.find_all(nodes.Assign)
        if isinstance(node.target, nodes.Name) and _is_content(node.node, set())
    }
    return any(_is_content(loop.iter, names) for loop in tree.find_all(nodes.For))


def _is_content(node: nodes.Node, names: set[str]) -> bool:
    if isinstance(node, nodes.Filter) and node.node is not None:
        return _is_content(node.node, names)
    if isinstance(node, nodes.Getattr):
        return node.attr == "content"
    if isinstance(node, nodes.Getitem):
        return isinstance(node.arg, nodes.Const) and node.arg.value == "content"
    return isinstance(node, nodes.Name) and node.name in names


class _GenerationTag(jinja2.ext.Extension):
    """Reads over transformers' tag {% generation %}, which marks what the assistant says."""

    tags = {"generation"}

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)
