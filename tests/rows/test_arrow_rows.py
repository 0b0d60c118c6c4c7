"""What Arrow fills in is gone from the rows of a table."""

import pyarrow as pa

from rows.arrow_rows import arrow_rows


def test_null_fields_of_structs_are_absent_at_any_depth_and_null_columns_stay() -> None:
    rows = [{"id": None, "a": {"x": 1, "y": [{"z": {"u": 1}}]}}, {"id": 1, "a": {"w": [None, 1], "x": None}}]
    table = pa.Table.from_pylist(rows)
    assert table.to_pylist()[1]["a"] == {"w": [None, 1], "x": None, "y": None}
    assert arrow_rows(table) == [
        {"id": None, "a": {"x": 1, "y": [{"z": {"u": 1}}]}},
        {"id": 1, "a": {"w": [None, 1]}},
    ]


def test_maps_are_objects() -> None:
    column = pa.array([[("x", 1), ("y", None)]], pa.map_(pa.string(), pa.int64()))
    assert arrow_rows(pa.table({"a": column})) == [{"a": {"x": 1}}]
