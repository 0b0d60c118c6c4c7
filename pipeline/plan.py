"""The plan: every shard of the input, where its rows lie, and the columns that are carried.

Made by the driver, once per run.

A *piece* is a run of rows of one file. A shard is one piece, or several small files of one piece each. A
*unit* is what one prepare task reads at a time: one shard, all shards of some whole Parquet row groups, or
all shards of a compressed file.
"""

import difflib
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import InputConfig, OutputConfig
from pipeline.formats.base import ScannedFile
from pipeline.formats.registry import prompt_columns
from pipeline.partitions import partitions_of, with_partitions
from pipeline.scan import scan_files
from pipeline.schema import unify
from rows.output_columns import OutputColumns

MIN_SHARD = 16
MAX_SHARD = 4096
SHARDS_PER_WORKER = 64
MAX_PIECES = 256  # files of one shard, which are opened one after the other
PIECES_SCHEMA = pa.schema(
    [
        ("shard", pa.int64()),
        ("unit", pa.int64()),
        ("file", pa.string()),
        ("path", pa.string()),
        ("format", pa.string()),
        ("compression", pa.string()),
        ("names", pa.list_(pa.string())),  # CSV only: of all columns
        ("partitions", pa.map_(pa.string(), pa.string())),  # columns that the file's folders give
        ("first_row", pa.int64()),  # within the file
        ("num_rows", pa.int64()),
        ("first_byte", pa.int64()),  # text only, within the decompressed text
        ("num_bytes", pa.int64()),  # of text, decompressed; of Parquet its share of the row groups
        ("row_groups", pa.list_(pa.int32())),  # Parquet only: those of the whole unit
        ("skip_rows", pa.int64()),  # Parquet only: rows of the unit before this piece
    ]
)


@dataclass(frozen=True)
class Plan:
    """pieces: a table of PIECES_SCHEMA; schema: all columns of the input; digest: of everything that a
    resumed run must share.

    chats: batch files hold requests that need a chat template. unreadable: the files of which no row could be
    read, and why.
    """

    pieces: pa.Table
    schema: pa.Schema
    num_rows: int
    rows_per_shard: int
    digest: str
    chats: bool = False
    unreadable: Sequence[str] = ()

    @property
    def num_shards(self) -> int:
        """Shards are numbered from 0."""
        return self.pieces["shard"][-1].as_py() + 1 if self.pieces.num_rows else 0

    def without(self, done: Sequence[int]) -> pa.Table:
        """The pieces of all shards but these."""
        return self.pieces.filter(pc.invert(pc.is_in(self.pieces["shard"], pa.array(done, pa.int64()))))


