"""Chats as OpenAI's API, JSON lines and Parquet have them reach a template as transformers expects them."""

import json
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from rows.chat_messages import ChatTemplateError, template_messages, template_tools
from rows.chat_template import render_chat
from tests.serving.fakes import byte_tokenizer

TEXT = {"type": "text", "text": "a"}
CALL = {"id": "7", "type": "function", "function": {"name": "add", "arguments": '{"x": 1, "y": null}'}}
SHOWN = (
    "{% for m in messages %}<{{ m.role }}>{% if m.content is not none and m.content is defined %}"
    "{{ m.content }}{% endif %}{% for c in m.tool_calls or [] %}"
    "{{ c.function.name }}({{ c.function.arguments | tojson }}){% endfor %}{% endfor %}"
)
TOOLS = "{% if tools %}tools: {{ tools | map(attribute='function.name') | join }} {% endif %}" + SHOWN


def rendered(template: str, messages: list[dict[str, Any]], tools: Any = None) -> str:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_tokenizer(), chat_template=template)
    return render_chat(tokenizer, messages, tools)


def message(**fields: Any) -> dict[str, Any]:
    (found,) = template_messages([{"role": "user", **fields}])
    return found


def test_parts_of_text_are_joined() -> None:
    assert message(content=[TEXT, {"type": "text", "text": "b"}]) == {"role": "user", "content": "ab"}
    assert rendered(SHOWN, [{"role": "user", "content": [TEXT, "b"]}]) == "<user>ab"


def test_an_assistant_that_only_calls_tools_has_no_content_and_arguments_become_objects() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    arguments = {"x": 1, "y": None}
    assert template_messages([call]) == [
        {
            "role": "assistant",
            "tool_calls": [{**CALL, "function": {"name": "add", "arguments": arguments}}],
        }
    ]
    answer = {"role": "tool", "tool_call_id": "7", "name": "add", "content": "3"}
    wanted = '<assistant>add({"x": 1, "y": null})<tool>3'
    assert rendered(SHOWN, [call, answer]) == wanted
    del call["content"]
    assert rendered(SHOWN, [call, answer]) == wanted


def test_null_fields_of_messages_parts_and_calls_are_absent_but_arguments_stay_as_they_are() -> None:
    found = message(
        content=[{"type": "text", "text": "a", "image_url": None}],
        name=None,
        refusal=None,
        tool_calls=[{"id": "1", "index": None, "function": {"name": "f", "arguments": {"x": 1, "z": None}}}],
        tool_call_id=None,
    )
    assert found == {
        "role": "user",
        "content": "a",
        "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {"x": 1, "z": None}}}],
    }


@pytest.mark.parametrize("absent", [{}, {"arguments": None}, {"arguments": ""}, {"arguments": "null"}])
def test_a_call_without_arguments_has_none_to_go_through(absent: dict[str, Any]) -> None:
    call = message(tool_calls=[{"function": {"name": "f", **absent}}])["tool_calls"][0]
    assert call["function"] == {"name": "f", "arguments": {}}


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({}, "messages[0] has no content; only one with tool_calls may leave it out"),
        ({"content": None, "tool_calls": []}, "messages[0] has no content"),
        ({"content": []}, "messages[0] has no content"),
        ({"tool_call_id": "1"}, "messages[0] has no content"),
        ({"role": ""}, "messages[0].role is ''; it must be a name, such as user"),
        ({"role": " User", "content": "x"}, "messages[0].role is ' User'; did you mean 'user'?"),
        ({"role": 5, "content": "x"}, "messages[0].role is 5; it must be a text"),
        ({"name": ["x"], "content": "x"}, "messages[0].name is ['x']; it must be a text"),
        ({"tool_call_id": 7, "content": "x"}, "messages[0].tool_call_id is 7; it must be a text"),
        ({"function_call": {"name": "f"}}, "messages[0].function_call is {'name': 'f'}, which is not"),
        ({"content": "x", "audio": {"id": "1"}}, "messages[0].audio is {'id': '1'}, which is not supported"),
        ({"content": "x", "refusal": "no"}, "messages[0].refusal is 'no', which is not supported; leave"),
        ({"content": 5}, "messages[0].content is 5; it must be a text or a list of parts of type text"),
        ({"content": {"type": "text"}}, "messages[0].content is {'type': 'text'}; it must be a text"),
        (
            {"content": [TEXT, {"type": "image_url", "image_url": {"url": "x"}}]},
            "messages[0].content[1] is of type 'image_url'; only parts of type text",
        ),
        (
            {"content": [{"type": "text"}]},
            "messages[0].content[0] is {'type': 'text'}; only parts",
        ),
        ({"content": [7]}, "messages[0].content[0] is 7; only parts of type text"),
        ({"tool_calls": "f()"}, "messages[0].tool_calls is 'f()'; it must be a list of calls"),
        ({"content": "x", "tool_calls": {}}, "messages[0].tool_calls is {}; it must be a list of calls"),
        ({"tool_calls": [{"id": "1"}]}, "messages[0].tool_calls[0] is {'id': '1'}; it must have a function"),
        (
            {"tool_calls": [{"function": {"name": "f", "arguments": "x=1"}}]},
            "messages[0].tool_calls[0]'s arguments must be JSON: ",
        ),
        *(
            (
                {"tool_calls": [{"function": {"name": "f", "arguments": arguments}}]},
                f"messages[0].tool_calls[0]'s arguments are {found}; they must be an object",
            )
            for arguments, found in (("[1]", "[1]"), ('"x"', "'x'"), (5, "5"), ([("x", 1)], "[('x', 1)]"))
        ),
    ],
)
def test_what_a_template_would_write_out_as_it_stands_is_refused(fields: dict[str, Any], error: str) -> None:
    with pytest.raises(ChatTemplateError) as found:
        message(**fields)
    assert error in str(found.value)


def test_tools_are_a_list_or_json_of_one_and_reach_the_template() -> None:
    tools = [{"type": "function", "function": {"name": "add", "description": None}}]
    chat = [{"role": "user", "content": "hi"}]
    for given in (tools, json.dumps(tools)):
        assert rendered(TOOLS, chat, given) == "tools: add <user>hi"
    for nothing in (None, [], "[]", ""):
        assert rendered(TOOLS, chat, nothing) == "<user>hi"


def test_a_schema_of_a_tool_stays_as_it_is() -> None:
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"default": None}}}]
    assert template_tools(tools) == template_tools(json.dumps(tools)) == tools


@pytest.mark.parametrize("tools", ["add", '{"name": "add"}', ["add"], [None], 5, 0, False, {}, "{}", "0"])
def test_what_are_no_tools_is_refused(tools: Any) -> None:
    with pytest.raises(ChatTemplateError, match="^tools "):
        template_tools(tools)
