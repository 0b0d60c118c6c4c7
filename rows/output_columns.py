"""The columns that generation adds to a row: their names, types and values, the same in every part."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.config import GenerationConfig
from engine.request import Completion
from rows.parts import PartSummary
from rows.stop_strings import StopStrings

_TYPES = {
    "generated_text": pa.string(),
    "finish_reason": pa.string(),
    "num_prompt_tokens": pa.int32(),
    "num_generated_tokens": pa.int32(),
    "num_steps": pa.int32(),
    "num_verified": pa.int32(),
    "num_accepted": pa.int32(),
    "accepted_by_source": pa.map_(pa.string(), pa.int32()),
    "error": pa.string(),
}
_IDS = pa.list_(pa.int32())
_LIKELY = pa.struct([("token_id", pa.int32()), ("logprob", pa.float32())])
_LOGPROBS = pa.list_(pa.struct([*_LIKELY, ("top", pa.list_(_LIKELY))]))


# The text of token ids after a context (rows/text_codec.py TextCodec.decode).
Decode = Callable[[Sequence[int], Sequence[int]], str]


@dataclass(frozen=True)
class Generated:
    """What a row gave.

    completions: those decoded, one for all samples of a greedy row; stops: what its texts are cut at;
    context: the end of its prompt, after which they are decoded.
    """

    completions: Sequence[Completion]
    num_samples: int = 1
    stops: StopStrings | None = None
    context: Sequence[int] = ()

    def text(self, completion: Completion, decode: Decode) -> str:
        """A completion's text, cut at the stop string that ended it.

        The text of a completion that ended otherwise holds no stop string.
        """
        text = decode(completion.token_ids, self.context)
        return self.stops.cut(text) if self.stops else text

    def total(self, count: str) -> int:
        """One of the counts of SequenceStats, summed over what was decoded."""
        return sum(getattr(completion.stats, count) for completion in self.completions)

    @property
    def accepted(self) -> dict[str, int]:
        """Accepted nodes by source, summed over the samples."""
        return dict(sum((Counter(completion.stats.accepted) for completion in self.completions), Counter()))


@dataclass(frozen=True)
class OutputColumns:
    """Which columns are added. prefix: put before each name; the others: optional columns of these names."""

    prefix: str = ""
    generated_ids: bool = False
    samples: bool = False
    logprobs: bool = False

    @staticmethod
    def of(
        generation: GenerationConfig, prefix: str, generated_ids: bool, samples: bool, logprobs: bool
    ) -> "OutputColumns":
        """The columns of a job. What its generation settings ask for gets a column, even if that column is
        not asked for separately.
        """
        return OutputColumns(
            prefix, generated_ids, samples or generation.n > 1, logprobs or generation.logprobs is not None
        )

    def check(self, settings: Mapping[str, Any]) -> None:
        """Raises ValueError for a row's settings that give something for which there is no column."""
        wanted = {
            "samples": ("n", settings["n"] > 1),
            "logprobs": ("logprobs", settings["logprobs"] is not None),
        }
        for column, (name, asked) in wanted.items():
            if asked and not getattr(self, column):
                remedy = (
                    f"set output.{column}: true for the job ({column}_column=True for Generate), or "
                    f"leave {name} out of the row"
                )
                raise ValueError(
                    f"{name} is {settings[name]}, but the output has no column {column!r}; {remedy}"
                )

    @property
    def schema(self) -> pa.Schema:
        """The added columns in their order."""
        types = {**_TYPES, **self._optional}
        if self.samples:
            sample = {
                "text": pa.string(),
                "finish_reason": pa.string(),
                "num_generated_tokens": pa.int32(),
                **self._optional,
            }
            types["samples"] = pa.list_(pa.struct(list(sample.items())))
        return pa.schema([(self.prefix + name, type_) for name, type_ in types.items()])

    @property
    def _optional(self) -> dict[str, pa.DataType]:
        """What a sample has besides its text, where it is wanted."""
        return ({"generated_ids": _IDS} if self.generated_ids else {}) | (
            {"logprobs": _LOGPROBS} if self.logprobs else {}
        )

    def table(self, results: Sequence[Generated | str], decode: Decode) -> pa.Table:
        """One row per result: what it gave, or the error of a row that gave nothing."""
        done = [None if isinstance(result, str) else result for result in results]
        completions = self._completions([row for row in done if row], decode)
        places = np.cumsum([0, *(len(row.completions) if row else 0 for row in done)]).tolist()
        first = pa.array(
            [place if row else None for row, place in zip(done, places, strict=False)], pa.int64()
        )
        columns = {name: column.take(first) for name, column in completions.items()}
        columns["generated_text"] = columns.pop("text")
        columns["finish_reason"] = pc.fill_null(columns["finish_reason"], "error")
        columns["num_prompt_tokens"] = [
            row.completions[0].stats.num_prompt_tokens if row else 0 for row in done
        ]
        for name in ("num_generated_tokens", "num_steps", "num_verified", "num_accepted"):
            columns[name] = [row.total(name) if row else 0 for row in done]
        columns["accepted_by_source"] = [sorted(row.accepted.items()) if row else [] for row in done]
        columns["error"] = [result if isinstance(result, str) else None for result in results]
        if self.samples:
            columns["samples"] = _samples(completions, done, places)
        names = [name.removeprefix(self.prefix) for name in self.schema.names]
        return pa.Table.from_pydict({self.prefix + name: columns[name] for name in names}, schema=self.schema)

    def _completions(self, rows: Sequence[Generated], decode: Decode) -> dict[str, pa.Array]:
        """What samples have, a value for each completion of all rows."""
        completions = [completion for row in rows for completion in row.completions]
        columns = {
            "text": pa.array(
                [row.text(completion, decode) for row in rows for completion in row.completions], pa.string()
            ),
            "finish_reason": pa.array([completion.finish_reason for completion in completions], pa.string()),
            "num_generated_tokens": pa.array(
                [completion.stats.num_generated_tokens for completion in completions], pa.int32()
            ),
        }
        if self.generated_ids:
            columns["generated_ids"] = pa.array([completion.token_ids for completion in completions], _IDS)
        if self.logprobs:
            columns["logprobs"] = _logprobs(completions)
        return columns


