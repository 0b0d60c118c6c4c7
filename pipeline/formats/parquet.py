"""Parquet input: footers for the plan, row groups for the rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.files import InputFile
from pipeline.formats.base import Columns, Rows, ScannedFile, shown_scalar
from rows.arrow_rows import arrow_rows
from rows.storage import locate

Table = tuple[pa.Table, list[str | None]]


class ParquetFormat:
    """Files say themselves where rows are. A row group is read whole, and kept while its pieces are read."""

    def __init__(self) -> None:
        self._key: Any = None
        self._unit: Table | None = None  # the row groups that were read last

    def scan(self, file: InputFile, stride: int, limit: int | None) -> ScannedFile:
        """Reads the footer; raises ValueError for a file that is no Parquet."""
        filesystem, inner = locate(file.path)
        try:
            with pq.ParquetFile(inner, filesystem=filesystem) as parquet:
                metadata = parquet.metadata
                groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
                schema = pa.schema([(field.name, _plain(field.type)) for field in parquet.schema_arrow])
        except (pa.ArrowInvalid, OSError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{file.path} cannot be read as Parquet: {reason}; fix or remove it") from error
        num_rows = sum(group.num_rows for group in groups)
        return ScannedFile(
            file=file,
            num_rows=num_rows if limit is None else min(num_rows, limit),
            schema=schema,
            checksum=file.size,
            cuts=[group.num_rows for group in groups],
            sizes=[group.total_byte_size for group in groups],
        )

    def read(self, piece: Mapping[str, Any], columns: Columns) -> Rows:
        """The rows of a piece. A value that does not fit the schema is a misfit of its row."""
        key = (piece["path"], piece["row_groups"])
        if self._unit is None or self._key != key:
            names = list(dict.fromkeys([*columns.carried.names, *columns.special]))
            self._unit = _read_groups(piece["path"], piece["row_groups"], names, columns.schema)
            self._key = key
        unit, misfits = self._unit
        first = piece["skip_rows"]
        table = unit.slice(first, piece["num_rows"])
        places = range(piece["first_row"], piece["first_row"] + table.num_rows)
        rows, errors = _to_rows(table.select(columns.special))
        carried = table.select(columns.carried.names)
        return Rows(carried, rows, errors, misfits[first : first + piece["num_rows"]], places)


def _plain(type_: pa.DataType) -> pa.DataType:
    # Whether values are kept as a dictionary is a file's own affair.
    return type_.value_type if pa.types.is_dictionary(type_) else type_


def _read_groups(path: str, groups: Sequence[int], columns: Sequence[str], schema: pa.Schema) -> Table:
    """The rows of row groups with these columns, typed as the schema says, and what does not fit in each row.

    A value that does not fit is null, and so is a column that the file lacks.
    """
    filesystem, inner = locate(path)
    with pq.ParquetFile(inner, filesystem=filesystem) as parquet:
        # A column of nulls is as good as none, and there are types to which pyarrow casts none.
        own = {field.name for field in parquet.schema_arrow if not pa.types.is_null(field.type)}
        table = parquet.read_row_groups(list(groups), columns=[name for name in columns if name in own])
        num_rows = sum(parquet.metadata.row_group(group).num_rows for group in groups)
    arrays: dict[str, Any] = {}
    errors: list[str | None] = [None] * num_rows
    for name in columns:
        type_ = schema.field(name).type
        arrays[name] = _cast(name, table[name], type_, errors) if name in own else pa.nulls(num_rows, type_)
    return pa.table(arrays), errors


def _cast(
    name: str, column: pa.ChunkedArray, type_: pa.DataType, errors: list[str | None]
) -> pa.ChunkedArray | pa.Array:
    try:
        return column.cast(type_)
    except pa.ArrowInvalid:  # the types of two files were merged, and a value has no place in the wider one
        fitting = []
        for index, value in enumerate(column):
            try:
                fitting.append(value.cast(type_))
            except pa.ArrowInvalid as error:
                fitting.append(None)
                found = f"column {name!r} is {shown_scalar(value)}, which another file makes {type_}"
                errors[index] = errors[index] or f"{found}: {error}"
        return pa.array(fitting, type_)


def _to_rows(table: pa.Table) -> tuple[list[dict[str, Any]], list[str | None]]:
    """Rows as Python objects, and the error of each: Parquet's writers need not check that text is UTF-8."""
    try:
        return arrow_rows(table), [None] * table.num_rows
    except UnicodeDecodeError:
        rows: list[dict[str, Any]] = []
        errors: list[str | None] = []
        for index in range(table.num_rows):
            try:
                rows += arrow_rows(table.slice(index, 1))
                errors.append(None)
            except UnicodeDecodeError as error:
                rows.append({})
                where = f"{error.reason} at byte {error.start} of a text"
                errors.append(f"the row is not UTF-8: {where}; fix the row")
        return rows, errors
