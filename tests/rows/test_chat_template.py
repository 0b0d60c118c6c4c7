"""A chat goes through the model's own template; what the template does not take is said in its words."""

from typing import Any

import pytest

from rows.chat_messages import ChatTemplateError
from rows.chat_template import render_chat
from tests.serving.fakes import ByteCodec

USER = {"role": "user", "content": "hi"}


def test_a_chat_ends_where_the_assistant_answers() -> None:
    assert render_chat(ByteCodec().tokenizer, [USER]) == "<user>hi<assistant>"


def test_what_the_template_refuses_is_refused_in_its_words() -> None:
    with pytest.raises(ChatTemplateError, match="refused the messages: system comes first; fix them"):
        render_chat(ByteCodec().tokenizer, [USER, {"role": "system", "content": "x"}])


def test_a_model_without_a_template_takes_no_chat() -> None:
    with pytest.raises(ChatTemplateError, match="no chat template; give it plain prompts"):
        render_chat(ByteCodec(chat_template=None).tokenizer, [USER])


def test_whatever_a_template_raises_is_an_error_of_the_chat() -> None:
    for template, error in (
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages[0].x.y }}", "'dict object' has no attribute 'x'"),
        ("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "maximum recursion depth exceeded"),
        ("{% for broken", "unexpected end of template"),
    ):
        with pytest.raises(ChatTemplateError, match=f"the chat template refused the messages: {error}"):
            render_chat(ByteCodec(template).tokenizer, [USER])


def test_a_chat_that_is_no_unicode_is_refused_and_the_error_itself_can_be_written() -> None:
    half = {"role": "user", "content": "a\ud800"}
    with pytest.raises(
        ChatTemplateError, match="not valid Unicode: surrogates not allowed at position 7; fix"
    ):
        render_chat(ByteCodec().tokenizer, [half])
    raises = ByteCodec("{{ raise_exception('no ' + messages[0].content) }}")
    with pytest.raises(ChatTemplateError) as found:
        render_chat(raises.tokenizer, [half])
    assert str(found.value) == "the chat template refused the messages: no a\\ud800; fix them"


def test_tools_and_contents_without_end_are_errors_of_the_chat() -> None:
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"a": deep}
    for chat, tools in (([USER], [deep]), ([{"role": "user", "content": deep}], None)):
        with pytest.raises(ChatTemplateError):
            render_chat(ByteCodec("{{ tools | tojson }}").tokenizer, chat, tools)
