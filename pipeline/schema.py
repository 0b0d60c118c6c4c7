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
from pipeline.common_type import Misfit, common_type, is_list, is_string

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


def unify(
    schemas: Mapping[str, pa.Schema], needed: Collection[str] | None = None, mixed: Collection[str] = ()
) -> pa.Schema:
    """One schema for files (by name) that may lack columns; raises ValueError naming the files when a column
    has no common type in them.

    needed: the columns that are read, None = all. Another one keeps its first type. mixed: columns that
    become text instead, and hold their values as JSON (see fit_rows).
    """
    merged: dict[str, pa.DataType] = {}
    seen: dict[str, dict[pa.DataType, str]] = {}  # the types of a column, and the first file with each
    for file, schema in schemas.items():
        if len(set(schema.names)) < len(schema.names):
            raise ValueError(f"{file} has two columns of one name: {schema.names}; rename one")
        for field in schema:
            files = seen.setdefault(field.name, {})
            if field.type in files:
                continue
            try:
                merged[field.name] = common_type(merged.get(field.name, pa.null()), field.type)
            except Misfit as error:
                if field.name in mixed:
                    merged[field.name] = pa.string()
                elif needed is None or field.name in needed:
                    raise _conflict(field, file, files) from error
            files[field.type] = file
    return pa.schema(list(merged.items()))


def _conflict(field: pa.Field, file: str, files: Mapping[pa.DataType, str]) -> ValueError:
    """What is wrong with a column; files: the first one with each type that the column had before."""
    apart = [type_ for type_ in files if not _go_together(type_, field.type)]
    type_ = apart[0] if apart else next(iter(files))
    remedy = "convert one of the files, or leave the column out with output.columns"
    types = f"{type_} in {files[type_]} and {field.type} in {file}"
    return ValueError(f"column {field.name!r} is {types}; {remedy}")


def _go_together(one: pa.DataType, other: pa.DataType) -> bool:
    try:
        common_type(one, other)
    except Misfit:
        return False
    return True


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
    if is_mixed and is_string(field.type) and isinstance(value, (list, dict)):
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
        if not is_list(type_):
            raise Misfit(f"a list, where {type_} is expected")
        if pa.types.is_fixed_size_list(type_) and len(value) != type_.list_size:
            raise Misfit(f"a list of {len(value)}, where {type_} is expected")
        return [_fit(item, type_.value_type) for item in value]
    if isinstance(value, str) and is_string(type_):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Misfit(f"not valid Unicode at position {error.start}") from error
        return value
    if isinstance(value, (bool, str)):
        fits = pa.types.is_boolean(type_) and isinstance(value, bool)
    else:
        fits = _holds(type_, value)
    if not fits:
        raise Misfit(f"not {type_}")
    return value


def _holds(type_: pa.DataType, number: float) -> bool:
    """Whether values of the type can be exactly this number. An integer type has integers only."""
    if pa.types.is_int64(type_):
        return isinstance(number, int) and -(2**63) <= number < 2**63
    if pa.types.is_float64(type_):
        return isinstance(number, float) or abs(number) <= 2**53
    # JSON alone has no other types; a Parquet file beside it has.
    whole_only = pa.types.is_integer(type_) or pa.types.is_decimal(type_)
    if not pa.types.is_floating(type_) and not (whole_only and isinstance(number, int)):
        return False
    try:
        return number != number or bool(pa.scalar(number, type_).as_py() == number)
    except (pa.ArrowInvalid, OverflowError):
        return False


def _fit_struct(value: dict[str, Any], type_: pa.DataType) -> dict[str, Any] | None:
    if value == {} and pa.types.is_null(type_):
        return None
    if not pa.types.is_struct(type_):
        raise Misfit(f"an object, where {type_} is expected")
    for name in value:
        if type_.get_field_index(name) < 0:
            raise Misfit(f"its field {name!r} is new")
    return {name: _fit(item, type_.field(name).type) for name, item in value.items()}
