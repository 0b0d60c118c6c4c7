"""What every input format can do: scan a file for the plan, and read the rows of a piece of it.

A format owns its files from opening to rows; nothing outside this folder asks what kind of file it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from engine.settings import shown
from pipeline.files import InputFile
from rows.prompts import Prompt


@dataclass(frozen=True)
class ScannedFile:
    """A file and where its rows lie.

    cuts: offsets of every stride-th row and the end (text), or the rows of each row group (Parquet).
    checksum: of the text, or the size of a Parquet file. sizes: bytes of each row group (Parquet). names: of
    CSV columns. chats: the first rows of an OpenAI batch file hold messages. mixed: columns that can be
    carried as JSON where their types differ. unreadable: what is wrong with the first row, if none of the
    first rows can be read (text).
    """

    file: InputFile
    num_rows: int
    schema: pa.Schema
    checksum: int
    cuts: list[int]
    sizes: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    chats: bool = False
    mixed: Sequence[str] = ()
    unreadable: str | None = None


@dataclass(frozen=True)
class Columns:
    """Which columns are read. schema: of the whole input; carried: those that are kept.

    strict: the schema's columns are all there are, so another one is an error of its row. special: the
    columns that mean something, such as the prompt.
    """

    schema: pa.Schema
    carried: pa.Schema
    strict: bool
    special: Sequence[str]


@dataclass(frozen=True)
class Rows:
    """The rows of a piece.

    carried: the columns that are kept. rows: at least the columns that make prompts. errors, misfits: what is
    wrong with each row, None = nothing. places: byte offsets (text) or row numbers (Parquet), by which rows
    are seeded.
    """

    carried: pa.Table
    rows: Sequence[Mapping[str, Any]]
    errors: Sequence[str | None]
    misfits: Sequence[str | None]
    places: Sequence[int]

    def with_errors(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """The prompts of these rows; a row that cannot be read says so before what its prompt lacks."""
        found = zip(prompts, self.errors, self.misfits, strict=True)
        return [
            Prompt(error=error or prompt.error or misfit) if error or misfit else prompt
            for prompt, error, misfit in found
        ]

    def first(self, count: int) -> "Rows":
        """The first of these rows."""
        return Rows(
            carried=self.carried.slice(0, count),
            rows=self.rows[:count],
            errors=self.errors[:count],
            misfits=self.misfits[:count],
            places=self.places[:count],
        )


def shown_scalar(value: pa.Scalar) -> str:
    """A value for a message; Parquet's writers need not check that text is UTF-8."""
    try:
        return shown(value.as_py())
    except UnicodeDecodeError:
        return "a text that is not UTF-8"


class InputFormat(Protocol):
    """One format; an object may keep a file open between the pieces that it reads."""

    def scan(self, file: InputFile, stride: int, limit: int | None) -> ScannedFile:
        """Counts the rows of a file, at most `limit`; raises ValueError naming a file that cannot be read."""

    def read(self, piece: Mapping[str, Any], columns: Columns) -> Rows:
        """The rows of a piece of the plan. Pieces of one file come in the plan's order."""
