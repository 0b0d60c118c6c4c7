"""Applies a model's chat template to messages: the one place for the batch job and the endpoint."""

from collections.abc import Mapping, Sequence
from typing import Any


class ChatTemplateError(ValueError):
    """The messages are no chat, or the model's template does not take them."""


def render_chat(tokenizer: Any, messages: Sequence[Mapping[str, Any]]) -> str:
    """The text of a chat, up to where the assistant answers. tokenizer: a Hugging Face one.

    Raises ChatTemplateError for what is no chat, and for what the template refuses.
    """
    if not tokenizer.chat_template:
        raise ChatTemplateError("this model has no chat template; give it plain prompts")
    try:
        text: str = tokenizer.apply_chat_template(
            [dict(message) for message in messages], tokenize=False, add_generation_prompt=True
        )
    except Exception as error:  # a template may raise anything for messages it does not like
        raise ChatTemplateError(f"the chat template refused the messages: {error}; fix them") from error
    return text
