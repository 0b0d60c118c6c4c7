"""What all text formats share: opening a file, compressed or not, finding its rows, and reading those of a
piece.

A format says how a row is parsed and, where it differs from lines, where rows end (CSV) and what the header
means.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa

from pipeline.files import InputFile
from pipeline.formats.base import Columns, Rows, ScannedFile
from pipeline.formats.compressed import open_text, read_chunks
from pipeline.formats.lines import BadFile, BadRow, NewlineSplitter, ReadStopped, Scan, Splitter, scan, split
from pipeline.schema import fit_rows
from rows.storage import locate

SKIP_BYTES = 1 << 20


class TextFormat(ABC):
    """A format whose rows are runs of bytes. schema_rows: rows that columns and types are learned from."""

    def __init__(self, schema_rows: int) -> None:
        self.schema_rows = schema_rows
        self._stream: Any = None  # compressed text, which can only be read from the front
        self._path = ""
        self._offset = 0

    # What a format may say

    has_header = False  # whether the first row names the columns
    mixed: Sequence[str] = ()  # columns whose values may have no common type (pipeline/schema.py)

    def columns(self, header: bytes) -> list[str]:
        """The names of the columns, where rows do not bring them. Raises BadRow."""
        return []

    def splitter(self) -> Splitter:
        """What finds the ends of rows in a file."""
        return NewlineSplitter()

    def part_splitter(self, at_start: bool) -> Splitter:
        """What finds them in a run of whole rows; at_start: with the first row of the file."""
        return self.splitter()

    @abstractmethod
    def parse(self, row: bytes, first: bool, names: Sequence[str]) -> dict[str, Any]:
        """The columns of a row.

        first: it is the first of its file; names: what `columns` gave. Raises BadRow.
        """

    @abstractmethod
    def schema(self, rows: Iterable[Mapping[str, Any]], names: Sequence[str]) -> pa.Schema:
        """The columns and types of a file that begins with these rows."""

    def holds_chats(self, rows: Iterable[Mapping[str, Any]]) -> bool:
        """Whether these rows need a chat template, whatever the settings say."""
        return False

    def carried(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row as it is kept, where that differs from what its prompt is made of."""
        return row

    # Scanning

    def scan(self, file: InputFile, stride: int, limit: int | None) -> ScannedFile:
        """Reads the file to its end, since only the ends of rows tell where rows are."""
        if file.compression and not file.size:
            kind = f"which no {file.compression} file is"
            raise ValueError(f"{file.path} is empty, {kind}; write it again or remove it")
        try:
            found, head = self._find_rows(file, stride, limit)
        except ReadStopped as error:
            raise _cut_short(file, error) from error
        except BadFile as error:
            raise ValueError(f"{file.path}: {error}") from error
        header = head[: found.cuts[0]].removesuffix(b"\n")
        try:
            names = self.columns(header)
        except BadRow as error:
            what = "the header, which is its first row, cannot be read"
            raise ValueError(f"{file.path}: {what}: {error}") from error
        sample = list(islice(self._sample(head, found.cuts[0], names), self.schema_rows))
        rows = [row for row, _ in sample]
        errors = [error for _, error in sample]
        return ScannedFile(
            file=file,
            num_rows=found.num_rows,
            schema=self.schema(rows, names),
            checksum=found.checksum,
            cuts=found.cuts,
            names=names,
            chats=self.holds_chats(rows),
            mixed=self.mixed,
            unreadable=errors[0] if all(errors) and errors else None,
        )

    def _find_rows(self, file: InputFile, stride: int, limit: int | None) -> tuple[Scan, bytes]:
        """Where the rows lie, and the beginning of the text with the rows that types are learned from."""
        kept: list[bytes] = []
        with open_text(file.path, file.compression) as stream:
            chunks = _keep_first(read_chunks(stream, file.compression), kept)
            found = scan(chunks, self.splitter(), stride, limit, self.has_header)
        head = b"".join(kept)
        end = found.cuts[min(len(found.cuts) - 1, -(-self.schema_rows // stride))]
        if end > len(head):
            with open_text(file.path, file.compression) as stream:
                head = stream.read(end)
        return found, head[:end]

    def _sample(
        self, head: bytes, first: int, names: list[str]
    ) -> Iterator[tuple[Mapping[str, Any], str | None]]:
        """The first rows, each with its error; a bad one teaches nothing about types."""
        for offset, row in split(head[first:], self.part_splitter(at_start=True)):
            try:
                yield self.parse(row, first + offset == 0, names), None
            except BadRow as bad:
                yield {}, str(bad)

    # Reading

    def read(self, piece: Mapping[str, Any], columns: Columns) -> Rows:
        """The rows of a piece; a bad row keeps its error and the columns that could be read."""
        places = []
        rows = []
        errors: list[str | None] = []
        for offset, line in split(self._text(piece), self.part_splitter(piece["first_byte"] == 0)):
            places.append(piece["first_byte"] + offset)
            try:
                rows.append(self.parse(line, places[-1] == 0, piece["names"]))
                errors.append(None)
            except BadRow as bad:
                rows.append(bad.row)
                errors.append(str(bad))
        kept = [self.carried(row) for row in rows]
        carried, misfits = fit_rows(kept, columns.carried, columns.strict, self.mixed)
        return Rows(carried, rows, errors, misfits, places)

    def _text(self, piece: Mapping[str, Any]) -> bytes:
        if not piece["compression"]:
            filesystem, inner = locate(piece["path"])
            with filesystem.open_input_file(inner) as file:
                return file.read_at(piece["num_bytes"], piece["first_byte"])
        if self._path != piece["path"] or self._offset > piece["first_byte"]:
            self._stream = open_text(piece["path"], piece["compression"])
            self._path = piece["path"]
            self._offset = 0
        while self._offset < piece["first_byte"]:  # the header, or shards that are done already
            skipped = self._stream.read(min(SKIP_BYTES, piece["first_byte"] - self._offset))
            if not skipped:
                break
            self._offset += len(skipped)
        data: bytes = self._stream.read(piece["num_bytes"])
        self._offset += len(data)
        return data


def _keep_first(chunks: Iterable[bytes], kept: list[bytes]) -> Iterator[bytes]:
    """All chunks; the first stays in `kept`, so that a small file is read once only."""
    for chunk in chunks:
        if not kept:
            kept.append(chunk)
        yield chunk


def _cut_short(file: InputFile, error: ReadStopped) -> ValueError:
    kind = file.compression or "it"
    reason = "it is cut off or damaged" if file.compression else "try again"
    place = f"after row {error.num_rows:,} ({error.num_bytes:,} bytes of text)"
    return ValueError(
        f"{file.path} cannot be read to its end: {kind} stops {place}: {error}; {reason}: "
        f"write the file again"
    )
