"""The order in which the shards of a plan are handed out.

It decides how fast the rows come, never what they say or where they land.

Works on units, since a Parquet row group and a compressed file are read whole, and knows of them what the
plan knows: bytes, rows, files.
"""

from dataclasses import dataclass
from itertools import accumulate, groupby
from posixpath import dirname
from typing import Any

import pyarrow as pa

TAIL_SHARE = 32  # small shards are handed out last, as long as they hold at most a 32nd of all bytes


@dataclass(frozen=True)
class Unit:
    """A run of pieces in the plan: its first, how many, and what they hold."""

    first: int
    count: int
    folder: str
    num_rows: int
    num_bytes: int

    @property
    def bytes_per_row(self) -> float:
        """How long its rows are."""
        return self.num_bytes / self.num_rows


def in_order(pieces: pa.Table, order: str) -> pa.Table:
    """The pieces as they are to be handed out (see InputConfig.order), the smallest units last in
    any order.
    """
    units = _units(pieces)
    keys: dict[str, Any] = {
        "as_is": lambda unit: unit.first,
        "longest_first": lambda unit: (-unit.bytes_per_row, unit.first),
        "by_folder": lambda unit: (unit.folder, unit.first),
    }
    small = _small(units)
    ordered = sorted(units, key=lambda unit: (unit in small, keys[order](unit)))
    return pa.concat_tables([pieces.slice(unit.first, unit.count) for unit in ordered]) if ordered else pieces


def _units(pieces: pa.Table) -> list[Unit]:
    columns = [pieces[name].to_pylist() for name in ("unit", "file", "num_rows", "num_bytes")]
    units: list[Unit] = []
    for _, run in groupby(enumerate(zip(*columns, strict=True)), key=lambda item: item[1][0]):
        members = list(run)
        rows, size = (sum(values[column] for _, values in members) for column in (2, 3))
        units.append(Unit(members[0][0], len(members), dirname(members[0][1][1]), rows, size))
    return units


def _small(units: list[Unit]) -> set[Unit]:
    """The smallest units: each holds less than half of an average unit's bytes, and together they hold a
    small share of the input only.

    Bytes and not rows are compared: a few long rows keep a worker busy, too.
    """
    total = sum(unit.num_bytes for unit in units)
    ascending = sorted(units, key=lambda unit: (unit.num_bytes, -unit.first))
    sums = accumulate(unit.num_bytes for unit in ascending)
    found = zip(ascending, sums, strict=True)
    return {
        unit
        for unit, so_far in found
        if so_far * TAIL_SHARE <= total and unit.num_bytes * 2 * len(units) < total
    }
