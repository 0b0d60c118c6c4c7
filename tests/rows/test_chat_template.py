"""A chat goes through the model's own template; what the template does not take is said in its words."""

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
