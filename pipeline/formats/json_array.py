"""A JSON list of objects, on one line or on many: every element is a row.

A row ends at the comma behind its element. So commas are told apart by the brackets around them, and brackets
by the strings around them: a list that is cut off, or has a quote too many, is refused when it is planned.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from engine.settings import shown
from pipeline.files import InputFile
from pipeline.formats.base import Columns, Rows, ScannedFile
from pipeline.formats.compressed import open_text
from pipeline.formats.jsonl import JsonLines, as_object
from pipeline.formats.lines import BadFile, BadRow, Scan, Splitter, decode
from pipeline.formats.nesting import check_nesting, too_deep

QUOTE = ord('"')
BACKSLASH = ord("\\")
MARKS = b"[]{},"  # what means something outside of strings
# What a byte adds to the depth of brackets.
DEPTH = np.zeros(256, np.int64)
DEPTH[[ord("["), ord("{")]] = 1
DEPTH[[ord("]"), ord("}")]] = -1
DECODER = json.JSONDecoder()
WHITE = " \t\r\n"
PEEKED = 1 << 10
MARK_OF_BYTES = b"\xef\xbb\xbf"  # the byte order mark, in UTF-8


class ElementSplitter:
    """Rows end behind the commas between the elements of a list. Raises BadFile for one left open."""

    def __init__(self, has_start: bool = True, has_end: bool = True) -> None:
        """Whether the text has the brackets that begin and end the list; a run of elements may have none."""
        self.offset = 0  # of the chunk in the stream
        self.depth = int(not has_start)
        self.is_whole = has_start and has_end
        self.is_closed = False  # whether the list has ended before the chunk
        self.is_open = False  # whether the chunk begins inside of a string
        self.is_escaped = False  # whether the chunk's first byte follows a backslash that counts

    def feed(self, chunk: bytes) -> np.ndarray:
        """The commas of the chunk between elements."""
        text = np.frombuffer(chunk, np.uint8)
        quotes = self._quotes(text)
        # Comparing is faster than looking each byte up in a table.
        marks = np.flatnonzero(np.logical_or.reduce([text == mark for mark in MARKS]))
        marks = marks[(np.searchsorted(quotes, marks) + self.is_open) % 2 == 0]
        depths = self.depth + DEPTH[text[marks]].cumsum()
        commas = marks[(text[marks] == ord(",")) & (depths == 1)]
        self.is_open ^= len(quotes) % 2 == 1
        self.depth = int(depths[-1]) if len(depths) else self.depth
        if self.is_whole:
            self._check_rest(chunk, marks[depths < 1])
        ends = commas + (self.offset + 1)
        self.offset += len(chunk)
        return ends

    def _check_rest(self, chunk: bytes, ends: np.ndarray) -> None:
        """Only white space may follow the list. ends: where in the chunk no bracket is open any more."""
        if not self.is_closed and not len(ends):
            return
        rest = chunk[0 if self.is_closed else int(ends[0]) + 1 :].lstrip(WHITE.encode())
        self.is_closed = True
        if rest:
            place = self.offset + len(chunk) - len(rest)
            found = f"behind the end of its list, at byte {place:,}, stands {shown(_text(rest[:80]))}"
            remedy = "write the file again, or, if its lines are the rows, set input.format: jsonl"
            raise BadFile(f"{found}; {remedy}")

    def _quotes(self, text: np.ndarray) -> np.ndarray:
        """The quotes that begin or end a string: an odd number of backslashes makes one a letter."""
        quotes = np.flatnonzero(text == QUOTE)
        slashes = np.flatnonzero(text == BACKSLASH)
        if self.is_escaped:  # as if the backslash stood before the chunk
            slashes = np.concatenate([[-1], slashes])
        numbers = np.arange(len(slashes))
        begins_run = np.diff(slashes, prepend=-3) > 1
        runs = numbers - np.maximum.accumulate(np.where(begins_run, numbers, 0)) + 1  # up to each backslash
        escaping = slashes[runs % 2 == 1]
        if len(text):
            self.is_escaped = bool(len(escaping) and escaping[-1] == len(text) - 1)
        return quotes[~np.isin(quotes - 1, escaping, assume_unique=True)]

    def finish(self) -> np.ndarray:
        """Nothing: the last row goes on to the end of the text."""
        if self.is_whole and (self.is_open or self.depth):
            what = "inside of a text" if self.is_open else f"{self.depth} brackets are open"
            raise BadFile(f"its list is cut off or damaged: at the end {what}; write the file again")
        return np.empty(0, np.int64)


def _text(data: bytes) -> str:
    return data.decode(errors="replace").rstrip()


class JsonArray(JsonLines):
    """The elements of a list; columns and types as the elements show them."""

    def splitter(self) -> Splitter:
        """Rows end at the commas between elements."""
        return ElementSplitter()

    def part_splitter(self, at_start: bool) -> Splitter:
        """The same for some of the elements."""
        return ElementSplitter(has_start=at_start, has_end=False)

    def parse(self, row: bytes, first: bool, names: Sequence[str]) -> dict[str, Any]:
        """The object that an element is; raises BadRow."""
        text = decode(row, first).lstrip(WHITE)
        if first:
            text = text.removeprefix("[").lstrip(WHITE)
        try:
            element, end = DECODER.raw_decode(text)
        except RecursionError as error:
            raise too_deep("the element") from error
        except ValueError as error:
            raise BadRow(f"the element is not JSON: {error}; fix it") from error
        if text[end:].strip(WHITE) not in ("", "]"):
            raise BadRow(f"the element has {text[end : end + 20]!r} behind it; fix it")
        check_nesting(element, text, "the element")
        return as_object(element, "element")

    def _find_rows(self, file: InputFile, stride: int, limit: int | None) -> tuple[Scan, bytes]:
        found, head = super()._find_rows(file, stride, limit)
        if head.removeprefix(MARK_OF_BYTES).split() in ([b"[]"], [b"[", b"]"]):
            return Scan(0, [0], found.checksum), b""
        return found, head


class JsonFile:
    """A `.json` file: a list of objects if it begins with a bracket, else JSON lines. Only scans."""

    def __init__(self, lines: JsonLines, array: JsonArray) -> None:
        self.by_format = {"jsonl": lines, "json_array": array}

    def scan(self, file: InputFile, stride: int, limit: int | None) -> ScannedFile:
        """The plan names the format that the file turned out to have."""
        found = "json_array" if _begins_list(file) else "jsonl"
        return self.by_format[found].scan(replace(file, format=found), stride, limit)

    def read(self, piece: Mapping[str, Any], columns: Columns) -> Rows:
        """Pieces are of the format that the scan has found."""
        raise AssertionError(f"a piece of the format {piece['format']}")


def _begins_list(file: InputFile) -> bool:
    """Whether the first byte that is no white space is a bracket."""
    head = b""
    try:
        with open_text(file.path, file.compression) as stream:
            while not head and (chunk := stream.read(PEEKED)):
                head = chunk.removeprefix(MARK_OF_BYTES).lstrip()
    except OSError:  # the scan will fail in the same way, and says after which row
        return False
    return head.startswith(b"[")