def make_plan(
    config: InputConfig,
    num_workers: int,
    rows_per_shard: int | None = None,
    columns: Sequence[str] | None = None,
) -> Plan:
    """Lists, counts and cuts the input.

    rows_per_shard: what a run that is continued has resolved `auto` to. columns: those that are carried,
    None = all.
    """
    given = rows_per_shard or (None if config.rows_per_shard == "auto" else int(config.rows_per_shard))
    stride = given or MIN_SHARD
    scanned = scan_files(config, stride)
    num_rows = sum(scan.num_rows for scan in scanned)
    if not num_rows:
        raise ValueError(f"input.path {config.path!r} holds no rows; give it at least one prompt")
    size = given or min(
        MAX_SHARD, max(MIN_SHARD, num_rows // (num_workers * SHARDS_PER_WORKER) // MIN_SHARD * MIN_SHARD)
    )
    pieces = pa.Table.from_pylist(list(_cut(scanned, stride, size)), schema=PIECES_SCHEMA)
    special = [name for name in vars(prompt_columns(config)).values() if isinstance(name, str)]
    needed = None if columns is None else [*columns, *special, config.id_column or ""]
    schema = unify(with_partitions(scanned, needed), needed, _mixed(scanned))
    files = [[scan.file.name, scan.file.format, scan.num_rows, scan.checksum] for scan in scanned]
    digest = hashlib.sha256(json.dumps([files, size, str(schema)]).encode()).hexdigest()[:16]
    unreadable = [
        f"none of the first rows of {scan.file.path} can be read: {scan.unreadable}"
        for scan in scanned
        if scan.unreadable
    ]
    return Plan(pieces, schema, num_rows, size, digest, any(scan.chats for scan in scanned), unreadable)


def _mixed(scanned: Sequence[ScannedFile]) -> set[str]:
    """The columns that every file that has them can carry as JSON."""
    found = {name for scan in scanned for name in scan.mixed}
    return found - {name for scan in scanned for name in scan.schema.names if name not in scan.mixed}


def _cut(scanned: Sequence[ScannedFile], stride: int, size: int) -> Iterator[dict[str, Any]]:
    """Pieces with their shards and units: a large file is cut, small ones that follow each other share a
    shard.
    """
    shard = unit = -1
    room = places = 0  # rows and pieces that the last shard can still take
    for scan in (scan for scan in scanned if scan.num_rows):
        file = scan.file
        place = {
            "file": file.name,
            "path": file.path,
            "format": file.format,
            "compression": file.compression,
            "names": scan.names,
            "partitions": list(partitions_of(file.name).items()),
        }
        small = scan.num_rows < size
        if small and scan.num_rows <= room and places:
            (((piece,),)) = _cut_file(scan, stride, size)
            room = room - scan.num_rows
            places = places - 1
            yield {"shard": shard, "unit": unit, **place, **piece}
            continue
        for pieces in _cut_file(scan, stride, size):
            unit += 1
            for piece in pieces:
                shard += 1
                yield {"shard": shard, "unit": unit, **place, **piece}
        room, places = (size - scan.num_rows, MAX_PIECES - 1) if small else (0, 0)


def _cut_file(scan: ScannedFile, stride: int, size: int) -> Iterator[list[dict[str, Any]]]:
    """The pieces of each unit."""
    if scan.file.format == "parquet":
        yield from _cut_parquet(scan, size)
    elif scan.file.compression:
        yield list(_cut_text(scan, stride, size))
    else:
        yield from ([piece] for piece in _cut_text(scan, stride, size))


def _cut_text(scan: ScannedFile, stride: int, size: int) -> Iterator[dict[str, Any]]:
    starts = scan.cuts[:-1][:: size // stride]
    for index, (start, end) in enumerate(zip(starts, [*starts[1:], scan.cuts[-1]], strict=True)):
        rows = min(size, scan.num_rows - index * size)
        yield {"first_row": index * size, "num_rows": rows, "first_byte": start, "num_bytes": end - start}


def _cut_parquet(scan: ScannedFile, size: int) -> Iterator[list[dict[str, Any]]]:
    """Row groups are read whole, so a unit takes as many as it needs for one shard, and is then cut into
    shards.
    """
    groups: list[int] = []
    first_row = rows = 0
    for group, count in enumerate(scan.cuts):
        groups.append(group)
        rows = min(rows + count, scan.num_rows - first_row)
        if rows >= size or first_row + rows == scan.num_rows:
            row_size = sum(scan.sizes[group] for group in groups) / max(
                1, sum(scan.cuts[group] for group in groups)
            )
            cut = [(skip, min(size, rows - skip)) for skip in range(0, rows, size)]
            if cut:
                yield [
                    {
                        "first_row": first_row + skip,
                        "num_rows": n,
                        "num_bytes": int(n * row_size),
                        "skip_rows": skip,
                        "row_groups": groups,
                    }
                    for skip, n in cut
                ]
            first_row = first_row + rows
            rows = 0
            groups = []


def carried_schema(plan: Plan, source: InputConfig, output: OutputConfig, added: OutputColumns) -> pa.Schema:
    """The input columns of every part; raises ValueError for a column that is not there or clashes with an
    added one.
    """
    needed = [
        ("input.id_column", source.id_column),
        ("input.group_column", source.group_column),
        ("input.prediction_column", source.prediction_column),
    ]
    needed += [("output.columns", name) for name in output.columns or []]
    if source.format != "openai_batch":
        prompt_setting = "input.messages_column" if source.messages_column else "input.prompt_column"
        needed.insert(0, (prompt_setting, source.messages_column or source.prompt_column))
    for setting, name in needed:
        if name is not None and name not in plan.schema.names:
            nearest = difflib.get_close_matches(name, plan.schema.names, 1, 0.5)
            hint = (
                f"did you mean {nearest[0]!r}?"
                if nearest
                else f"it has {', '.join(map(repr, plan.schema.names)) or 'none'}"
            )
            hint = "; ".join([hint, *plan.unreadable[:1]])
            if {"custom_id", "url", "body"} <= set(plan.schema.names):
                hint = "it looks like an OpenAI batch file: set input.format: openai_batch"
            raise ValueError(f"{setting} is {name!r}, but the input has no such column; {hint}")
    names = plan.schema.names if output.columns is None else list(dict.fromkeys(output.columns))
    if source.id_column and source.id_column not in names:
        names = [source.id_column, *names]
    clash = set(names) & set(added.schema.names)
    if clash:
        raise ValueError(
            f"the input already has columns {', '.join(sorted(clash))}; "
            "set output.prefix to rename the added ones, or output.columns"
        )
    return pa.schema([plan.schema.field(name) for name in names])
