"""CSV as in RFC 4180: a quoted field may hold newlines, and all values are strings.

The first row names the columns.

A field is quoted when it begins with a quote and its closing quote stands before a comma or the row's end.
Where that is not so, the quote is a plain character: the row ends at its newline and gets an error, and the
rows behind it are unharmed.
"""

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.formats.lines import BadRow, NewlineSplitter, Splitter, decode
from pipeline.schema import learn

MAX_FIELD = 16 << 20  # bytes of a quoted field; a quote that closes later is no closing quote
csv.field_size_limit(MAX_FIELD)
# A newline outside quotes, a quoted field, or (group 1) one that the text so far leaves open
_TOKEN = re.compile(rb'\n|(?<=[,\n])"[^"]*+(?:""[^"]*+)*+(?:"(?=[,\n]|\r\n)|("?\r?)\Z)')


class QuoteSplitter:
    """Rows end at the byte \\n outside of quoted fields."""

    def __init__(self) -> None:
        self.plain = NewlineSplitter()
        # what is not decided yet, and one byte before it, by which the first field is known to begin
        self.buffer = b"\n"
        self.offset = -1  # of the buffer in the stream

    def feed(self, chunk: bytes) -> np.ndarray:
        """The newlines that are known to stand outside of quotes."""
        if len(self.buffer) == 1 and b'"' not in chunk:  # nothing open and no quotes: many times faster
            self.plain.offset = self.offset + 1
            self.offset = self.offset + len(chunk)
            self.buffer = chunk[-1:] or self.buffer
            return self.plain.feed(chunk)
        self.buffer += chunk
        return self._decide(final=False)

    def finish(self) -> np.ndarray:
        """Those behind a quote that is never closed."""
        return self._decide(final=True)

    def _decide(self, final: bool) -> np.ndarray:
        ends = []
        place = 1
        while match := _TOKEN.search(self.buffer, place):
            start, place = match.span()
            if (
                place - start == 1 and match.group(1) is None
            ):  # a newline: a quoted field has two bytes at least
                ends.append(self.offset + place)
            elif match.group(1) is not None and not final and place - start <= MAX_FIELD:
                place = start
                break
            elif place - start > MAX_FIELD or not (match.group(1) is None or match.group(1).startswith(b'"')):
                place = start + 1
        else:
            place = len(self.buffer)
        self.offset = self.offset + place - 1
        self.buffer = self.buffer[place - 1 :]
        return np.array(ends, np.int64)


@dataclass(frozen=True)
class CsvRows:
    """known: columns whose type is not string; they and json hold JSON in their cells.

    names: of files without a header.
    """

    known: Mapping[str, pa.DataType] = field(default_factory=dict)
    json: Sequence[str] = ()
    names: Sequence[str] | None = None

    @property
    def has_header(self) -> bool:
        """Whether the first row names the columns."""
        return self.names is None

    def columns(self, header: bytes) -> list[str]:
        """The names that a file's first row gives, or those of the settings; raises BadRow."""
        return list(self.names or parse_fields(header, first=True))

    def splitter(self) -> Splitter:
        """Rows end at newlines outside of quotes."""
        return QuoteSplitter()

    def parse(self, row: bytes, first: bool, names: Sequence[str]) -> dict[str, Any]:
        """The values of a row by column, strings but for the cells that hold JSON; raises BadRow."""
        values = parse_fields(row, first)
        if len(values) != len(names):
            raise BadRow(
                f"the row has {len(values)} fields, but there are {len(names)} columns; "
                "fix its commas and quotes"
            )
        cells = dict(zip(names, values, strict=True))
        return {name: _from_json(name, cell) if name in self.json else cell for name, cell in cells.items()}

    def schema(self, rows: Iterable[Mapping[str, Any]], names: Sequence[str]) -> pa.Schema:
        """Strings, whatever the values look like, so that 007 stays 007 and no file differs from another."""
        found = learn(({name: row.get(name) for name in self.json} for row in rows), self.known)
        types = {name: found.field(name).type for name in self.json if name in found.names}
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
        return json.loads(cell)
    except (ValueError, RecursionError) as error:
        raise BadRow(f"column {name!r} must hold JSON: {error}; fix the row") from error
