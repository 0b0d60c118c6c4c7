"""Types that differ between files: one that holds the values of both without loss, or none."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.common_type import Misfit, common_type
from pipeline.config import InputConfig
from pipeline.plan import make_plan
from tests.pipeline.reading import prepared, told

INT = pa.int64()
UTC = pa.timestamp("ms", "UTC")


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (pa.null(), pa.string(), pa.string()),
        (pa.int8(), INT, INT),
        (pa.uint8(), pa.int8(), pa.int16()),
        (pa.uint32(), pa.int16(), INT),
        (pa.int16(), pa.float32(), pa.float32()),
        (pa.int32(), pa.float32(), pa.float64()),
        (INT, pa.float64(), pa.float64()),  # values beyond 2^53 are refused one by one
        (pa.float16(), pa.float64(), pa.float64()),
        (pa.decimal128(10, 2), pa.decimal128(7, 4), pa.decimal128(12, 4)),
        (pa.decimal128(10, 2), INT, pa.decimal128(21, 2)),
        (pa.decimal128(10, 2), pa.uint8(), pa.decimal128(10, 2)),
        (pa.decimal128(38, 30), INT, pa.decimal256(49, 30)),
        (pa.string(), pa.large_string(), pa.large_string()),
        (pa.string_view(), pa.string(), pa.string()),
        (pa.dictionary(pa.int8(), pa.string()), pa.string(), pa.string()),
        (pa.binary(4), pa.binary(), pa.binary()),
        (pa.date32(), pa.date64(), pa.date64()),
        (pa.timestamp("s"), pa.timestamp("us"), pa.timestamp("us")),
        (pa.time32("ms"), pa.time64("us"), pa.time64("us")),
        (pa.list_(pa.int8()), pa.list_(INT), pa.list_(INT)),
        (pa.list_(pa.null()), pa.large_list(pa.string()), pa.large_list(pa.string())),
        (
            pa.struct([("a", pa.int8())]),
            pa.struct([("b", pa.string()), ("a", INT)]),
            pa.struct([("a", INT), ("b", pa.string())]),
        ),
        (pa.map_(pa.string(), pa.int8()), pa.map_(pa.string(), INT), pa.map_(pa.string(), INT)),
    ],
    ids=str,
)
def test_a_wider_type_holds_both(one: pa.DataType, other: pa.DataType, both: pa.DataType) -> None:
    assert common_type(one, other) == common_type(other, one) == both or {*both.names} == {"a", "b"}
    assert common_type(one, other) == both


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.float16(), pa.decimal128(10, 2)),
        (pa.float64(), pa.decimal128(10, 2)),
        (pa.decimal128(38, 0), pa.decimal256(76, 76)),
        (pa.uint64(), INT),
        (pa.string(), pa.binary()),
        (pa.string(), INT),
        (pa.bool_(), INT),
        (pa.date32(), pa.timestamp("s")),
        (pa.timestamp("ms"), UTC),
        (UTC, pa.timestamp("ms", "Europe/Berlin")),
        (pa.list_(pa.string()), pa.list_(INT)),
        (pa.list_(INT), INT),
        (pa.struct([("a", INT)]), pa.struct([("a", pa.string())])),
    ],
    ids=str,
)
def test_without_such_a_type_there_is_none(one: pa.DataType, other: pa.DataType) -> None:
    for pair in ((one, other), (other, one)):
        with pytest.raises(Misfit, match="no type holds both"):
            common_type(*pair)


def write(folder: Path, **files: dict[str, Any]) -> Path:
    for name, columns in files.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return folder


@pytest.mark.parametrize(
    ("one", "other", "types"),
    [
        (pa.array([1.5], pa.float16()), pa.array([Decimal("1.50")]), "halffloat in .*a.parquet and decimal"),
        (pa.array(["x"]), pa.array([b"x"]), "string in .*a.parquet and binary in .*b.parquet"),
        (
            pa.array([Decimal("12345678901234567.89")]),
            pa.array([0.1]),
            r"decimal128\(19, 2\) in .*a.parquet and double",
        ),
    ],
)
def test_files_without_a_common_type_are_refused_by_the_plan_with_both_types(
    one: pa.Array, other: pa.Array, types: str, tmp_path: Path
) -> None:
    folder = write(tmp_path, a={"prompt": ["p"], "x": one}, b={"prompt": ["q"], "x": other})
    with pytest.raises(ValueError, match=f"column 'x' is {types}.*; convert one of the files, or leave"):
        make_plan(InputConfig(path=str(folder)), 1)
    assert told(prepared(folder, columns=["prompt"])) == ["p", "q"], "the column is left out"


def test_an_integer_beside_a_decimal_is_carried_as_a_decimal(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        a={"prompt": ["p"], "x": pa.array([2**62])},
        b={"prompt": ["q"], "x": pa.array([Decimal("0.25")], pa.decimal128(10, 2))},
    )
    rows = prepared(folder)
    assert told(rows) == ["p", "q"]
    assert [row["carried"]["x"] for row in rows] == [Decimal(2**62), Decimal("0.25")]


def test_lists_and_structs_of_two_shapes_are_carried_in_one(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        a={"prompt": ["p"], "x": pa.array([[{"n": 1}]])},
        b={"prompt": ["q"], "x": pa.array([[{"n": 0.5, "m": "new"}]])},
    )
    assert [row["carried"]["x"] for row in prepared(folder)] == [
        [{"n": 1.0, "m": None}],
        [{"n": 0.5, "m": "new"}],
    ]
