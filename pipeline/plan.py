"""The plan: every shard of the input, where its rows lie, and the columns that are carried. Made by the driver, once per run.

A *unit* is what one prepare task reads at a time: a shard of JSON lines, or the shards of some whole Parquet row groups.
"""

import difflib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from actors.outputs import OutputColumns
from actors.storage import locate
from pipeline import jsonl
from pipeline.config import InputConfig, OutputConfig
from pipeline.files import InputFile, list_files
from pipeline.parquet import read_footer
from pipeline.schema import SAMPLING_TYPE, learn, unify

MIN_SHARD, MAX_SHARD, SHARDS_PER_WORKER = 16, 4096, 64
SHARDS_SCHEMA = pa.schema(
    [
        ("shard", pa.int64()),
        ("unit", pa.int64()),
        ("file", pa.string()),
        ("path", pa.string()),
        ("format", pa.string()),
        ("first_row", pa.int64()),  # within the file
        ("num_rows", pa.int64()),
        ("first_byte", pa.int64()),  # JSON lines only
        ("num_bytes", pa.int64()),
        ("row_groups", pa.list_(pa.int32())),  # Parquet only: those of the whole unit
        ("skip_rows", pa.int64()),  # Parquet only: rows of the unit before this shard
    ]
)


@dataclass(frozen=True)
class Plan:
    """shards: a table of SHARDS_SCHEMA; schema: all columns of the input; digest: of everything that a resumed run must share."""

    shards: pa.Table
    schema: pa.Schema
    num_rows: int
    rows_per_shard: int
    digest: str


@dataclass(frozen=True)
class _Scanned:
    """A file and its rows: offsets of every stride-th row and the end (JSON lines), or rows of each row group (Parquet)."""

    file: InputFile
    num_rows: int
    schema: pa.Schema
    checksum: int
    cuts: list[int]


def make_plan(config: InputConfig, num_workers: int, rows_per_shard: int | None = None) -> Plan:
    """Lists, counts and cuts the input; rows_per_shard: what a run that is continued has resolved `auto` to."""
    given = rows_per_shard or (None if config.rows_per_shard == "auto" else int(config.rows_per_shard))
    stride = given or MIN_SHARD
    scanned = list(_scan_files(config, stride))
    num_rows = sum(scan.num_rows for scan in scanned)
    if not num_rows:
        raise ValueError(f"input.path {config.path!r} holds no rows; give it at least one prompt")
    size = given or min(MAX_SHARD, max(MIN_SHARD, num_rows // (num_workers * SHARDS_PER_WORKER) // MIN_SHARD * MIN_SHARD))
    rows: list[dict[str, Any]] = []
    num_units = 0
    for scan in scanned:
        for unit in _cut_jsonl(scan, stride, size) if scan.file.format == "jsonl" else _cut_parquet(scan, size):
            place = {"unit": num_units, "file": scan.file.name, "path": scan.file.path, "format": scan.file.format}
            rows += [{"shard": len(rows) + index, **place, **shard} for index, shard in enumerate(unit)]
            num_units += 1
    schema = unify({scan.file.path: scan.schema for scan in scanned})
    files = [[scan.file.name, scan.file.format, scan.num_rows, scan.checksum] for scan in scanned]
    digest = hashlib.sha256(json.dumps([files, size, str(schema)]).encode()).hexdigest()[:16]
    return Plan(pa.Table.from_pylist(rows, schema=SHARDS_SCHEMA), schema, num_rows, size, digest)


def _scan_files(config: InputConfig, stride: int) -> Iterator[_Scanned]:
    left = config.limit
    for file in list_files(config.paths, config.format):
        if left == 0:
            return
        try:
            scan = _scan_jsonl(file, config, stride, left) if file.format == "jsonl" else _scan_parquet(file, left)
        except PermissionError as error:
            raise ValueError(f"input.path: {file.path} cannot be read: {error.strerror or error}") from error
        left = None if left is None else left - scan.num_rows
        yield scan


def _scan_jsonl(file: InputFile, config: InputConfig, stride: int, limit: int | None) -> _Scanned:
    filesystem, inner = locate(file.path)
    with filesystem.open_input_stream(inner, compression=None) as stream:
        num_rows, cuts, checksum = jsonl.scan(stream, stride, limit)
    sample = min(num_rows, config.schema_rows)
    with filesystem.open_input_stream(inner, compression=None) as stream:
        rows = (jsonl.parse_line(line, first=index == 0) for index, line in enumerate(jsonl.first_lines(stream, sample)))
        known = {} if config.messages_column else {config.prompt_column: pa.string()}
        if config.sampling_column:
            known[config.sampling_column] = SAMPLING_TYPE
        schema = learn((row for row in rows if isinstance(row, dict)), known)
    return _Scanned(file, num_rows, schema, checksum, cuts)


def _scan_parquet(file: InputFile, limit: int | None) -> _Scanned:
    schema, groups = read_footer(file)
    num_rows = sum(groups) if limit is None else min(sum(groups), limit)
    return _Scanned(file, num_rows, schema, file.size, groups)


def _cut_jsonl(scan: _Scanned, stride: int, size: int) -> Iterator[list[dict[str, Any]]]:
    starts = scan.cuts[:-1][:: size // stride]
    for index, (start, end) in enumerate(zip(starts, [*starts[1:], scan.cuts[-1]], strict=True)):
        rows = min(size, scan.num_rows - index * size)
        yield [{"first_row": index * size, "num_rows": rows, "first_byte": start, "num_bytes": end - start}]


def _cut_parquet(scan: _Scanned, size: int) -> Iterator[list[dict[str, Any]]]:
    """Row groups are read whole, so a unit takes as many as it needs for one shard, and is then cut into shards."""
    groups: list[int] = []
    first_row = rows = 0
    for group, count in enumerate(scan.cuts):
        groups.append(group)
        rows = min(rows + count, scan.num_rows - first_row)
        if rows >= size or first_row + rows == scan.num_rows:
            cut = [{"first_row": first_row + skip, "num_rows": min(size, rows - skip), "skip_rows": skip} for skip in range(0, rows, size)]
            if cut:
                yield [{**shard, "row_groups": groups} for shard in cut]
            first_row, rows, groups = first_row + rows, 0, []


def carried_schema(plan: Plan, source: InputConfig, output: OutputConfig, added: OutputColumns) -> pa.Schema:
    """The input columns of every part; raises ValueError for a column that is not there or clashes with an added one."""
    prompt_setting = "input.messages_column" if source.messages_column else "input.prompt_column"
    needed = [(prompt_setting, source.messages_column or source.prompt_column), ("input.id_column", source.id_column)]
    needed += [("output.columns", name) for name in output.columns or []]
    for setting, name in needed:
        if name is not None and name not in plan.schema.names:
            nearest = difflib.get_close_matches(name, plan.schema.names, 1, 0.5)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"it has {', '.join(plan.schema.names) or 'none'}"
            raise ValueError(f"{setting} is {name!r}, but the input has no such column; {hint}")
    names = plan.schema.names if output.columns is None else list(dict.fromkeys(output.columns))
    if source.id_column and source.id_column not in names:
        names = [source.id_column, *names]
    clash = set(names) & set(added.schema.names)
    if clash:
        raise ValueError(
            f"the input already has columns {', '.join(sorted(clash))}; set output.prefix to rename the added ones, or output.columns"
        )
    return pa.schema([plan.schema.field(name) for name in names])
