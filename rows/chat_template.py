"""Applies a model's chat template to messages: the one place for the batch job and the endpoint."""

from collections.abc import Mapping, Sequence
from typing import Any

from rows.chat_messages import ChatTemplateError, takes_parts, template_messages, template_tools


def render_chat(tokenizer: Any, messages: Sequence[Mapping[str, Any]], tools: Any = None) -> str:
    """The text of a chat, up to where the assistant answers. tokenizer: a Hugging Face one.

    messages and tools: as OpenAI's API or transformers has them; tools may be JSON in a string. Raises
    ChatTemplateError for what is no chat, and for what the template refuses.
    """
    if not tokenizer.chat_template:
        raise ChatTemplateError("this model has no chat template; give it plain prompts")
    known_tools = template_tools(tools)
    try:
        template: str = tokenizer.get_chat_template(tools=known_tools)
        given = template_messages(messages, takes_parts(template))
        text: str = tokenizer.apply_chat_template(
            given, tools=known_tools, tokenize=False, add_generation_prompt=True
        )
    except ChatTemplateError:
        raise
    except Exception as error:  # a template may raise anything for messages it does not like
        raise ChatTemplateError(f"the chat template refused the messages: {error}; fix them") from error
    return text
