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


@pytest.mark.parametrize(
    ("beside", "json_value", "carried"),
    [
        (pa.array(["x"], pa.large_string()), '"y"', "y"),
        (pa.array(["x"], pa.string_view()), '"y"', "y"),
        (pa.array([["x"]], pa.large_list(pa.large_string())), '["y"]', ["y"]),
        (pa.array([{"a": "x"}], pa.struct([("a", pa.large_string())])), '{"a": "y"}', {"a": "y"}),
        (pa.array([Decimal("1.50")]), "7", Decimal("7.00")),
        (pa.array([1.5], pa.float32()), "7.1", 7.1),
        (pa.array([1], pa.int8()), "300", 300),
    ],
    ids=str,
)
def test_rows_of_json_lines_take_the_types_of_a_parquet_file_beside_them(
    beside: pa.Array, json_value: str, carried: Any, tmp_path: Path
) -> None:
    write(tmp_path, a={"prompt": ["p"], "x": beside})
    (tmp_path / "b.jsonl").write_text(f'{{"prompt": "q", "x": {json_value}}}\n')
    rows = prepared(tmp_path)
    assert told(rows) == ["p", "q"]
    assert rows[1]["carried"]["x"] == carried


def test_prompts_of_all_text_formats_stand_beside_large_strings(tmp_path: Path) -> None:
    write(tmp_path, a={"prompt": pa.array(["parquet"], pa.large_string())})
    (tmp_path / "b.csv").write_text("prompt\ncsv\n")
    (tmp_path / "c.jsonl").write_text('{"prompt": "lines"}\n')
    (tmp_path / "d.txt").write_text("text\n")
    assert told(prepared(tmp_path)) == ["parquet", "csv", "lines", "text"]


def test_an_error_names_the_types_that_files_have_and_not_what_became_of_them(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        a={"prompt": ["p"], "x": pa.nulls(1)},
        b={"prompt": ["p"], "x": pa.array([1], pa.int8())},
        c={"prompt": ["p"], "x": pa.array([Decimal("1.5")])},
        d={"prompt": ["p"], "x": [0.5]},
    )
    with pytest.raises(
        ValueError, match=r"'x' is decimal128\(2, 1\) in .*c.parquet and double in .*d.parquet"
    ):
        make_plan(InputConfig(path=str(folder)), 1)


def test_types_that_have_no_room_together_are_refused_though_each_pair_has(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        a={"prompt": ["p"], "x": pa.array([None], pa.decimal256(76, 38))},
        b={"prompt": ["p"], "x": pa.array([None], pa.int8())},
        c={"prompt": ["p"], "x": pa.array([None], pa.decimal256(76, 37))},
    )
    with pytest.raises(
        ValueError, match=r"'x' is decimal256\(76, 38\) in .*a.parquet and decimal256\(76, 37\)"
    ):
        make_plan(InputConfig(path=str(folder)), 1)


def test_a_column_of_nulls_stands_beside_any_type(tmp_path: Path) -> None:
    views = pa.array([[1]], pa.list_view(pa.int64()))  # pyarrow casts no nulls to these
    rows = prepared(write(tmp_path, a={"prompt": ["p"], "x": pa.nulls(1)}, b={"prompt": ["q"], "x": views}))
    assert [row["carried"]["x"] for row in rows] == [None, [1]]
