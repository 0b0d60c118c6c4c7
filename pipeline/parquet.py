"""Parquet input: footers for the plan, row groups for the rows."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from actors.storage import locate
from pipeline.files import InputFile


def read_footer(file: InputFile) -> tuple[pa.Schema, list[int]]:
    """The columns of a file and the rows of each of its row groups; raises ValueError for a file that is no Parquet."""
    filesystem, inner = locate(file.path)
    try:
        with pq.ParquetFile(inner, filesystem=filesystem) as parquet:
            metadata = parquet.metadata
            rows = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
            return parquet.schema_arrow.remove_metadata(), rows
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{file.path} cannot be read as Parquet: {str(error).splitlines()[0]}; mend or remove it") from error


def read_groups(path: str, groups: Sequence[int], columns: Sequence[str], schema: pa.Schema) -> pa.Table:
    """The row groups' rows with these columns, typed as the schema says; a column that the file lacks is null."""
    filesystem, inner = locate(path)
    with pq.ParquetFile(inner, filesystem=filesystem) as parquet:
        own = set(parquet.schema_arrow.names)
        table = parquet.read_row_groups(list(groups), columns=[name for name in columns if name in own])
        num_rows = sum(parquet.metadata.row_group(group).num_rows for group in groups)
    arrays: dict[str, Any] = {}
    for name in columns:
        type_ = schema.field(name).type
        arrays[name] = table[name].cast(type_) if name in own else pa.nulls(num_rows, type_)
    return pa.table(arrays)
