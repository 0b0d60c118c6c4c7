"""Reads the rows of a piece of the plan: what is carried of them, what makes their prompts, and what is wrong
with them.

Pieces come in the plan's order. What they share is read once: row groups of Parquet, and a compressed file,
which can only be read from the front.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.config import InputConfig
from pipeline.formats.compressed import open_text
from pipeline.formats.lines import BadRow, split
from pipeline.formats.parquet import read_groups
from pipeline.formats.registry import prompt_columns, text_format
from pipeline.schema import fit_rows
from rows.prompts import Prompt
from rows.storage import first_line, locate


@dataclass(frozen=True)
class Rows:
    """rows: the columns that make prompts, at least; errors, misfits: for each row, None = nothing; places:
    byte offsets or row numbers.
    """

    carried: pa.Table
    rows: Sequence[Mapping[str, Any]]
    errors: Sequence[str | None]
    misfits: Sequence[str | None]
    places: Sequence[int]

    def with_errors(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """The prompts of these rows; a row that cannot be read says so, and only then what its
        prompt lacks.
        """
        told = zip(prompts, self.errors, self.misfits, strict=True)
        return [
            Prompt(error=error or prompt.error or misfit) if error or misfit else prompt
            for prompt, error, misfit in told
        ]

    def first(self, count: int) -> "Rows":
        """The first of these rows."""
        return Rows(
            self.carried.slice(0, count),
            self.rows[:count],
            self.errors[:count],
            self.misfits[:count],
            self.places[:count],
        )


class PieceReader:
    """schema: of the whole input; carried: the columns kept; strict: they are all there are."""

    def __init__(self, source: InputConfig, schema: pa.Schema, carried: pa.Schema, strict: bool) -> None:
        self.source = source
        self.schema = schema
        self.carried = carried
        self.strict = strict
        self.special = [
            name
            for name in vars(prompt_columns(source)).values()
            if isinstance(name, str) and name in schema.names
        ]
        self._groups: tuple[Any, tuple[pa.Table, list[str | None]]] | None = None  # row groups read last
        self._stream: Any = None  # compressed text, open at _offset
        self._path = ""
        self._offset = 0

    def read(self, piece: Mapping[str, Any]) -> Rows:
        """The rows of a piece; raises ValueError, naming the file, where it cannot be read."""
        try:
            return self._read_parquet(piece) if piece["format"] == "parquet" else self._read_text(piece)
        except (OSError, pa.ArrowInvalid) as error:
            place = f"rows {piece['first_row']:,} to {piece['first_row'] + piece['num_rows'] - 1:,}"
            raise ValueError(
                f"{piece['path']} cannot be read at {place}: {first_line(error)}; write the file again"
            ) from error

    def _read_text(self, piece: Mapping[str, Any]) -> Rows:
        format_ = text_format(piece["format"], self.source)
        places = []
        rows = []
        errors = []
        for offset, line in split(self._text(piece), format_.splitter()):
            places.append(piece["first_byte"] + offset)
            try:
                row = format_.parse(line, places[-1] == 0, piece["names"])
                error = None
            except BadRow as bad:
                row = bad.row
                error = str(bad)
            rows.append(row)
            errors.append(error)
        carried, misfits = fit_rows(rows, self.carried, self.strict)
        return Rows(carried, rows, errors, misfits, places)

    def _text(self, piece: Mapping[str, Any]) -> bytes:
        if not piece["compression"]:
            filesystem, inner = locate(piece["path"])
            with filesystem.open_input_file(inner) as file:
                return file.read_at(piece["num_bytes"], piece["first_byte"])
        if self._path != piece["path"] or self._offset > piece["first_byte"]:
            self._stream = open_text(piece["path"], piece["compression"])
            self._path = piece["path"]
            self._offset = 0
        while self._offset < piece["first_byte"]:  # the header, or shards that are done already
            skipped = self._stream.read(min(1 << 20, piece["first_byte"] - self._offset))
            if not skipped:
                break
            self._offset += len(skipped)
        data = self._stream.read(piece["num_bytes"])
        self._offset += len(data)
        return data

    def _read_parquet(self, piece: Mapping[str, Any]) -> Rows:
        key = (piece["path"], piece["row_groups"])
        if self._groups is None or self._groups[0] != key:
            names = [*self.carried.names, *(name for name in self.special if name not in self.carried.names)]
            self._groups = key, read_groups(piece["path"], piece["row_groups"], names, self.schema)
        unit, misfits = self._groups[1]
        first = piece["skip_rows"]
        end = piece["skip_rows"] + piece["num_rows"]
        table = unit.slice(first, piece["num_rows"])
        places = range(piece["first_row"], piece["first_row"] + table.num_rows)
        rows, errors = _to_rows(table.select(self.special))
        return Rows(table.select(self.carried.names), rows, errors, misfits[first:end], places)


def _to_rows(table: pa.Table) -> tuple[list[dict[str, Any]], list[str | None]]:
    """Rows as Python has them, and for each what it cannot have: Parquet's writers need not check that text
    is UTF-8.
    """
    try:
        return table.to_pylist(), [None] * table.num_rows
    except UnicodeDecodeError:
        rows: list[dict[str, Any]] = []
        errors: list[str | None] = []
        for index in range(table.num_rows):
            try:
                rows += table.slice(index, 1).to_pylist()
                errors.append(None)
            except UnicodeDecodeError as error:
                rows.append({})
                errors.append(
                    f"the row is not UTF-8: {error.reason} at byte {error.start} of a text; fix the row"
                )
        return rows, errors
