"""The type that holds the values of two Arrow types without loss, where files or JSON rows differ.

pyarrow's own unification also takes what loses digits (a decimal beside a double) or turns out impossible
when values are read (an integer beside a narrow decimal). What is not named here is not unified.
"""

from collections.abc import Callable, Iterator

import pyarrow as pa
from pyarrow import types

MAX_DIGITS = 38  # of a decimal128; a decimal256 has twice as many
INTEGERS = {
    True: (pa.int8(), pa.int16(), pa.int32(), pa.int64()),
    False: (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
}
UNITS = ("s", "ms", "us", "ns")


class Misfit(ValueError):
    """A value has no place in its column's type, or a type none beside another."""


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The type that holds values of both; raises Misfit when there is none.

    An integer of 64 bits beside a double, and timestamps of two units, become the wider type: whoever casts
    single values to it must refuse the few that it cannot hold.
    """
    one, other = (type_.value_type if types.is_dictionary(type_) else type_ for type_ in (one, other))
    if one == other or types.is_null(other):
        return one
    if types.is_null(one):
        return other
    found = next((merged for merged in _attempts(one, other) if merged is not None), None)
    if found is None:
        raise Misfit(f"no type holds both {one} and {other} without loss")
    return found


def _attempts(one: pa.DataType, other: pa.DataType) -> Iterator[pa.DataType | None]:
    yield _number(one, other)
    yield _text(one, other)
    yield _time(one, other)
    yield _nested(one, other)


def _number(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    floats = [type_ for type_ in (one, other) if types.is_floating(type_)]
    integers = [type_ for type_ in (one, other) if types.is_integer(type_)]
    decimals = [type_ for type_ in (one, other) if types.is_decimal(type_)]
    if len(floats) + len(integers) + len(decimals) < 2 or (floats and decimals):
        return None
    if decimals:
        return _decimal(one, other)
    if len(floats) == 2:
        return max(floats, key=lambda type_: type_.bit_width)
    if floats:
        return pa.float32() if integers[0].bit_width <= 16 and floats[0].bit_width <= 32 else pa.float64()
    return _integer(one, other)


def _integer(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    signed = [types.is_signed_integer(type_) for type_ in (one, other)]
    if signed[0] == signed[1]:
        return max(one, other, key=lambda type_: type_.bit_width)
    unsigned = other if signed[0] else one
    with_sign = one if signed[0] else other
    wider = [t for t in INTEGERS[True] if t.bit_width > unsigned.bit_width]
    return next((t for t in wider if t.bit_width >= with_sign.bit_width), None)


def _decimal(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """A decimal with the digits of both before the point, and of both behind it."""
    before, scales = zip(*map(_digits, (one, other)), strict=True)
    scale = max(scales)
    digits = max(before) + scale
    if digits > 2 * MAX_DIGITS:
        return None
    wide = digits > MAX_DIGITS or any(types.is_decimal256(type_) for type_ in (one, other))
    return (pa.decimal256 if wide else pa.decimal128)(digits, scale)


def _digits(type_: pa.DataType) -> tuple[int, int]:
    """Digits before and behind the point."""
    if types.is_decimal(type_):
        return type_.precision - type_.scale, type_.scale
    # pyarrow casts an integer to a decimal only if that has room for all values of the integer's type.
    return {8: 3, 16: 5, 32: 10, 64: 20 if types.is_unsigned_integer(type_) else 19}[type_.bit_width], 0


def _text(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    large = any(types.is_large_string(type_) or types.is_large_binary(type_) for type_ in (one, other))
    if is_string(one) and is_string(other):
        return pa.large_string() if large else pa.string()
    if _is_binary(one) and _is_binary(other):
        return pa.large_binary() if large else pa.binary()
    return None


def is_string(type_: pa.DataType) -> bool:
    """Whether values are texts, however Arrow lays them out."""
    return types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_)


def _is_binary(type_: pa.DataType) -> bool:
    plain = types.is_binary(type_) or types.is_large_binary(type_) or types.is_binary_view(type_)
    return plain or types.is_fixed_size_binary(type_)


def _time(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    if types.is_date(one) and types.is_date(other):
        return pa.date64()
    if types.is_timestamp(one) and types.is_timestamp(other) and one.tz == other.tz:
        return pa.timestamp(_finer_unit(one, other), one.tz)
    if types.is_duration(one) and types.is_duration(other):
        return pa.duration(_finer_unit(one, other))
    if types.is_time(one) and types.is_time(other):
        unit = _finer_unit(one, other)
        return pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit)
    return None


def _finer_unit(one: pa.DataType, other: pa.DataType) -> str:
    return max(one.unit, other.unit, key=UNITS.index)


def _nested(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    both = (one, other)
    if all(types.is_struct(type_) for type_ in both):
        names = dict.fromkeys(field.name for type_ in both for field in type_)
        return pa.struct([(name, _field_type(name, *both)) for name in names])
    if all(types.is_map(type_) for type_ in both):
        return pa.map_(common_type(one.key_type, other.key_type), common_type(one.item_type, other.item_type))
    if all(is_list(type_) for type_ in both):
        make: Callable[[pa.DataType], pa.DataType] = pa.list_
        if any(types.is_large_list(type_) for type_ in both):
            make = pa.large_list
        return make(common_type(one.value_type, other.value_type))
    return None


def _field_type(name: str, one: pa.DataType, other: pa.DataType) -> pa.DataType:
    having = [type_.field(name).type for type_ in (one, other) if type_.get_field_index(name) >= 0]
    return having[0] if len(having) == 1 else common_type(*having)


def is_list(type_: pa.DataType) -> bool:
    """Whether values are lists that Arrow lays out one after the other."""
    return types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_)
