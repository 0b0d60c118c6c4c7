"""JSON lines: where rows begin, and what a line holds. Lines end at the byte \\n and nowhere else.

A line is a row, whatever is in it; one that is not a JSON object is a row with an error. Does not know columns or types.
"""

import json
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

CHUNK = 8 << 20


def scan(stream: BinaryIO, stride: int, limit: int | None) -> tuple[int, list[int], int]:
    """Counts rows and finds where every stride-th begins: (rows, byte offsets and then the end, checksum of what was read).

    With stride 2, b"a\\nb\\nc" has rows at 0, 2 and 4 and ends at 5: (3, [0, 4, 5], ...).
    """
    starts, rows, offset, end, checksum = [0], 0, 0, 0, 0
    while chunk := stream.read(CHUNK):
        checksum = zlib.crc32(chunk, checksum)
        next_starts = np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n")) + (offset + 1)
        if limit is not None and rows + len(next_starts) >= limit:
            next_starts = next_starts[: limit - rows]
        first = stride - 1 - rows % stride  # next_starts[i] begins row number rows + i + 1
        starts += next_starts[first::stride].tolist()
        rows, offset = rows + len(next_starts), offset + len(chunk)
        end = int(next_starts[-1]) if len(next_starts) else end
        if rows == limit:
            break
    else:
        rows, end = rows + (offset > end), offset  # a last line without \n
    return rows, [start for start in starts if start < end] + [end], checksum


def first_lines(stream: BinaryIO, count: int) -> list[bytes]:
    """The first count lines of a file, which has at least so many."""
    chunks, left = [], count
    while left > 0 and (chunk := stream.read(1 << 16)):
        chunks.append(chunk)
        left -= chunk.count(b"\n")
    return b"".join(chunks).split(b"\n")[:count]


def read_lines(data: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    """The lines of a run of whole rows that begins at this byte of its file: (byte offset, line)."""
    lines = data.split(b"\n")
    if lines[-1] == b"":  # a final newline ends the last row; it does not begin another
        lines.pop()
    for line in lines:
        yield offset, line
        offset += len(line) + 1


def parse_line(line: bytes, first: bool = False) -> dict[str, Any] | str:
    """The row of a line, or what is wrong with it. first: of its file, where a byte order mark may stand."""
    try:
        text = line.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        return f"the line is not UTF-8: {error.reason} at its byte {error.start}; mend the row"
    if not text.strip():
        return "the line is empty; remove it or give it a JSON object"
    if not text.strip("\0"):
        return f"the line is {len(text)} NUL bytes, as a torn write leaves them; write the file again"
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"the line is not JSON: {error}; mend the row"
    return row if isinstance(row, dict) else f"the line is a JSON {type(row).__name__}; it must be an object with named fields"
