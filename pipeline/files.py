"""The input's files: paths, folders, globs and URIs become a sorted list with sizes and formats.

Reads no file.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pyarrow import fs

from pipeline.config import FORMATS
from pipeline.formats.compressed import SUFFIXES as COMPRESSIONS
from rows.find_files import FoundFiles, find_files

SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".txt": "text",
    ".parquet": "parquet",
    ".pq": "parquet",
}
KNOWN = f"{', '.join(SUFFIXES)}, and the text formats with {' or '.join(COMPRESSIONS)} after them"


@dataclass(frozen=True)
class InputFile:
    """path opens it; name is its path below the input's root, by which rows are seeded: a moved folder keeps
    its names.

    compression: gzip, zstd or None. size: in bytes, as stored.
    """

    name: str
    path: str
    format: str
    size: int
    compression: str | None = None


def list_files(paths: Sequence[str], format_: str = "auto") -> list[InputFile]:
    """The files that the paths name, each once, in the order of the paths and sorted within a
    folder or glob.
    """
    files: list[InputFile] = []
    for index, path in enumerate(paths):
        found = _list_one(path, format_)
        # equal names in two folders must not share seeds
        files += [replace(file, name=f"{index}/{file.name}") for file in found] if len(paths) > 1 else found
    repeated = sorted(path for path, count in Counter(file.path for file in files).items() if count > 1)
    if repeated:
        raise ValueError(f"input.path names {repeated[0]!r} more than once; name each file once")
    return files


def _list_one(path: str, format_: str) -> list[InputFile]:
    found = find_files("input.path", path)
    infos = found.infos
    if found.is_folder and format_ == "auto":  # it may hold a README; a glob that matches one is a mistake
        infos = [i for i in infos if _known(i.path)[0]]
        # Data sets come with descriptions in JSON beside them.
        infos = [i for i in infos if _known(i.path)[0] != "json"] or infos
    if not infos:
        raise ValueError(
            f"input.path {path!r} holds no files to read; "
            f"known are names in {KNOWN} (others need input.format)"
        )
    return [_input_file(found, info, format_) for info in infos]


def _known(path: str) -> tuple[str | None, str | None]:
    """Format and compression that a name tells: prompts.csv.gz is csv in gzip."""
    stem, suffix = os.path.splitext(path)
    compression = COMPRESSIONS.get(suffix)
    return SUFFIXES.get(os.path.splitext(stem)[1] if compression else suffix), compression


def _input_file(found: FoundFiles, info: fs.FileInfo, format_: str) -> InputFile:
    known, compression = _known(info.path)
    format_ = known or "" if format_ == "auto" else format_
    if not format_:
        raise ValueError(
            f"the format of {info.path!r} is not known from its name; "
            f"set input.format: {', '.join(FORMATS[1:])}"
        )
    if format_ == "parquet" and compression:
        raise ValueError(
            f"{info.path!r} is Parquet inside {compression}, which cannot be read in pieces; unpack it"
        )
    name = info.path[len(found.root) :].lstrip("/")
    return InputFile(name, found.path_of(info), format_, info.size, compression)
