"""The files of a reference corpus and the texts in them, as they were written or as token ids.

A plain text is one text. JSON lines (transcripts too) and Parquet (the parts of a run too) hold a text or a
list of token ids in a column. Owns the checks of what a user hands in: a ValueError names file and place.
"""

import codecs
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from engine.settings import shown
from rows.storage import first_line, locate
from rows.unicode import unicode_fault

Text = str | NDArray[np.int32]
KINDS = {".txt": "text", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet"}
COMPRESSIONS = (".gz", ".zst")  # pyarrow knows them by the name
COLUMNS = ("generated_ids", "generated_text", "output", "text")  # where none is named: the first of these
PIECE_BYTES = 1 << 20  # a longer plain text is read in pieces, so that its beginning alone can be read
MAX_ID = 2**31 - 1


@dataclass(frozen=True)
class CorpusFile:
    """path opens it. kind: one of KINDS. size: in bytes. time: seconds of its last change, 0 = unknown."""

    path: str
    kind: str
    size: int
    time: float


def kind_of(path: str) -> str | None:
    """The kind that a file's name tells, None = another name."""
    stem, suffix = os.path.splitext(path)
    return KINDS.get(os.path.splitext(stem)[1] if suffix in COMPRESSIONS else suffix)


def read_texts(file: CorpusFile, columns: Sequence[str]) -> Iterator[Text]:
    """The texts of a file in its order, empty ones left out; columns: of these the first that is there."""
    readers: dict[str, Callable[[CorpusFile, Sequence[str]], Iterator[Any]]] = {
        "text": _plain_text,
        "jsonl": _json_lines,
        "parquet": _parquet,
    }
    try:
        yield from (text for text in readers[file.kind](file, columns) if len(text))
    except UnicodeDecodeError as error:
        raise ValueError(f"{file.path} is not UTF-8: {error.reason}; it must hold text") from error
    except Exception as error:  # a file system of fsspec's raises what its library raises
        if isinstance(error, ValueError) and not isinstance(error, pa.ArrowInvalid):
            raise ValueError(f"{file.path}: {error}") from error
        remedy = "write the file again, or leave it out"
        raise ValueError(f"{file.path} cannot be read: {first_line(error)}; {remedy}") from error


def _open(file: CorpusFile) -> io.BufferedReader:
    """The file's bytes, decompressed."""
    filesystem, inner = locate(file.path)
    return io.BufferedReader(filesystem.open_input_stream(inner))


def _plain_text(file: CorpusFile, columns: Sequence[str]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    text = ""
    with _open(file) as stream:
        while data := stream.read(PIECE_BYTES):
            text += decoder.decode(data)
            if len(data) == PIECE_BYTES:
                end = text.rfind("\n") + 1 or len(text)
                yield text[:end]
                text = text[end:]
        yield text + decoder.decode(b"", final=True)


def _json_lines(file: CorpusFile, columns: Sequence[str]) -> Iterator[Text]:
    names: dict[str, None] = {}
    has_column = False
    with _open(file) as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                row = _json_object(line)
                value = next((row[name] for name in columns if row.get(name) is not None), None)
                text = _checked(value)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
            has_column = has_column or any(name in row for name in columns)
            names |= dict.fromkeys(row)
            yield text
    if names and not has_column:
        raise _no_column(columns, list(names))


def _json_object(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(row, dict):
        raise ValueError(f"found {shown(row)}; a line must be a JSON object")
    return row


def _parquet(file: CorpusFile, columns: Sequence[str]) -> Iterator[Text]:
    filesystem, inner = locate(file.path)
    with pq.ParquetFile(inner, filesystem=filesystem) as parquet:
        names = parquet.schema_arrow.names
        column = next((name for name in columns if name in names), None)
        if column is None:
            raise _no_column(columns, names)
        for batch in parquet.iter_batches(columns=[column]):
            yield from map(_checked, batch.column(0).to_pylist())


def _no_column(columns: Sequence[str], names: Sequence[str]) -> ValueError:
    wanted = " or ".join(map(repr, columns))
    found = ", ".join(map(repr, names)) or "none"
    return ValueError(f"there is no column {wanted}, it has {found}; set speculation.corpus_column")


def _checked(value: Any) -> Text:
    """A text, or token ids as int32; null is an empty text."""
    if value is None:
        return ""
    if isinstance(value, str):
        if fault := unicode_fault(value):
            raise ValueError(f"a text is not valid Unicode: {fault}")
        return value
    if not isinstance(value, list):
        raise ValueError(f"found {shown(value)}; it must be a text or a list of token ids")
    for token in value:
        if type(token) is not int or not 0 <= token <= MAX_ID:
            raise ValueError(f"found {shown(token)} in place of a token id; ids are integers of at least 0")
    return np.array(value, np.int32)
