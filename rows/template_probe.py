"""What a chat template writes out of a message's content: seen by rendering a marked one.

Templates are programs. One takes a content as a text, another goes through its parts, a third does either, or
one for the system and the other for the user. What a template does not take it writes out as Python shows a
list, or leaves out without a word; reading a template does not tell which.
"""

import json
from functools import lru_cache
from typing import Any

from engine.settings import shown
from rows.chat_messages import ChatTemplateError, Shape

MARKS = ("qzk1x", "qzk2x")
PARTS = [{"type": "text", "text": mark} for mark in MARKS]
USER = {"role": "user", "content": "hi"}
CALL = {"id": "call00000", "type": "function", "function": {"name": "f", "arguments": {}}}
TOOL = {"type": "function", "function": {"name": "f", "description": "f", "parameters": {"type": "object"}}}
CALLS = {"role": "assistant", "content": "", "tool_calls": [CALL]}


@lru_cache(maxsize=256)
def content_shape(tokenizer: Any, template: str, role: str, has_tools: bool) -> Shape:
    """What the template takes as the content of messages of this role, in a chat with tools or without.

    Raises ChatTemplateError for a role that the template leaves out. A template that fails on these messages
    may still take others, so it counts as one that takes texts.
    """
    text = _writes(tokenizer, template, has_tools, _chat(role, "".join(MARKS)))
    parts = _writes(tokenizer, template, has_tools, _chat(role, PARTS))
    if parts:
        return Shape.EITHER if text else Shape.PARTS
    if text is False:
        left_out = f"the model's chat template leaves out messages of the role {shown(role)}"
        raise ChatTemplateError(f"{left_out}; give them another role")
    return Shape.TEXT


def _chat(role: str, content: Any) -> list[dict[str, Any]]:
    """A short chat in which a message of this role has its usual place."""
    message = {"role": role, "content": content}
    if role == "tool":
        return [USER, CALLS, {**message, "tool_call_id": CALL["id"], "name": "f"}]
    if role == "assistant":
        return [USER, message, USER]
    return [message] if role == "user" else [message, USER]


def _writes(tokenizer: Any, template: str, has_tools: bool, chat: list[dict[str, Any]]) -> bool | None:
    """Whether the marks are written out, each part by itself; None = the template fails."""
    try:
        text = tokenizer.apply_chat_template(
            chat,
            tools=[TOOL] if has_tools else None,
            chat_template=template,
            tokenize=False,
            add_generation_prompt=True,
        )
    except Exception:  # a template may raise anything
        return None
    as_they_stand = [write(part) for part in PARTS for write in (str, json.dumps)]
    return all(mark in text for mark in MARKS) and not any(part in text for part in as_they_stand)
