"""Hive folders: in `lang=en/part.parquet` every row has the column lang with the value en.

Spark, pandas and pyarrow write data sets in this way and leave the column out of the files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.formats.base import Rows

NULL = "__HIVE_DEFAULT_PARTITION__"


def partitions_of(name: str) -> dict[str, str | None]:
    """The columns that the folders of a file give; name: its path below the input's root."""
    pairs = (folder.split("=", 1) for folder in name.split("/")[:-1] if "=" in folder)
    return {unquote(key): None if value == NULL else unquote(value) for key, value in pairs if key}


def partition_schema(files: Sequence[Mapping[str, str | None]]) -> pa.Schema:
    """The columns of all files: integers where all values are written as integers are, else texts."""
    values: dict[str, list[str]] = {}
    for partitions in files:
        for key, value in partitions.items():
            values.setdefault(key, []).extend([] if value is None else [value])
    return pa.schema(
        [(key, pa.int64() if all(map(_is_integer, found)) else pa.string()) for key, found in values.items()]
    )


def _is_integer(value: str) -> bool:
    """Whether nothing is lost: 007 and +7 stay texts."""
    return value.lstrip("-").isdecimal() and str(int(value)) == value and -(2**63) <= int(value) < 2**63


def fill(rows: Rows, partitions: Mapping[str, str | None], schema: pa.Schema) -> Rows:
    """The rows with the columns of their folders, where they have no value of their own."""
    typed = {key: _typed(value, schema.field(key).type) for key, value in partitions.items()}
    carried = rows.carried
    for key in typed.keys() & {*carried.schema.names}:
        index = carried.schema.get_field_index(key)
        filled = pc.fill_null(carried[key], pa.scalar(typed[key], carried.schema.field(key).type))
        carried = carried.set_column(index, carried.schema.field(key), filled)
    own = [{**typed, **{key: value for key, value in row.items() if value is not None}} for row in rows.rows]
    return replace(rows, carried=carried, rows=own)


def _typed(value: str | None, type_: pa.DataType) -> Any:
    return value if value is None or not pa.types.is_integer(type_) else int(value)
