"""JSON lines: a line is a row, whatever is in it; one that is not a JSON object is a row with an error."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.formats.lines import BadRow, decode
from pipeline.formats.nesting import check_nesting, too_deep
from pipeline.formats.text_format import TextFormat
from pipeline.schema import learn


class JsonLines(TextFormat):
    """Lines end at the byte \\n, not at other characters that Unicode calls the end of a line."""

    def __init__(self, schema_rows: int, known: Mapping[str, pa.DataType], mixed: Sequence[str]) -> None:
        """known: columns whose type does not depend on the rows; mixed: see pipeline/schema.py learn."""
        super().__init__(schema_rows)
        self.known = known
        self.mixed = mixed

    def parse(self, row: bytes, first: bool, names: Sequence[str]) -> dict[str, Any]:
        """The object of a line; raises BadRow."""
        return parse_object(row, first)

    def schema(self, rows: Iterable[Mapping[str, Any]], names: Sequence[str]) -> pa.Schema:
        """Columns and types as the rows show them."""
        return learn(rows, self.known, self.mixed)


def parse_object(line: bytes, first: bool = False) -> dict[str, Any]:
    """The JSON object of a line; raises BadRow, which becomes the error of the row."""
    text = decode(line, first)
    if not text.strip():
        raise BadRow("the line is empty; remove it or give it a JSON object")
    try:
        row = json.loads(text)
    except RecursionError as error:
        raise too_deep("the line") from error
    except ValueError as error:
        raise BadRow(f"the line is not JSON: {error}; fix the row") from error
    check_nesting(row, text, "the line")
    return as_object(row, "line")


def as_object(value: Any, what: str) -> dict[str, Any]:
    """A JSON value that is a row; raises BadRow for another one."""
    if not isinstance(value, dict):
        raise BadRow(f"the {what} is a JSON {type(value).__name__}; it must be an object with named fields")
    return value
