"""JSON lines: a line is a row, whatever is in it; one that is not a JSON object is a row with an error."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.formats.lines import BadRow, NewlineSplitter, Splitter, decode
from pipeline.schema import learn


@dataclass(frozen=True)
class JsonLines:
    """known: columns whose type does not depend on the rows."""

    known: Mapping[str, pa.DataType] = field(default_factory=dict)
    has_header = False

    def columns(self, header: bytes) -> list[str]:
        """None need to be known."""
        return []

    def splitter(self) -> Splitter:
        """Lines end at the byte \\n, not at other characters that Unicode calls a line's end."""
        return NewlineSplitter()

    def parse(self, row: bytes, first: bool, names: Sequence[str]) -> dict[str, Any]:
        """The object of a line; raises BadRow."""
        return parse_object(row, first)

    def schema(self, rows: Iterable[Mapping[str, Any]], names: Sequence[str]) -> pa.Schema:
        """Columns and types as the rows show them."""
        return learn(rows, self.known)


def parse_object(line: bytes, first: bool = False) -> dict[str, Any]:
    """The JSON object of a line; raises BadRow."""
    text = decode(line, first)
    if not text.strip():
        raise BadRow("the line is empty; remove it or give it a JSON object")
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRow(f"the line is not JSON: {error}; fix the row") from error
    if not isinstance(row, dict):
        raise BadRow(f"the line is a JSON {type(row).__name__}; it must be an object with named fields")
    return row
