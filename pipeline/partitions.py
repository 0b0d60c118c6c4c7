"""Hive folders: in `lang=en/part.parquet` every row has the column lang with the value en.

Spark, pandas and pyarrow write data sets in this way and leave the column out of the files. Where a file has
it nevertheless, both must say the same: neither value is dropped in silence.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from engine.settings import shown
from pipeline.common_type import is_string
from pipeline.formats.base import Columns, Rows, ScannedFile, shown_scalar

NULL = "__HIVE_DEFAULT_PARTITION__"
INTEGER = re.compile(r"-?[0-9]{1,19}")
REMEDY = "leave the column out with output.columns"


def partitions_of(name: str) -> dict[str, str | None]:
    """The columns that the folders of a file give; name: its path below the input's root.

    Raises ValueError for two folders that contradict each other.
    """
    pairs = (folder.split("=", 1) for folder in name.split("/")[:-1] if "=" in folder)
    found: dict[str, str | None] = {}
    for key, text in ((unquote(key), text) for key, text in pairs if key):
        value = None if text == NULL else unquote(text)
        if found.setdefault(key, value) != value:
            raise ValueError(f"{name} lies in folders with two values of {key!r}; rename one of the folders")
    return found


def partition_schema(files: Sequence[Mapping[str, str | None]], texts: Collection[str] = ()) -> pa.Schema:
    """The columns of all files: integers where all values are written as integers are, else texts.

    texts: columns that are texts in any case.
    """
    values: dict[str, list[str]] = {}
    for partitions in files:
        for key, value in partitions.items():
            values.setdefault(key, []).extend([] if value is None else [value])
    return pa.schema([(key, _type(found, key in texts)) for key, found in values.items()])


def _type(values: Sequence[str], is_text: bool) -> pa.DataType:
    if not values:
        return pa.null()
    return pa.int64() if not is_text and all(map(_is_integer, values)) else pa.string()


def _is_integer(value: str) -> bool:
    """Whether nothing is lost: 007 and +7 stay texts."""
    return bool(INTEGER.fullmatch(value)) and str(int(value)) == value and -(2**63) <= int(value) < 2**63


def with_partitions(
    scanned: Sequence[ScannedFile], needed: Collection[str] | None = None
) -> dict[str, pa.Schema]:
    """The columns of each file (by path), its folders' among them. Raises ValueError for a folder whose value
    has no place in the file's column of that name.

    needed: the columns that are read, None = all.
    """
    missing = []
    for scan in scanned:
        own = {field.name for field in scan.schema if not pa.types.is_null(field.type)}
        found = partitions_of(scan.file.name)
        missing.append({key: value for key, value in found.items() if key not in own})
        for field in scan.schema if found.keys() & own else ():
            if field.name in found and (needed is None or field.name in needed):
                _check_place(field, found[field.name], scan.file.path)
    texts = {field.name for scan in scanned for field in scan.schema if is_string(field.type)}
    of_folders = partition_schema(missing, texts)
    return {
        scan.file.path: pa.schema(
            [
                *(field for field in scan.schema if field.name not in keys),
                *(of_folders.field(key) for key in keys),
            ]
        )
        for scan, keys in zip(scanned, missing, strict=True)
    }


def _check_place(field: pa.Field, value: str | None, path: str) -> None:
    if value is not None and not pa.types.is_null(field.type) and _typed(value, field.type) is None:
        said = (
            f"column {field.name!r} is {field.type} in {path}, which the folder's {field.name}={value} is not"
        )
        raise ValueError(f"{said}; rename the folder, or {REMEDY}")


def _typed(value: str, type_: pa.DataType) -> pa.Scalar | None:
    """A folder's value in a column's type; None if that has no place for it."""
    # From a text the nearest float is made; from an integer none but the equal one.
    number = int(value) if pa.types.is_floating(type_) and _is_integer(value) else value
    try:
        return pa.scalar(number).cast(type_)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def fill(rows: Rows, partitions: Mapping[str, str | None], columns: Columns) -> Rows:
    """The rows with the values of their folders, where they have none of their own.

    Another value of their own is a misfit.
    """
    read = {*columns.carried.names, *columns.special}
    for key, value in partitions.items():
        if key in read and value is not None:
            rows = _fill_column(rows, key, value, columns)
    return rows


def _fill_column(rows: Rows, key: str, value: str, columns: Columns) -> Rows:
    type_ = columns.schema.field(key).type
    typed = _typed(value, type_)
    if typed is None:  # other files make the type so wide that it rounds
        error = f"column {key!r} is {type_}, which cannot hold the folder's {key}={value}; {REMEDY}"
        return replace(rows, misfits=[misfit or error for misfit in rows.misfits])
    carried = rows.carried
    if key in carried.schema.names:
        own = list(carried[key])
        filled = [one if one.is_valid else typed for one in own]
        others = [shown_scalar(one) if one.is_valid and one != typed else None for one in own]
        index = carried.schema.get_field_index(key)
        carried = carried.set_column(index, carried.schema.field(key), pa.array(filled, type_))
    else:
        raw = [row.get(key) for row in rows.rows]
        others = [None if one is None or one == typed.as_py() else shown(one) for one in raw]
    return replace(
        rows,
        carried=carried,
        rows=[_filled(row, key, typed) for row in rows.rows] if key in columns.special else rows.rows,
        misfits=[
            misfit or (other and _differs(key, other, value))
            for misfit, other in zip(rows.misfits, others, strict=True)
        ],
    )


def _filled(row: Mapping[str, Any], key: str, typed: pa.Scalar) -> Mapping[str, Any]:
    return row if row.get(key) is not None else {**row, key: typed.as_py()}


def _differs(key: str, other: str, value: str) -> str:
    remedy = f"rename the folder, or correct the row, or {REMEDY}"
    return f"column {key!r} is {other}, but the row's file lies in the folder {key}={value}; {remedy}"
