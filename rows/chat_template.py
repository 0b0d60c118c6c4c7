"""Applies a model's chat template to messages: the one place for the batch job and the endpoint."""

from collections.abc import Mapping, Sequence
from typing import Any

from rows.chat_messages import ChatTemplateError, Shape, template_messages, template_tools
from rows.template_probe import content_shape
from rows.unicode import printable, unicode_fault


def render_chat(tokenizer: Any, messages: Sequence[Mapping[str, Any]], tools: Any = None) -> str:
    """The text of a chat, up to where the assistant answers. tokenizer: a Hugging Face one.

    messages and tools: as OpenAI's API or transformers has them; tools may be JSON in a string. Raises
    ChatTemplateError for what is no chat, and for what the template refuses or would leave out.
    """
    if not tokenizer.chat_template:
        raise ChatTemplateError("this model has no chat template; give it plain prompts")
    try:
        text = _render(tokenizer, messages, tools)
    except ChatTemplateError:
        raise
    except Exception as error:  # a template may raise anything for messages it does not like
        refused = f"the chat template refused the messages: {error}; fix them"
        raise ChatTemplateError(printable(refused)) from error
    if fault := unicode_fault(text):
        raise ChatTemplateError(f"the chat is not valid Unicode: {fault}; fix the messages")
    return text


def _render(tokenizer: Any, messages: Sequence[Mapping[str, Any]], tools: Any) -> str:
    known_tools = template_tools(tools)
    template: str = tokenizer.get_chat_template(tools=known_tools)

    def shape_of(role: str) -> Shape:
        return content_shape(tokenizer, template, role, known_tools is not None)

    given = template_messages(messages, shape_of)
    _check_places(template, given, known_tools)
    text: str = tokenizer.apply_chat_template(
        given, tools=known_tools, chat_template=template, tokenize=False, add_generation_prompt=True
    )
    return text


def _check_places(template: str, messages: Sequence[Mapping[str, Any]], tools: Any) -> None:
    """Raises ChatTemplateError for calls and tools, which a template that does not name them leaves out."""
    lacks = "the model's chat template has no place for"
    if tools and "tools" not in template:
        raise ChatTemplateError(f"{lacks} tools; leave them out (input.tools_column: null)")
    callers = [index for index, message in enumerate(messages) if "tool_calls" in message]
    if callers and "tool_calls" not in template:
        raise ChatTemplateError(f"{lacks} tool_calls, those of messages[{callers[0]}]; leave them out")
