"""Opens text files, compressed or not, and reads them from the front.

A compressed file can be read in no other way.

Archives of several members are one text. What is cut off or damaged raises OSError and is never a shorter
text.
"""

from collections.abc import Iterator
from typing import Any

from rows.storage import locate

SUFFIXES = {".gz": "gzip", ".zst": "zstd"}
# Bytes read at once. In a damaged archive the whole chunk that contains the damage is lost, so chunks of
# compressed files are small.
CHUNK = 8 << 20
COMPRESSED_CHUNK = 256 << 10


def open_text(path: str, compression: str | None) -> Any:
    """A context manager and stream of the file's text as bytes."""
    filesystem, inner = locate(path)
    return filesystem.open_input_stream(inner, compression=compression)


def read_chunks(stream: Any, compression: str | None) -> Iterator[bytes]:
    """The stream's bytes to its end; raises OSError where they cannot be read."""
    while chunk := stream.read(COMPRESSED_CHUNK if compression else CHUNK):
        yield chunk
