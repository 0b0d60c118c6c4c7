"""Parquet input: footers for the plan, row groups for the rows."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.settings import shown
from pipeline.files import InputFile
from rows.storage import locate


def read_footer(file: InputFile) -> tuple[pa.Schema, list[int], list[int]]:
    """The columns of a file, and of each row group its rows and its bytes, decompressed; raises ValueError
    for one that is no Parquet.
    """
    filesystem, inner = locate(file.path)
    try:
        with pq.ParquetFile(inner, filesystem=filesystem) as parquet:
            metadata = parquet.metadata
            groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
            schema = pa.schema([(field.name, _plain(field.type)) for field in parquet.schema_arrow])
            return schema, [group.num_rows for group in groups], [group.total_byte_size for group in groups]
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(
            f"{file.path} cannot be read as Parquet: {str(error).splitlines()[0]}; fix or remove it"
        ) from error


def _plain(type_: pa.DataType) -> pa.DataType:
    # Whether values are kept as a dictionary is a file's own affair
    return type_.value_type if pa.types.is_dictionary(type_) else type_


def read_groups(
    path: str, groups: Sequence[int], columns: Sequence[str], schema: pa.Schema
) -> tuple[pa.Table, list[str | None]]:
    """The row groups' rows with these columns, typed as the schema says, and what of each row does not fit
    (there it holds null).

    A column that the file lacks is null.
    """
    filesystem, inner = locate(path)
    with pq.ParquetFile(inner, filesystem=filesystem) as parquet:
        own = set(parquet.schema_arrow.names)
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
    except (
        pa.ArrowInvalid
    ):  # the types of two files were merged, and some value has no place in the wider one
        fitting = []
        for index, value in enumerate(column):
            try:
                fitting.append(value.cast(type_))
            except pa.ArrowInvalid as error:
                fitting.append(None)
                errors[index] = (
                    errors[index]
                    or f"column {name!r} is {shown(value.as_py())}, which another file makes {type_}: {error}"
                )
        return pa.array(fitting, type_)
