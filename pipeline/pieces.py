"""Reads the rows of the pieces of a plan, in the plan's order, each by its format."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from pipeline.config import InputConfig
from pipeline.formats.base import Columns, InputFormat, Rows
from pipeline.formats.registry import make_format, prompt_columns
from pipeline.partitions import fill
from rows.storage import first_line


class PieceReader:
    """schema: all columns of the input; carried: the columns that are kept. strict: a column that the schema
    lacks is an error of its row.
    """

    def __init__(self, source: InputConfig, schema: pa.Schema, carried: pa.Schema, strict: bool) -> None:
        self.source = source
        names = vars(prompt_columns(source)).values()
        special = [name for name in names if isinstance(name, str) and name in schema.names]
        self.columns = Columns(schema, carried, strict, special)
        self._formats: dict[str, InputFormat] = {}

    def read(self, piece: Mapping[str, Any]) -> Rows:
        """The rows of a piece; raises ValueError, naming the file, where it cannot be read."""
        name = piece["format"]
        if name not in self._formats:
            self._formats[name] = make_format(name, self.source)
        try:
            rows = self._formats[name].read(piece, self.columns)
        except (OSError, pa.ArrowInvalid) as error:
            place = f"rows {piece['first_row']:,} to {piece['first_row'] + piece['num_rows'] - 1:,}"
            what = f"{piece['path']} cannot be read at {place}"
            raise ValueError(f"{what}: {first_line(error)}; write the file again") from error
        return fill(rows, dict(piece["partitions"]), self.columns)
