"""Plain text: every line is a prompt, an empty one too, so that row n is line n."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.formats.lines import BadRow, decode
from pipeline.formats.text_format import TextFormat


class PlainText(TextFormat):
    """A column of strings; an empty line is a row with an error."""

    def __init__(self, schema_rows: int, column: str) -> None:
        """column: what the lines are called."""
        super().__init__(schema_rows)
        self.column = column

    def parse(self, row: bytes, first: bool, names: Sequence[str]) -> dict[str, Any]:
        """The line, without the carriage return that Windows ends it with; raises BadRow."""
        text = decode(row, first).removesuffix("\r")
        if not text.strip():
            raise BadRow("the line is empty; remove it or give it a prompt")
        return {self.column: text}

    def schema(self, rows: Iterable[Mapping[str, Any]], names: Sequence[str]) -> pa.Schema:
        """One column of strings."""
        return pa.schema([(self.column, pa.string())])
