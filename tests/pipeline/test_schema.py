"""Types learned from JSON, and what becomes of a value that does not fit them."""

from typing import Any

import pyarrow as pa
import pytest

from engine.config import SAMPLING_FIELDS
from pipeline.schema import SAMPLING_TYPE, fit_rows, learn, unify


def types(*values: Any) -> pa.DataType:
    return learn([{"x": value} for value in values], {}).field("x").type


@pytest.mark.parametrize(
    ("values", "type_"),
    [
        ((1, None), pa.int64()),
        ((1, 2.5), pa.float64()),
        ((None,), pa.null()),
        (({},), pa.null()),
        ((["a"], []), pa.list_(pa.string())),
        (({"a": 1}, {"b": "x"}), pa.struct([("a", pa.int64()), ("b", pa.string())])),
        (("a", 5, "b"), pa.string()),
        ((5, True, 5), pa.int64()),
        ((2**70, 1), pa.int64()),
    ],
)
def test_the_commonest_type_wins_and_takes_in_what_can_be_merged(
    values: tuple[Any, ...], type_: pa.DataType
) -> None:
    assert types(*values) == type_


def test_a_rows_settings_have_a_type_each() -> None:
    assert sorted(SAMPLING_TYPE.names) == sorted(SAMPLING_FIELDS)


def test_columns_keep_the_order_in_which_they_appear() -> None:
    assert learn([{"b": 1}, {"a": 1, "b": 2}], {"a": pa.string()}) == pa.schema(
        [("b", pa.int64()), ("a", pa.string())]
    )


SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("score", pa.float64()),
        ("text", pa.string()),
        ("tags", pa.list_(pa.string())),
        ("meta", pa.struct([("a", pa.int64())])),
    ]
)
REMEDY = "fix the row, or raise input.schema_rows so that types are learned from more rows"


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"id": "7"}, f"column 'id' is '7': not int64; {REMEDY}"),
        ({"id": True}, f"column 'id' is true: not int64; {REMEDY}"),
        ({"id": 1.0}, f"column 'id' is 1.0: not int64; {REMEDY}"),
        ({"id": 2**63}, f"column 'id' is 9223372036854775808: not int64; {REMEDY}"),
        ({"score": 2**53 + 1}, f"column 'score' is 9007199254740993: not double; {REMEDY}"),
        ({"text": "\ud800"}, f"column 'text' is '\\ud800': not valid Unicode at position 0; {REMEDY}"),
        ({"tags": ["a", 5]}, f"column 'tags' is ['a', 5]: not string; {REMEDY}"),
        ({"tags": "a"}, f"column 'tags' is 'a': not list<item: string>; {REMEDY}"),
        ({"meta": {"a": 1, "b": 2}}, f"column 'meta' is {{'a': 1, 'b': 2}}: its field 'b' is new; {REMEDY}"),
        (
            {"extra": "x" * 99},
            f"column 'extra' is '{'x' * 56}..., a column that the first rows do not have; {REMEDY}",
        ),
    ],
)
def test_a_value_that_does_not_fit_is_an_error_of_its_row_and_never_changed(
    row: dict[str, Any], error: str
) -> None:
    table, errors = fit_rows([{"id": 1}, row], SCHEMA, strict=True)
    assert errors == [None, error]
    assert [column[1] for column in table.to_pydict().values()] == [None] * 5
    assert table.schema == SCHEMA


def test_rows_that_fit_come_back_as_they_were() -> None:
    rows = [
        {"id": -(2**63), "score": 1, "text": "x", "tags": [], "meta": {}},
        {"id": None, "score": 0.5, "text": None, "tags": ["a", None], "meta": None},
    ]
    table, errors = fit_rows(rows, SCHEMA, strict=True)
    assert errors == [None, None]
    assert table.to_pylist() == [{**rows[0], "score": 1.0, "meta": {"a": None}}, rows[1]]


def test_where_the_user_chose_the_columns_others_are_no_error() -> None:
    table, errors = fit_rows([{"id": 1, "extra": 2}], pa.schema([("id", pa.int64())]), strict=False)
    assert (table.to_pylist(), errors) == ([{"id": 1}], [None])


def test_a_table_without_columns_keeps_its_rows() -> None:
    assert fit_rows([{"a": 1}, {}], pa.schema([]), strict=False)[0].num_rows == 2


def test_schemas_of_files_are_merged_and_a_conflict_names_both_files() -> None:
    one = pa.schema([("a", pa.int64()), ("b", pa.null())])
    other = pa.schema([("b", pa.string()), ("a", pa.float64())])
    assert unify({"one": one, "other": other}) == pa.schema([("a", pa.float64()), ("b", pa.string())])
    with pytest.raises(
        ValueError, match="column 'a' is int64 in one and string in third; convert one of the files"
    ):
        unify({"one": one, "third": pa.schema([("a", pa.string())])})


@pytest.mark.parametrize(
    ("type_", "value", "fits"),
    [
        (pa.int32(), 2**31 - 1, True),
        (pa.int32(), 2**31, False),
        (pa.uint8(), -1, False),
        (pa.uint64(), 2**63, True),
        (pa.int8(), 1.0, False),
        (pa.int8(), True, False),
        (pa.float32(), 7.25, True),
        (pa.float32(), 7.1, False),  # a float of 32 bits holds 7.099999904632568
        (pa.float32(), 2**24 + 1, False),
        (pa.float32(), float("nan"), True),
        (pa.float32(), 1e300, False),
        (pa.decimal128(4, 2), 99, True),
        (pa.decimal128(4, 2), 100, False),
        (pa.decimal128(4, 2), 0.1, False),
        (pa.list_(pa.int64(), 2), [1, 2], True),
        (pa.list_(pa.int64(), 2), [1, 2, 3], False),
        (pa.timestamp("s"), 5, False),
        (pa.timestamp("s"), "2024-01-01", False),
        (pa.binary(), "x", False),
        (pa.map_(pa.string(), pa.int64()), {"a": 1}, False),
    ],
    ids=str,
)
def test_a_value_fits_a_type_that_another_file_brings_if_that_holds_it_exactly(
    type_: pa.DataType, value: Any, fits: bool
) -> None:
    table, [error] = fit_rows([{"x": value}], pa.schema([("x", type_)]), strict=True)
    assert (error is None) == fits
    assert table["x"].null_count == (not fits)
