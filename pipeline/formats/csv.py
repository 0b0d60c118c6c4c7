"""CSV as in RFC 4180: a quoted field may hold newlines, and all values are strings.

The first row names the columns.

Where rows end follows from the number of quotes before a newline: it is even outside of quoted fields. So a
quote that neither opens a field, nor closes one, nor is doubled would move the ends of all rows after it:
such a file is refused when it is planned, with the line of the quote.
"""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.formats.lines import BadFile, BadRow, Splitter, decode
from pipeline.formats.nesting import check_nesting, too_deep
from pipeline.formats.text_format import TextFormat
from pipeline.schema import learn

csv.field_size_limit(16 << 20)  # bytes of a field; a longer one is an error of its row
QUOTE = ord('"')
NEWLINE = ord("\n")
COMMA = ord(",")


class QuoteSplitter:
    """Rows end at the byte \\n outside of quoted fields. Raises BadFile for unbalanced quotes."""

    def __init__(self) -> None:
        self.offset = 0  # of the chunk in the stream
        self.num_newlines = 0  # before the chunk
        self.is_open = False  # whether the chunk begins inside of a quoted field
        self.last = b"\n"  # the byte before the chunk
        self.open_line = 0  # the line of the latest quote that opens a field

    def feed(self, chunk: bytes) -> np.ndarray:
        """The newlines of the chunk that stand outside of quotes."""
        text = np.frombuffer(chunk, np.uint8)
        newlines = np.flatnonzero(text == NEWLINE)
        quotes = np.flatnonzero(text == QUOTE)
        if len(quotes):
            self._check_opening(np.frombuffer(self.last + chunk, np.uint8), quotes, newlines)
        outside = newlines
        if len(quotes) or self.is_open:
            num_before = np.searchsorted(quotes, newlines) + self.is_open
            outside = newlines[num_before % 2 == 0]
        ends = outside + (self.offset + 1)
        self.is_open ^= len(quotes) % 2 == 1
        self.num_newlines += len(newlines)
        self.offset += len(chunk)
        self.last = chunk[-1:] or self.last
        return ends

    def _check_opening(self, text: np.ndarray, quotes: np.ndarray, newlines: np.ndarray) -> None:
        """Every second quote opens a field or doubles the one before it.

        text: with the byte before the chunk.
        """
        opening = quotes[int(self.is_open) :: 2]
        if not len(opening):
            return
        before = text[opening]  # the byte before each of them
        is_fine = (before == COMMA) | (before == NEWLINE) | (before == QUOTE)
        if self.offset == 0 and opening[0] == 3 and bytes(text[1:4]) == b"\xef\xbb\xbf":
            is_fine[0] = True  # a byte order mark comes first
        if not is_fine.all():
            self._refuse(self._line_of(opening[np.argmin(is_fine)], newlines))
        self.open_line = self._line_of(opening[-1], newlines)

    def _line_of(self, place: int, newlines: np.ndarray) -> int:
        return self.num_newlines + int(np.searchsorted(newlines, place)) + 1

    def _refuse(self, line: int) -> None:
        remedy = "put the field in quotes and double each quote inside, or close the quote"
        raise BadFile(f"line {line:,} has a quote that neither opens nor closes a field; {remedy}")

    def finish(self) -> np.ndarray:
        """Nothing: a newline is never in doubt. Raises BadFile for a quote that is never closed."""
        if self.is_open:
            self._refuse(self.open_line)
        return np.empty(0, np.int64)


class CsvRows(TextFormat):
    """Rows of comma-separated values."""

    def __init__(
        self,
        schema_rows: int,
        known: Mapping[str, pa.DataType],
        json_columns: Sequence[str] = (),
        names: Sequence[str] | None = None,
    ) -> None:
        """known: columns whose type is not string.

        json_columns: columns whose cells hold JSON. names: the column names of files without a header.
        """
        super().__init__(schema_rows)
        self.known = known
        self.json_columns = self.mixed = json_columns
        self.names = names
        self.has_header = names is None

    def columns(self, header: bytes) -> list[str]:
        """The names that a file's first row gives, or those of the settings; raises BadRow."""
        return list(self.names or parse_fields(header, first=True))

    def splitter(self) -> Splitter:
        """Rows end at newlines outside of quotes."""
        return QuoteSplitter()

    def parse(self, row: bytes, first: bool, names: Sequence[str]) -> dict[str, Any]:
        """The values of a row by column, strings except for the cells that hold JSON; raises BadRow."""
        values = parse_fields(row, first)
        if len(values) != len(names):
            fields = f"{len(values)} fields, but there are {len(names)} columns"
            raise BadRow(f"the row has {fields}; fix its commas and quotes")
        cells = dict(zip(names, values, strict=True))
        for name in self.json_columns:
            if name in cells:
                cells[name] = _from_json(name, cells[name])
        return cells

    def schema(self, rows: Iterable[Mapping[str, Any]], names: Sequence[str]) -> pa.Schema:
        """Strings, whatever the values look like, so that 007 stays 007 and no file differs from another."""
        cells = ({name: row.get(name) for name in self.json_columns} for row in rows)
        found = learn(cells, self.known, self.mixed)
        types = {name: found.field(name).type for name in self.json_columns if name in found.names}
        return pa.schema([(name, self.known.get(name) or types.get(name, pa.string())) for name in names])


def parse_fields(row: bytes, first: bool) -> list[str]:
    """The fields of a row; raises BadRow."""
    text = decode(row, first).removesuffix("\r")
    if not text:
        raise BadRow("the line is empty; remove it or give it fields")
    try:
        (fields,) = csv.reader([text], strict=True)
    except (csv.Error, ValueError) as error:  # ValueError: more rows than one
        raise BadRow(f"the row is not CSV: {error}; fix its quotes") from error
    return fields


def _from_json(name: str, cell: str) -> Any:
    if not cell:
        return None
    try:
        value = json.loads(cell)
    except RecursionError as error:
        raise too_deep(f"column {name!r}") from error
    except ValueError as error:
        raise BadRow(f"column {name!r} must hold JSON: {error}; fix the row") from error
    check_nesting(value, cell, f"column {name!r}")
    return value
