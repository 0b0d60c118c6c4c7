"""Where rows begin and end in a text file.

Knows no format but the plainest: rows end at the byte \\n and nowhere else.

A *splitter* is fed a file's chunks in order and answers with the ends of rows; other formats bring one of
their own.
"""

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


class BadRow(ValueError):
    """What is wrong with a row of the input. row: the columns that can be carried nevertheless."""

    def __init__(self, error: str, row: dict[str, Any] | None = None) -> None:
        super().__init__(error)
        self.row = row or {}


class BadFile(ValueError):
    """What is wrong with a whole file, so that its rows cannot be told apart."""


class ReadStopped(OSError):
    """A file cannot be read on. num_rows and num_bytes: of the text before."""

    def __init__(self, reason: str, num_rows: int, num_bytes: int) -> None:
        super().__init__(reason)
        self.num_rows = num_rows
        self.num_bytes = num_bytes


class Splitter(Protocol):
    """Finds the ends of rows; one per stream."""

    def feed(self, chunk: bytes) -> np.ndarray:
        """Offsets from the beginning of the stream, ascending, just after the rows that are known
        to end now.
        """

    def finish(self) -> np.ndarray:
        """The offsets after the rows that were left open, now that there is no more."""


class NewlineSplitter:
    """Rows end at the byte \\n."""

    def __init__(self) -> None:
        self.offset = 0

    def feed(self, chunk: bytes) -> np.ndarray:
        """Every newline of the chunk."""
        ends = np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n")) + (self.offset + 1)
        self.offset += len(chunk)
        return ends

    def finish(self) -> np.ndarray:
        """Nothing: a newline is never in doubt."""
        return np.empty(0, np.int64)


@dataclass(frozen=True)
class Scan:
    """cuts: where every stride-th row begins, and then the end; checksum: of what was read."""

    num_rows: int
    cuts: list[int]
    checksum: int


def scan(
    chunks: Iterable[bytes], splitter: Splitter, stride: int, limit: int | None, has_header: bool = False
) -> Scan:
    """Counts rows and finds where every stride-th begins; a header is no row. Raises ReadStopped.

    With stride 2, b"a\\nb\\nc" has rows at 0, 2 and 4 and ends at 5: Scan(3, [0, 4, 5], ...).
    """
    rows = -1 if has_header else 0  # rows whose end is known
    starts = [] if has_header else [0]
    offset = end = checksum = 0

    def take(next_starts: np.ndarray) -> None:
        nonlocal rows, end
        if limit is not None and rows + len(next_starts) >= limit:
            next_starts = next_starts[: limit - rows]
        first = stride - 1 - rows % stride  # next_starts[i] begins row number rows + i + 1
        starts.extend(next_starts[first::stride].tolist())
        rows += len(next_starts)
        end = int(next_starts[-1]) if len(next_starts) else end

    try:
        for chunk in chunks:
            checksum = zlib.crc32(chunk, checksum)
            offset += len(chunk)
            take(splitter.feed(chunk))
            if rows == limit:
                break
        else:
            take(splitter.finish())
            if rows != limit:
                # a last row without \n
                rows = rows + (offset > end)
                end = offset
    except OSError as error:
        raise ReadStopped(str(error), max(0, rows), offset) from error
    return Scan(max(0, rows), [start for start in starts if start < end] + [end], checksum)


def split(data: bytes, splitter: Splitter) -> Iterator[tuple[int, bytes]]:
    """The rows of a run of whole rows, without their newlines, each with its offset in the run."""
    start = 0
    for ends in (splitter.feed(data), splitter.finish()):
        for end in ends.tolist():
            yield start, data[start : end - 1]
            start = end
    if start < len(data):  # a final newline ends the last row; it does not begin another
        yield start, data[start:]


def decode(row: bytes, first: bool) -> str:
    """The text of a row, a byte order mark left out where it may stand: in the first of a file.

    Raises BadRow.
    """
    try:
        text = row.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        raise BadRow(
            f"the line is not UTF-8: {error.reason} at its byte {error.start}; fix the row"
        ) from error
    if text and not text.strip("\0"):
        raise BadRow(f"the line is {len(text)} NUL bytes, as a torn write leaves them; write the file again")
    return text
