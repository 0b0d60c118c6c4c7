"""Counts the input's files before anything runs: how many rows each has, where they lie, and what columns it
brings.

Of Parquet only footers are read. Text is read to its end, since only its newlines tell where rows are.
"""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa

from pipeline.config import InputConfig
from pipeline.files import InputFile, list_files
from pipeline.formats.compressed import open_text, read_chunks
from pipeline.formats.lines import BadRow, ReadStopped, Scan, scan, split
from pipeline.formats.parquet import read_footer
from pipeline.formats.registry import TextFormat, text_format
from rows.storage import first_line

READERS = 16  # files read at once: an object store answers late


@dataclass(frozen=True)
class ScannedFile:
    """A file and its rows.

    cuts: offsets of every stride-th row and the end (text), or rows of each row group (Parquet).

    checksum: of the text, or the size of a Parquet file. sizes: bytes of each row group (Parquet). names: of
    CSV columns. chats: a batch file's first rows hold messages.
    """

    file: InputFile
    num_rows: int
    schema: pa.Schema
    checksum: int
    cuts: list[int]
    sizes: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    chats: bool = False


def scan_files(config: InputConfig, stride: int) -> list[ScannedFile]:
    """Every file with rows to read, in order; raises ValueError naming a file that cannot be read."""
    files = list_files(config.paths, config.format)
    if config.limit is not None:
        return list(_until(config.limit, files, config, stride))
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(lambda file: _scan_file(file, config, stride, None), files))


def _until(limit: int, files: Iterable[InputFile], config: InputConfig, stride: int) -> Iterator[ScannedFile]:
    for file in files:
        if limit == 0:
            return
        yield (found := _scan_file(file, config, stride, limit))
        limit -= found.num_rows


def _scan_file(file: InputFile, config: InputConfig, stride: int, limit: int | None) -> ScannedFile:
    try:
        if file.format == "parquet":
            schema, groups, sizes = read_footer(file)
            num_rows = sum(groups) if limit is None else min(sum(groups), limit)
            return ScannedFile(file, num_rows, schema, file.size, groups, sizes)
        return _scan_text(file, text_format(file.format, config), config.schema_rows, stride, limit)
    except ValueError:
        raise
    except Exception as error:  # a file system of fsspec's raises what its library raises
        raise ValueError(
            f"input.path: {file.path} cannot be read: {getattr(error, 'strerror', None) or first_line(error)}"
        ) from error


def _scan_text(
    file: InputFile, format_: TextFormat, schema_rows: int, stride: int, limit: int | None
) -> ScannedFile:
    if file.compression and not file.size:
        raise ValueError(
            f"{file.path} is empty, which no {file.compression} file is; write it again or remove it"
        )
    try:
        kept: list[bytes] = []
        with open_text(file.path, file.compression) as stream:
            chunks = _keep_first(read_chunks(stream, file.compression), kept)
            found = scan(chunks, format_.splitter(), stride, limit, format_.has_header)
        head = b"".join(kept)
        sampled = min(len(found.cuts) - 1, -(-schema_rows // stride))
        if found.cuts[sampled] > len(head):
            with open_text(file.path, file.compression) as stream:
                head = stream.read(found.cuts[sampled])
    except ReadStopped as error:
        kind, remedy = (
            (file.compression, "it is cut off or damaged") if file.compression else ("it", "try again")
        )
        place = f"behind row {error.num_rows:,} ({error.num_bytes:,} bytes of text)"
        raise ValueError(
            f"{file.path} cannot be read to its end: {kind} stops {place}: {error}; "
            f"{remedy}: write the file again"
        ) from error
    try:
        names = format_.columns(head[: found.cuts[0]].removesuffix(b"\n"))
    except BadRow as error:
        raise ValueError(
            f"{file.path}: the header, which is its first row, cannot be read: {error}"
        ) from error
    rows = list(islice(_sample(head[: found.cuts[sampled]], found, format_, names), schema_rows))
    chats = file.format == "openai_batch" and any("messages" in row for row in rows)
    return ScannedFile(
        file,
        found.num_rows,
        format_.schema(rows, names),
        found.checksum,
        found.cuts,
        names=names,
        chats=chats,
    )


def _keep_first(chunks: Iterable[bytes], kept: list[bytes]) -> Iterator[bytes]:
    """All chunks; the first stays in kept, so that a small file is read once only."""
    for chunk in chunks:
        if not kept:
            kept.append(chunk)
        yield chunk


def _sample(head: bytes, found: Scan, format_: TextFormat, names: list[str]) -> Iterator[Mapping[str, Any]]:
    """The first rows; a bad one teaches nothing about types."""
    first = found.cuts[0]
    for offset, row in split(head[first:], format_.splitter()):
        try:
            yield format_.parse(row, first + offset == 0, names)
        except BadRow:
            yield {}
