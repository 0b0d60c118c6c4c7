"""Plain text: every line is a prompt, empty ones too, so that row n is line n.

An empty line is a row with an error.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.formats.lines import BadRow, NewlineSplitter, Splitter, decode


@dataclass(frozen=True)
class TextLines:
    """column: what the lines are called."""

    column: str
    has_header = False

    def columns(self, header: bytes) -> list[str]:
        """None need to be known."""
        return []

    def splitter(self) -> Splitter:
        """Lines end at the byte \\n."""
        return NewlineSplitter()

    def parse(self, row: bytes, first: bool, names: Sequence[str]) -> dict[str, Any]:
        """The line, without the carriage return that Windows ends it with; raises BadRow."""
        text = decode(row, first).removesuffix("\r")
        if not text.strip():
            raise BadRow("the line is empty; remove it or give it a prompt")
        return {self.column: text}

    def schema(self, rows: Iterable[Mapping[str, Any]], names: Sequence[str]) -> pa.Schema:
        """One column of strings."""
        return pa.schema([(self.column, pa.string())])
