"""The types of the input's columns: learned once at planning, the same in every part.

What does not fit is said, never dropped.

JSON has no schema, so types come from the first rows; a later value that does not fit them becomes an error
of its row.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, get_type_hints

import pyarrow as pa

from engine.config import GenerationConfig, as_list
from engine.settings import shown
from pipeline.common_type import Misfit, common_type

_ARROW_TYPES = {
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    str: pa.string(),
    list[int]: pa.list_(pa.int64()),
    list[str] | str: pa.list_(pa.string()),
    int | None: pa.int64(),
}
# The struct of a row's own settings has the fields of GenerationConfig.
SAMPLING_TYPE = pa.struct(
    [(name, _ARROW_TYPES[type_]) for name, type_ in get_type_hints(GenerationConfig).items()]
)


def learn(
    rows: Iterable[Mapping[str, Any]], known: Mapping[str, pa.DataType], mixed: Collection[str] = ()
) -> pa.Schema:
    """The columns of JSON rows in the order they appear; known: types that do not depend on the rows.

    Where values of one column disagree, the commonest type wins and takes in what can be merged with it. A
    column in `mixed` becomes text instead, and holds its values as JSON (see fit_rows).
    """
    seen: dict[str, Counter[pa.DataType]] = {}
    for row in rows:
        for name, value in row.items():
            types = seen.setdefault(name, Counter())
            if name not in known:
                types[_json_type_or_none(value)] += 1
    return pa.schema(
        [(name, known.get(name) or _common_type(types, name in mixed)) for name, types in seen.items()]
    )


def _json_type_or_none(value: Any) -> pa.DataType | None:
    """The Arrow type of a JSON value, if it has one."""
    try:
        return _json_type(value)
    except Misfit:
        return None


def _json_type(value: Any) -> pa.DataType:
    if value is None or value == {}:  # Parquet has no struct without fields
        return pa.null()
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise Misfit(f"{value} does not fit 64 bits")
        return pa.int64()
    if isinstance(value, float):
        return pa.float64()
    if isinstance(value, str):
        return pa.string()
    if isinstance(value, list):
        merged = pa.null()
        for item in value:
            merged = common_type(merged, _json_type(item))
        return pa.list_(merged)
    return pa.struct([(name, _json_type(item)) for name, item in value.items()])


def _common_type(types: Counter[pa.DataType | None], may_be_mixed: bool) -> pa.DataType:
    merged = pa.null()
    misfits = None in types
    for type_, _ in types.most_common():
        try:
            merged = common_type(merged, type_) if type_ is not None else merged
        except Misfit:
            misfits = True  # the rows that hold this type get an error
    return pa.string() if misfits and may_be_mixed else merged


def unify(schemas: Mapping[str, pa.Schema], needed: Collection[str] | None = None) -> pa.Schema:
    """One schema for files (by name) that may lack columns; raises ValueError naming the files when a column
    has no common type in them.

    needed: the columns that are read, None = all. Another one keeps its first type.
    """
    merged: dict[str, tuple[pa.DataType, str]] = {}
    for file, schema in schemas.items():
        if len(set(schema.names)) < len(schema.names):
            raise ValueError(f"{file} has two columns of one name: {schema.names}; rename one")
        for field in schema:
            type_, first = merged.get(field.name, (pa.null(), file))
            try:
                merged[field.name] = (common_type(type_, field.type), first)
            except Misfit as error:
                if needed is not None and field.name not in needed:
                    continue
                remedy = "convert one of the files, or leave the column out with output.columns"
                raise ValueError(
                    f"column {field.name!r} is {type_} in {first} and {field.type} in {file}; {remedy}"
                ) from error
    return pa.schema([(name, type_) for name, (type_, _) in merged.items()])


def fit_rows(
    rows: Sequence[Mapping[str, Any]], schema: pa.Schema, strict: bool, mixed: Collection[str] = ()
) -> tuple[pa.Table, list[str | None]]:
    """JSON rows as a table of the schema, and for each row what did not fit (there the table holds null).

    strict: a column that the schema lacks is an error too; otherwise the user has chosen the columns. mixed:
    columns that hold lists and objects as JSON, where their type is text.
    """
    errors: list[str | None] = [None] * len(rows)
    remedy = "fix the row, or raise input.schema_rows so that types are learned from more rows"
    columns = []
    for field in schema:
        values: list[Any] = []
        for index, row in enumerate(rows):
            try:
                values.append(_fit(_carried(row, field, field.name in mixed), field.type))
            except Misfit as error:
                values.append(None)
                errors[index] = (
                    errors[index] or f"column {field.name!r} is {shown(row[field.name])}: {error}; {remedy}"
                )
        columns.append(pa.array(values, field.type))
    for index, row in enumerate(rows if strict else ()):
        new = [name for name in row if name not in schema.names]
        if new:
            errors[index] = (
                errors[index]
                or f"column {new[0]!r} is {shown(row[new[0]])}, a column that the first rows do not have; "
                f"{remedy}"
            )
    return pa.Table.from_arrays(columns, schema=schema) if columns else _no_columns(len(rows)), errors


def _carried(row: Mapping[str, Any], field: pa.Field, is_mixed: bool) -> Any:
    """The value of a column as it is kept."""
    value = row.get(field.name)
    if is_mixed and pa.types.is_string(field.type) and isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False)
    if field.type == SAMPLING_TYPE and isinstance(value, dict) and "stop" in value:
        return {**value, "stop": as_list(value["stop"])}
    return value


def _no_columns(num_rows: int) -> pa.Table:
    # Arrow gives a table without columns no rows either
    return pa.table({"": pa.nulls(num_rows)}).select([])


def _fit(value: Any, type_: pa.DataType) -> Any:
    """The value as pyarrow takes it for this type without loss; raises Misfit."""
    if value is None:
        return None
    if isinstance(value, dict):
        return _fit_struct(value, type_)
    if isinstance(value, list):
        if not pa.types.is_list(type_):
            raise Misfit(f"a list, where {type_} is expected")
        return [_fit(item, type_.value_type) for item in value]
    if isinstance(value, str) and pa.types.is_string(type_):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Misfit(f"not valid Unicode at position {error.start}") from error
        return value
    number = not isinstance(value, (bool, str))
    fits = pa.types.is_boolean(type_) and isinstance(value, bool)
    fits |= pa.types.is_int64(type_) and number and isinstance(value, int) and -(2**63) <= value < 2**63
    fits |= pa.types.is_float64(type_) and number and (isinstance(value, float) or abs(value) <= 2**53)
    if not fits:
        raise Misfit(f"not {type_}")
    return value


def _fit_struct(value: dict[str, Any], type_: pa.DataType) -> dict[str, Any] | None:
    if value == {} and pa.types.is_null(type_):
        return None
    if not pa.types.is_struct(type_):
        raise Misfit(f"an object, where {type_} is expected")
    for name in value:
        if type_.get_field_index(name) < 0:
            raise Misfit(f"its field {name!r} is new")
    return {name: _fit(item, type_.field(name).type) for name, item in value.items()}
