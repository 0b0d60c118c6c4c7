"""Rows of an Arrow table as Python objects, which are nearer to what people wrote than to what Arrow keeps.

An Arrow struct has every field that any row has, null where a row lacks it; a map is a list of pairs.
"""

from typing import Any

import pyarrow as pa


def arrow_rows(table: pa.Table) -> list[dict[str, Any]]:
    """The rows, structs without their null fields and maps as objects; a column that is null stays."""
    rows = table.to_pylist(maps_as_pydicts="lossy")
    return [{name: _without_none(value) for name, value in row.items()} for row in rows]


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_none(inner) for name, inner in value.items() if inner is not None}
    return [_without_none(inner) for inner in value] if isinstance(value, list) else value
