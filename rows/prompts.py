"""From a row's own fields to what the engine needs: token ids, settings and a seed, or an error that stays
with the row.

Knows the names of the columns; does not know files, shards or the engine's state.
"""

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from engine.config import SAMPLING_FIELDS, GenerationConfig, check_generation
from engine.request import Request, Sampling
from engine.settings import shown
from rows.text_codec import TextCodec


class RowError(ValueError):
    """What is wrong with one row: column, value and remedy."""


@dataclass(frozen=True)
class PromptColumns:
    """The columns that mean something.

    messages: a chat, used in place of the prompt when named; either: a row has one of the two.

    group: rows with the same value resemble each other.
    """

    prompt: str = "prompt"
    messages: str | None = None
    sampling: str | None = "sampling"
    either: bool = False
    group: str | None = None


@dataclass(frozen=True)
class Prompt:
    """A row ready for the engine, or its error. sampling: the row's own settings only."""

    token_ids: list[int] = field(default_factory=list)
    sampling: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    group: str = ""


class PromptReader:
    """Renders, tokenizes and checks rows. max_context: positions of the model, None = unknown."""

    def __init__(self, codec: TextCodec, columns: PromptColumns, max_context: int | None = None) -> None:
        self.codec = codec
        self.columns = columns
        self.max_context = max_context

    def read(self, rows: Sequence[Mapping[str, Any]]) -> list[Prompt]:
        """One prompt per row, in order; a bad row becomes a prompt with an error."""
        texts: dict[bool, dict[int, str]] = {
            True: {},
            False: {},
        }  # by whether a template has rendered them, then by row
        prompts: list[Prompt] = []
        for index, row in enumerate(rows):
            try:
                prompts.append(
                    Prompt(sampling=read_sampling(row, self.columns.sampling), group=self._group(row))
                )
                texts[self._is_chat(row)][index] = self._text(row)
            except RowError as error:
                prompts[index:] = [Prompt(error=str(error))]
        for encode, some in ((self.codec.encode_rendered, texts[True]), (self.codec.encode, texts[False])):
            for index, token_ids in zip(some, encode(list(some.values())), strict=True):
                prompts[index] = self._fitting(token_ids, prompts[index])
        return prompts

    def _group(self, row: Mapping[str, Any]) -> str:
        value = row.get(self.columns.group) if self.columns.group else None
        return "" if value is None else str(value)

    def _is_chat(self, row: Mapping[str, Any]) -> bool:
        return self.columns.messages is not None and not (
            self.columns.either and row.get(self.columns.messages) is None
        )

    def _text(self, row: Mapping[str, Any]) -> str:
        if self.columns.messages and self._is_chat(row):
            text = self._rendered(self.columns.messages, row.get(self.columns.messages))
        else:
            text = _plain(self.columns.prompt, row.get(self.columns.prompt))
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise RowError(
                f"the prompt is not valid Unicode: {error.reason} at position {error.start}; mend the row"
            ) from error
        return text

    def _rendered(self, column: str, messages: Any) -> str:
        shaped = isinstance(messages, list) and all(
            isinstance(m, dict) and isinstance(m.get("role"), str) for m in messages
        )
        if not shaped or not messages:
            raise RowError(
                f"column {column!r} is {shown(messages)}; it must be a list of messages, each with role and "
                "content"
            )
        try:
            return self.codec.render([_without_none(message) for message in messages])
        except Exception as error:  # a template may raise anything for messages it does not like
            raise RowError(
                f"column {column!r}: the chat template refused it: {error}; mend the messages"
            ) from error

    def _fitting(self, token_ids: list[int], prompt: Prompt) -> Prompt:
        if not token_ids:
            return Prompt(error="the prompt is empty; each row needs at least one token")
        if self.max_context is not None and len(token_ids) >= self.max_context:
            limit = f"the context is {self.max_context} and needs room for one more"
            remedy = "shorten it, or raise model.max_context if the model allows"
            return Prompt(error=f"the prompt has {len(token_ids)} tokens; {limit}: {remedy}")
        return replace(prompt, token_ids=token_ids)


def _plain(column: str, prompt: Any) -> str:
    if prompt is None:
        raise RowError(
            f"column {column!r} is missing; each row needs a prompt (input.prompt_column names its column)"
        )
    if not isinstance(prompt, str):
        raise RowError(f"column {column!r} is {shown(prompt)}; a prompt must be a string")
    return prompt


def read_sampling(row: Mapping[str, Any], column: str | None) -> dict[str, Any]:
    """A row's own settings, checked; fields that are None count as absent. Raises RowError."""
    given = row.get(column) if column else None
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise RowError(
            f"column {column!r} is {shown(given)}; it must be a struct of settings (input.sampling_column: "
            "null ignores it)"
        )
    settings = _without_none(given)
    for name in settings:
        if name not in SAMPLING_FIELDS:
            nearest = difflib.get_close_matches(name, SAMPLING_FIELDS, 1, 0)
            raise RowError(
                f"column {column!r} sets {name!r}, which is not a setting; did you mean {nearest[0]!r}?"
            )
    try:
        check_generation(settings, f"{column}.")
    except ValueError as error:
        raise RowError(str(error)) from error
    return settings


def make_request(request_id: str, prompt: Prompt, generation: GenerationConfig, seed: int) -> Request:
    """The job's settings, overridden by the row's own field by field; the row's own seed wins over the one
    derived for it.
    """
    settings = {**asdict(generation), "seed": seed, **prompt.sampling}
    return Request(
        id=request_id,
        prompt_ids=tuple(prompt.token_ids),
        max_tokens=settings["max_tokens"],
        sampling=Sampling(**{f.name: settings[f.name] for f in fields(Sampling)}),
        stop_ids=frozenset(settings["stop_token_ids"]),
        ignore_eos=settings["ignore_eos"],
        logprobs=settings["logprobs"],
        speculate=settings["speculate"] == "auto",
        group=prompt.group,
    )


def row_seed(job_seed: int, *place: str | int) -> int:
    """64 bits from the job's seed and the row's place: the same however the input is cut into shards."""
    text = "\0".join(str(part) for part in (job_seed, *place))
    return int.from_bytes(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little"
    )


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    # Parquet fills in every field of a struct; an absent one reads as None
    return {name: value for name, value in values.items() if value is not None}
