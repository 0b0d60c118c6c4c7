"""The request bodies of the OpenAI API that this server takes.

Every name of OpenAI's is known: what would change the text and is not built yet is refused unless it asks for
nothing; what cannot change the text is taken and has no effect; a name that is not OpenAI's (nor an
extension) is refused.
"""

import json
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

from engine.config import SERVED_FIELDS, GenerationConfig, check_generation
from engine.settings import shown
from rows.chat_messages import prediction_text, present


def _unsupported(*harmless: Any) -> AfterValidator:
    """For a parameter that may only be absent, null or one of the values that ask for nothing."""

    def check(value: Any, info: ValidationInfo) -> Any:
        if value is not None and not any(type(value) is type(known) and value == known for known in harmless):
            allowed = f", or send {json.dumps(harmless[0])}" if harmless else ""
            raise ValueError(
                f"{info.field_name} is {shown(value)}, which this server does not support yet; "
                f"leave it out{allowed}"
            )
        return value

    return AfterValidator(check)


class StreamOptions(BaseModel):
    """What a stream carries besides text."""

    model_config = ConfigDict(extra="forbid", strict=True)
    include_usage: bool = False
    include_obfuscation: Annotated[Any, _unsupported(False)] = None


_TYPES = get_type_hints(GenerationConfig)
_SERVED: dict[str, Any] = {name: (_TYPES[name] | None, None) for name in SERVED_FIELDS}
SamplingBody: Any = create_model(
    "SamplingBody", __config__=ConfigDict(extra="forbid", strict=True, protected_namespaces=()), **_SERVED
)


class GenerationBody(SamplingBody):
    """What completions and chat have in common: the sampling settings that are served, and OpenAI's other
    fields.

    top_k, min_p, stop_token_ids, ignore_eos and speculate are extensions of OpenAI's API.
    """

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    n: Annotated[Any, _unsupported(1)] = None
    stop: Annotated[Any, _unsupported([], "")] = None
    presence_penalty: Annotated[Any, _unsupported(0, 0.0)] = None
    frequency_penalty: Annotated[Any, _unsupported(0, 0.0)] = None
    repetition_penalty: Annotated[Any, _unsupported(1, 1.0)] = None
    logit_bias: Annotated[Any, _unsupported({})] = None

    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    service_tier: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None

    @field_validator(*SERVED_FIELDS, mode="before")
    @classmethod
    def _in_range(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and info.field_name:
            check_generation({info.field_name: value})
        return value

    @field_validator("stream_options")
    @classmethod
    def _only_streamed(cls, value: StreamOptions | None, info: ValidationInfo) -> StreamOptions | None:
        if value is not None and not info.data.get("stream"):
            raise ValueError("stream_options needs stream: true; leave it out or stream")
        return value

    @property
    def include_usage(self) -> bool:
        """Whether the stream's last chunk shall count the tokens."""
        return self.stream_options is not None and self.stream_options.include_usage

    def settings(self) -> dict[str, Any]:
        """The sampling fields that the request gives itself."""
        return {name: value for name in SERVED_FIELDS if (value := getattr(self, name)) is not None}


def _as_list(value: Any) -> list[str | list[int]]:
    """One prompt or many, each a text or token ids, as a list of prompts."""
    prompts = value if isinstance(value, list) and value and not _is_ids(value) else [value]
    if not all(isinstance(prompt, str) or _is_ids(prompt) for prompt in prompts):
        raise ValueError(
            f"prompt is {shown(value)}; it must be a string, a list of token ids, or a list of such"
        )
    for text in prompts:
        if isinstance(text, str) and not text.isascii():
            text.encode()  # half a surrogate pair is no text: UnicodeEncodeError, a ValueError
    return prompts


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int for item in value)


class CompletionBody(GenerationBody):
    """POST /v1/completions."""

    prompt: Annotated[Any, AfterValidator(_as_list)]
    best_of: Annotated[Any, _unsupported(1)] = None
    echo: Annotated[Any, _unsupported(False)] = None
    logprobs: Annotated[Any, _unsupported()] = None
    suffix: Annotated[Any, _unsupported("")] = None


class Message(BaseModel):
    """One turn of a chat; rows/chat_messages.py checks contents and calls, as it does for the batch job."""

    model_config = ConfigDict(extra="forbid", strict=True)
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Any = None
    name: str | None = None
    tool_calls: Any = None
    tool_call_id: str | None = None
    annotations: Annotated[Any, _unsupported([])] = None

    @model_validator(mode="before")
    @classmethod
    def _absent_where_null(cls, fields: Any) -> Any:
        """An answer that is sent back has every field of OpenAI's, most of them null."""
        return present(fields) if isinstance(fields, dict) else fields

    def as_given(self) -> dict[str, Any]:
        """The fields that mean something to a template."""
        return self.model_dump(exclude_unset=True, exclude={"annotations"})


def _prediction(value: Any) -> str | None:
    """The text of a prediction; null is none."""
    return None if value is None else prediction_text(value, "prediction")


class ChatBody(GenerationBody):
    """POST /v1/chat/completions. prediction: the text alone."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = None
    audio: Annotated[Any, _unsupported()] = None
    function_call: Annotated[Any, _unsupported("none", "auto")] = None
    functions: Annotated[Any, _unsupported([])] = None
    logprobs: Annotated[Any, _unsupported(False)] = None
    modalities: Annotated[Any, _unsupported(["text"])] = None
    parallel_tool_calls: bool | None = None
    prediction: Annotated[Any, AfterValidator(_prediction)] = None
    reasoning_effort: Annotated[Any, _unsupported()] = None
    response_format: Annotated[Any, _unsupported({"type": "text"})] = None
    tool_choice: Annotated[Any, _unsupported("none", "auto")] = None
    tools: Annotated[Any, _unsupported([])] = None
    top_logprobs: Annotated[Any, _unsupported(0)] = None
    verbosity: Annotated[Any, _unsupported()] = None
    web_search_options: Annotated[Any, _unsupported()] = None

    @field_validator("max_completion_tokens", mode="before")
    @classmethod
    def _instead_of_max_tokens(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None:
            if type(value) is not int or value < 1:
                raise ValueError(f"max_completion_tokens is {value!r}; it must be an integer of at least 1")
            if info.data.get("max_tokens") not in (None, value):
                raise ValueError(
                    f"max_completion_tokens is {value} and max_tokens is {info.data['max_tokens']}; "
                    "send one of them"
                )
        return value

    def settings(self) -> dict[str, Any]:
        """The sampling fields; max_completion_tokens is OpenAI's newer name of max_tokens."""
        newer = {} if self.max_completion_tokens is None else {"max_tokens": self.max_completion_tokens}
        return super().settings() | newer