def _samples(
    completions: dict[str, pa.Array], rows: Sequence[Generated | None], places: Sequence[int]
) -> pa.Array:
    """Lists of samples; a greedy row's one completion is each of its samples."""
    indices: list[int] = []
    counts: list[int | None] = []
    for row, place in zip(rows, places, strict=False):
        counts.append(row.num_samples if row else None)
        if row:
            indices += [place + number % len(row.completions) for number in range(row.num_samples)]
    structs = pa.StructArray.from_arrays(list(completions.values()), list(completions))
    return _lists(counts, structs.take(pa.array(indices, pa.int64())))


def _logprobs(completions: Sequence[Completion]) -> pa.Array:
    """Lists of a token's id, its log-probability and the likeliest tokens'; null for a completion without."""
    found = [
        (completion.token_ids, completion.logprobs)
        for completion in completions
        if completion.logprobs is not None
    ]
    empty = [np.zeros(0, np.int32)]
    ids = np.concatenate(empty + [np.array(token_ids, np.int32) for token_ids, _ in found])
    chosen = np.concatenate([np.zeros(0, np.float32)] + [part.chosen for _, part in found])
    top_ids = np.concatenate(empty + [part.top_ids.ravel() for _, part in found])
    top = np.concatenate([np.zeros(0, np.float32)] + [part.top.ravel() for _, part in found])
    likely = pa.StructArray.from_arrays([pa.array(top_ids), pa.array(top)], fields=list(_LIKELY))
    num_top = [part.top.shape[1] for _, part in found for _ in range(len(part.chosen))]
    tokens = pa.StructArray.from_arrays(
        [pa.array(ids), pa.array(chosen), _lists(num_top, likely)], fields=list(_LOGPROBS.value_type)
    )
    return _lists(
        [None if completion.logprobs is None else len(completion.token_ids) for completion in completions],
        tokens,
    )


def _lists(counts: Sequence[int | None], values: pa.Array) -> pa.Array:
    """The values cut into lists of these lengths; None = a null in place of a list."""
    offsets = np.cumsum([0, *(count or 0 for count in counts)])
    absent = np.array([*(count is None for count in counts), False])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32(), mask=absent), values)


def summarize(results: Sequence[Generated | str]) -> PartSummary:
    """The counts of one part."""
    total = PartSummary(num_parts=1)
    for result in results:
        if isinstance(result, str):
            total += PartSummary(num_rows=1, num_errors=1, first_error=result)
            continue
        total += PartSummary(num_rows=1, num_prompt_tokens=result.completions[0].stats.num_prompt_tokens)
        for completion in result.completions:
            stats = completion.stats
            total += PartSummary(
                num_cached_tokens=stats.num_cached_tokens,
                num_prefilled_tokens=stats.num_prompt_tokens - stats.num_cached_tokens,
                num_generated_tokens=stats.num_generated_tokens,
                num_steps=stats.num_steps,
                verified=stats.verified,
                accepted=stats.accepted,
            )
    return total
