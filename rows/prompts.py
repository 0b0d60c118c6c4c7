"""From a row's own fields to what the engine needs: token ids, settings and a seed, or an error of the row.

Knows the names of the columns; does not know files, shards or the engine's state.
"""

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from drafting.sampling import Sampling
from engine.config import SAMPLING_FIELDS, GenerationConfig, as_list, check_generation
from engine.prompt_length import PromptLengthError, check_prompt_length
from engine.request import Request
from engine.settings import shown
from rows.chat_messages import ChatTemplateError, present
from rows.text_codec import TextCodec
from rows.unicode import printable, unicode_fault


class RowError(ValueError):
    """What is wrong with one row: column, value and remedy."""


@dataclass(frozen=True)
class PromptColumns:
    """The columns that mean something.

    messages: the column of chats; if it is set, it is used instead of the prompt. tools: the column of the
    tools that a chat may use, where there is one. either: each row has either a prompt or messages. group:
    rows with equal values in this column resemble each other. prediction: the column of the texts that
    outputs probably become.
    """

    prompt: str = "prompt"
    messages: str | None = None
    sampling: str | None = "sampling"
    either: bool = False
    group: str | None = None
    tools: str | None = "tools"
    prediction: str | None = None


@dataclass(frozen=True)
class Prompt:
    """A row ready for the engine, or its error.

    sampling: the row's own settings only. prediction_ids: what its output probably becomes.
    """

    token_ids: list[int] = field(default_factory=list)
    sampling: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    group: str = ""
    prediction_ids: Sequence[int] = ()


class PromptReader:
    """Renders, tokenizes and checks rows. max_context: positions of the model, None = unknown."""

    def __init__(self, codec: TextCodec, columns: PromptColumns, max_context: int | None = None) -> None:
        self.codec = codec
        self.columns = columns
        self.max_context = max_context

    def read(self, rows: Sequence[Mapping[str, Any]]) -> list[Prompt]:
        """One prompt per row, in order; a bad row becomes a prompt with an error."""
        plain: dict[int, str] = {}
        rendered: dict[int, str] = {}
        predictions: dict[int, str] = {}
        prompts: list[Prompt] = []
        for index, row in enumerate(rows):
            try:
                sampling = read_sampling(row, self.columns.sampling)
                prompt = Prompt(sampling=sampling, group=self._group(row))
                text = self._text(row)
                prediction = self._prediction(row)
                (rendered if self._is_chat(row) else plain)[index] = text
                if prediction:
                    predictions[index] = prediction
            except RowError as error:
                prompt = Prompt(error=str(error))
            prompts.append(prompt)
        for encode, texts in ((self.codec.encode_rendered, rendered), (self.codec.encode, plain)):
            for index, token_ids in zip(texts, encode(list(texts.values())), strict=True):
                prompts[index] = self._with_tokens(prompts[index], token_ids)
        encoded = self.codec.encode_output(list(predictions.values()))
        for index, token_ids in zip(predictions, encoded, strict=True):
            prompts[index] = self._with_prediction(prompts[index], token_ids)
        return prompts

    def _group(self, row: Mapping[str, Any]) -> str:
        value = row.get(self.columns.group) if self.columns.group else None
        return "" if value is None else printable(str(value))

    def _is_chat(self, row: Mapping[str, Any]) -> bool:
        column = self.columns.messages
        return column is not None and not (self.columns.either and row.get(column) is None)

    def _text(self, row: Mapping[str, Any]) -> str:
        if self.columns.messages and self._is_chat(row):
            tools = row.get(self.columns.tools) if self.columns.tools else None
            return self._rendered(self.columns.messages, row.get(self.columns.messages), tools)
        return _plain(self.columns.prompt, row.get(self.columns.prompt))

    def _prediction(self, row: Mapping[str, Any]) -> str | None:
        column = self.columns.prediction
        text = row.get(column) if column else None
        if text is not None and not isinstance(text, str):
            wanted = "a prediction must be a string (input.prediction_column names its column)"
            raise RowError(f"column {column!r} is {shown(text)}; {wanted}")
        if text and (fault := unicode_fault(text)):
            raise RowError(f"the prediction is not valid Unicode: {fault}; fix the row")
        return text

    def _rendered(self, column: str, messages: Any, tools: Any) -> str:
        is_chat = isinstance(messages, list) and all(
            isinstance(message, dict) and isinstance(message.get("role"), str) for message in messages
        )
        if not is_chat or not messages:
            wanted = "it must be a list of messages, each with role and content"
            raise RowError(f"column {column!r} is {shown(messages)}; {wanted}")
        try:
            return self.codec.render(messages, tools)
        except ChatTemplateError as error:
            raise RowError(f"column {column!r}: {error}") from error

    def _with_tokens(self, prompt: Prompt, token_ids: list[int]) -> Prompt:
        try:
            check_prompt_length(len(token_ids), self.max_context)
        except PromptLengthError as error:
            return Prompt(error=str(error))
        return replace(prompt, token_ids=token_ids)

    def _with_prediction(self, prompt: Prompt, token_ids: list[int]) -> Prompt:
        if prompt.error is not None:
            return prompt
        room = None if self.max_context is None else self.max_context - len(prompt.token_ids)
        return replace(prompt, prediction_ids=token_ids[:room])


def _plain(column: str, prompt: Any) -> str:
    if prompt is None:
        remedy = "each row needs a prompt (input.prompt_column names its column)"
        raise RowError(f"column {column!r} is missing; {remedy}")
    if not isinstance(prompt, str):
        raise RowError(f"column {column!r} is {shown(prompt)}; a prompt must be a string")
    if fault := unicode_fault(prompt):
        raise RowError(f"the prompt is not valid Unicode: {fault}; fix the row")
    return prompt


def read_sampling(row: Mapping[str, Any], column: str | None) -> dict[str, Any]:
    """A row's own settings, checked; fields that are None count as absent. Raises RowError."""
    given = row.get(column) if column else None
    if given is None:
        return {}
    if not isinstance(given, dict):
        wanted = "it must be a struct of settings (input.sampling_column: null ignores it)"
        raise RowError(f"column {column!r} is {shown(given)}; {wanted}")
    settings = present(given)
    for name in settings:
        if name not in SAMPLING_FIELDS:
            nearest = difflib.get_close_matches(name, SAMPLING_FIELDS, 1, 0)[0]
            raise RowError(
                f"column {column!r} sets {name!r}, which is not a setting; did you mean {nearest!r}?"
            )
    try:
        check_generation(settings, f"{column}.")
    except ValueError as error:
        raise RowError(str(error)) from error
    return settings | {"stop": as_list(settings["stop"])} if "stop" in settings else settings


def make_request(request_id: str, prompt: Prompt, generation: GenerationConfig, seed: int) -> Request:
    """The job's settings, overridden by the row's own; `seed` counts where the row has none."""
    settings = {**asdict(generation), "seed": seed, **prompt.sampling}
    return Request(
        id=request_id,
        prompt_ids=tuple(prompt.token_ids),
        max_tokens=settings["max_tokens"],
        sampling=Sampling(**{known.name: settings[known.name] for known in fields(Sampling)}),
        stop_ids=frozenset(settings["stop_token_ids"]),
        ignore_eos=settings["ignore_eos"],
        logprobs=settings["logprobs"],
        speculate=settings["speculate"] == "auto",
        group=prompt.group,
        prediction_ids=tuple(prompt.prediction_ids),
    )


def row_seed(job_seed: int, *place: str | int) -> int:
    """64 bits from the job's seed and the row's place, however the input is cut."""
    text = "\0".join(str(part) for part in (job_seed, *place))
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")
