"""Templates differ in the contents and roles that they write out; what one leaves out is an error."""

from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from rows.chat_messages import ChatTemplateError
from rows.chat_template import render_chat
from tests.serving.fakes import byte_tokenizer

TEXT = {"type": "text", "text": "a"}
PARTS = [TEXT, {"type": "text", "text": "b"}]
USER = {"role": "user", "content": "hi"}
SYSTEM = {"role": "system", "content": "s"}

ONLY_PARTS = (
    "{% for m in messages %}<{{ m.role }}>{% for part in m.content | selectattr('type', 'equalto', 'text') %}"
    "{{ part.text }}{% endfor %}{% endfor %}"
)
PARTS_IN_A_MACRO = (
    "{% macro write(content) %}{% for part in content %}{{ part.text }}{% endfor %}{% endmacro %}"
    "{% for m in messages %}<{{ m.role }}>{{ write(m.content) }}{% endfor %}"
)
EITHER = (
    "{% for m in messages %}<{{ m.role }}>{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m.content %}[{{ part.text }}]{% endfor %}{% endif %}{% endfor %}"
)
SYSTEM_AS_TEXT = (
    "{% if messages[0].role == 'system' %}({{ messages[0].content | trim }}){% set messages = messages[1:] %}"
    "{% endif %}" + EITHER
)
TOOL_AS_JSON = (
    "{% for m in messages %}<{{ m.role }}>{% if m.role == 'tool' %}{{ m.content | tojson }}"
    "{% else %}{{ m.content or m.tool_calls[0].function.name }}{% endif %}{% endfor %}"
)
FIRST_PART = (
    "{% for m in messages %}{{ m.content if m.content is string else m.content[0].text }}{% endfor %}"
)
TWO_ROLES = (
    "{% for m in messages %}{% if m.role == 'user' %}<user>{{ m.content }}"
    "{% elif m.role == 'assistant' %}<assistant>{{ m.content }}{% endif %}{% endfor %}"
)
SYSTEM_BESIDE_TOOLS = (
    "{% if tools %}{{ messages[0].content }}:{{ tools[0].function.name }}{% endif %}{% for m in messages %}"
    "{% if m.role == 'user' %}<user>{{ m.content }}{% endif %}{% endfor %}"
)
STRICT_ROLES = (
    "{% for m in messages %}{% if m.role == 'tool' %}{{ 1 / 0 }}{% endif %}{{ m.content }}{% endfor %}"
)


def rendered(template: str, *messages: dict[str, Any], tools: Any = None) -> str:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_tokenizer(), chat_template=template)
    return render_chat(tokenizer, list(messages), tools)


@pytest.mark.parametrize("template", [ONLY_PARTS, PARTS_IN_A_MACRO])
def test_a_template_that_only_takes_parts_gets_a_text_as_a_part(template: str) -> None:
    """It goes through the letters of a text, finds no part among them, and writes nothing."""
    assert rendered(template, SYSTEM, USER) == "<system>s<user>hi"
    assert rendered(template, SYSTEM, {"role": "user", "content": PARTS}) == "<system>s<user>ab"


def test_a_template_that_takes_both_gets_each_content_as_it_came() -> None:
    assert rendered(EITHER, SYSTEM, {"role": "user", "content": PARTS}) == "<system>s<user>[a][b]"


def test_parts_are_joined_for_a_role_whose_content_is_written_out_as_it_stands() -> None:
    """Llama 3.2's template goes through the parts of a user, but writes the system's out."""
    chat = [{"role": "system", "content": PARTS}, {"role": "user", "content": PARTS}]
    assert rendered(SYSTEM_AS_TEXT, *chat) == "(ab)<user>[a][b]"


def test_parts_are_joined_where_a_template_writes_them_as_json_or_takes_the_first_alone() -> None:
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}
    chat = [USER, call, {"role": "tool", "content": PARTS}]
    assert rendered(TOOL_AS_JSON, *chat) == '<user>hi<assistant>f<tool>"ab"'
    assert rendered(FIRST_PART, {"role": "user", "content": PARTS}) == "ab"


def test_fields_of_a_part_reach_a_template_that_takes_parts() -> None:
    template = (
        "{% for m in messages %}{% for p in m.content %}{{ p.text }}:{{ p.lang }}{% endfor %}{% endfor %}"
    )
    assert rendered(template, {"role": "user", "content": [{**TEXT, "lang": "de", "voice": None}]}) == "a:de"


@pytest.mark.parametrize("role", ["system", "developer", "tool", "critic"])
def test_a_role_that_the_template_leaves_out_is_an_error(role: str) -> None:
    error = f"the model's chat template leaves out messages of the role '{role}'; give them another role"
    with pytest.raises(ChatTemplateError, match=error):
        rendered(TWO_ROLES, USER, {"role": role, "content": "x"})


def test_a_role_may_have_its_place_only_in_a_chat_with_tools() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert rendered(SYSTEM_BESIDE_TOOLS, SYSTEM, USER, tools=tools) == "s:f<user>hi"
    with pytest.raises(ChatTemplateError, match="leaves out messages of the role 'system'"):
        rendered(SYSTEM_BESIDE_TOOLS, SYSTEM, USER)


def test_a_template_that_fails_on_a_role_says_so_itself() -> None:
    with pytest.raises(ChatTemplateError, match="refused the messages: division by zero"):
        rendered(STRICT_ROLES, USER, {"role": "tool", "content": "x"})


def test_calls_and_tools_that_the_template_has_no_place_for_are_errors() -> None:
    call = {"role": "assistant", "content": "x", "tool_calls": [{"function": {"name": "f"}}]}
    with pytest.raises(ChatTemplateError, match="has no place for tool_calls, those of messages.1.; leave"):
        rendered(EITHER, USER, call)
    with pytest.raises(ChatTemplateError, match="has no place for tools; leave them out"):
        rendered(EITHER, USER, tools=[{"type": "function", "function": {"name": "f"}}])
    assert rendered(EITHER, USER, {**call, "tool_calls": []}, tools=[]) == "<user>hi<assistant>x"
