"""The columns that generation adds to a row: their names, types and values, the same in every part."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from actors.parts import Summary

if TYPE_CHECKING:
    from engine.engine import Completion

_TYPES = {
    "generated_text": pa.string(),
    "finish_reason": pa.string(),
    "num_prompt_tokens": pa.int32(),
    "num_generated_tokens": pa.int32(),
    "num_steps": pa.int32(),
    "num_verified": pa.int32(),
    "num_accepted": pa.int32(),
    "error": pa.string(),
}


@dataclass(frozen=True)
class OutputColumns:
    """Which columns are added. prefix: put before each name; generated_ids: also the token ids."""

    prefix: str = ""
    generated_ids: bool = False

    @property
    def schema(self) -> pa.Schema:
        """The added columns in their order."""
        types = {**_TYPES, "generated_ids": pa.list_(pa.int32())} if self.generated_ids else _TYPES
        return pa.schema([(self.prefix + name, type_) for name, type_ in types.items()])

    def table(self, results: "Sequence[Completion | str]", decode: Callable[[Sequence[int]], str]) -> pa.Table:
        """One row per result: a completion, or the error of a row that has none."""
        rows = [_failed(result) if isinstance(result, str) else _finished(result, decode) for result in results]
        names = [name.removeprefix(self.prefix) for name in self.schema.names]
        return pa.Table.from_pydict({self.prefix + name: [row[name] for row in rows] for name in names}, schema=self.schema)


def _finished(completion: "Completion", decode: Callable[[Sequence[int]], str]) -> dict[str, object]:
    stats = completion.stats
    return {
        "generated_text": decode(completion.token_ids),
        "finish_reason": completion.finish_reason,
        "num_prompt_tokens": stats.num_prompt_tokens,
        "num_generated_tokens": stats.num_generated_tokens,
        "num_steps": stats.num_steps,
        "num_verified": stats.num_verified,
        "num_accepted": stats.num_accepted,
        "error": None,
        "generated_ids": list(completion.token_ids),
    }


def _failed(error: str) -> dict[str, object]:
    counts = {name: 0 for name in _TYPES if name.startswith("num_")}
    return {**counts, "generated_text": None, "finish_reason": "error", "error": error, "generated_ids": None}


def summarize(results: "Sequence[Completion | str]") -> Summary:
    """The counts of one part."""
    total = Summary(num_parts=1)
    for result in results:
        if isinstance(result, str):
            total += Summary(num_rows=1, num_errors=1, first_error=result)
            continue
        stats = result.stats
        total += Summary(
            num_rows=1,
            num_prompt_tokens=stats.num_prompt_tokens,
            num_generated_tokens=stats.num_generated_tokens,
            num_steps=stats.num_steps,
            verified=stats.verified,
            accepted=stats.accepted,
        )
    return total
