"""Which text format is which, and what all of them can do.

Parquet is none of these: its files say themselves where rows are.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from pipeline.config import InputConfig
from pipeline.formats.csv import CsvRows
from pipeline.formats.jsonl import JsonLines
from pipeline.formats.lines import Splitter
from pipeline.formats.openai_batch import OpenAIBatch
from pipeline.formats.plain_text import TextLines
from pipeline.schema import SAMPLING_TYPE
from rows.prompts import PromptColumns


class TextFormat(Protocol):
    """A format whose files are text. names: what `columns` gave."""

    @property
    def has_header(self) -> bool:
        """Whether the first row names the columns."""
        ...

    def columns(self, header: bytes) -> list[str]:
        """The names of the columns, where rows do not bring them. Raises BadRow."""
        ...

    def splitter(self) -> Splitter:
        """What finds the ends of rows."""
        ...

    def parse(self, row: bytes, first: bool, names: Sequence[str]) -> dict[str, Any]:
        """The columns of a row; first: of its file. Raises BadRow."""
        ...

    def schema(self, rows: Iterable[Mapping[str, Any]], names: Sequence[str]) -> pa.Schema:
        """The columns and types of a file that begins with these rows."""
        ...


def text_format(name: str, config: InputConfig) -> TextFormat:
    """The format of this name, as the settings want it."""
    sampling = {config.sampling_column: SAMPLING_TYPE} if config.sampling_column else {}
    if name == "jsonl":
        return JsonLines(
            sampling if config.messages_column else {config.prompt_column: pa.string(), **sampling}
        )
    if name == "csv":
        return CsvRows(
            sampling,
            [column for column in (config.messages_column, config.sampling_column) if column],
            config.csv_columns,
        )
    if name == "text":
        return TextLines(config.prompt_column)
    assert name == "openai_batch", name
    return OpenAIBatch()


def prompt_columns(config: InputConfig) -> PromptColumns:
    """The columns that mean something."""
    if config.format == "openai_batch":
        return PromptColumns("prompt", "messages", "sampling", either=True, group=config.group_column)
    return PromptColumns(
        config.prompt_column, config.messages_column, config.sampling_column, group=config.group_column
    )
