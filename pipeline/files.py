"""The input's files: paths, folders, globs and URIs become a sorted list with sizes and formats.

Reads no file.
"""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow import fs

from pipeline.config import FORMATS
from pipeline.formats.compressed import SUFFIXES as COMPRESSIONS
from rows.storage import first_line, is_uri, locate

SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".txt": "text",
    ".parquet": "parquet",
    ".pq": "parquet",
}
GLOB = re.compile(r"[*?\[]")
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
    filesystem, inner = locate(path)
    shell = _uri_around(path, inner)
    try:
        info = filesystem.get_file_info(inner)
        if info.type == fs.FileType.File:
            return [_input_file(shell, info, os.path.dirname(inner), format_)]
        if info.type == fs.FileType.Directory:
            infos = _data(filesystem.get_file_info(fs.FileSelector(inner, recursive=True)), inner)
            root = inner
            named = False
        elif GLOB.search(inner):
            root = os.path.dirname(GLOB.split(inner, maxsplit=1)[0])
            infos = _data(_glob(filesystem, inner), root)
            named = True
        else:
            raise ValueError(
                f"input.path {path!r} does not exist (looked for {inner}); "
                "check it, or run from another folder"
            )
    except ValueError:
        raise
    except Exception as error:  # a file system of fsspec's raises what its library raises
        raise ValueError(f"input.path {path!r} cannot be read: {first_line(error)}") from error
    if not named and format_ == "auto":  # a folder may hold a README; a glob that matches one is a mistake
        infos = [i for i in infos if _known(i.path)[0]]
        # Data sets come with descriptions in JSON beside them.
        infos = [i for i in infos if _known(i.path)[0] != "json"] or infos
    if not infos:
        raise ValueError(
            f"input.path {path!r} holds no files to read; "
            f"known are names in {KNOWN} (others need input.format)"
        )
    return [_input_file(shell, i, root, format_) for i in infos]


def _uri_around(path: str, inner: str) -> tuple[str, str]:
    """What stands before and after the inner path in a URI: scheme and host, and the query with the file
    system's options.
    """
    if not is_uri(path) or is_uri(inner):
        return "", ""
    base, mark, query = path.partition("?")
    return base.removesuffix(inner) if base.endswith(inner) else base.split("://")[0] + "://", mark + query


def _glob(filesystem: fs.FileSystem, pattern: str) -> list[fs.FileInfo]:
    """What the pattern matches: `**` crosses folders; `*`, `?` and `[a-z]` do not."""
    try:
        found = ArrowFSWrapper(filesystem).glob(pattern, detail=True)
    except ValueError as error:
        raise ValueError(f"input.path {pattern!r} is no glob: {error}") from error
    return [
        fs.FileInfo(path, fs.FileType.File, size=entry["size"])
        for path, entry in found.items()
        if entry["type"] == "file"
    ]


def _data(infos: Sequence[fs.FileInfo], root: str) -> list[fs.FileInfo]:
    """The files among these, in order; names below root that begin with . or _ are no data."""
    hidden = re.compile(r"(^|/)[._]")
    files = [i for i in infos if i.type == fs.FileType.File and not hidden.search(i.path[len(root) + 1 :])]
    return sorted(files, key=lambda i: i.path)


def _known(path: str) -> tuple[str | None, str | None]:
    """Format and compression that a name tells: prompts.csv.gz is csv in gzip."""
    stem, suffix = os.path.splitext(path)
    compression = COMPRESSIONS.get(suffix)
    return SUFFIXES.get(os.path.splitext(stem)[1] if compression else suffix), compression


def _input_file(shell: tuple[str, str], info: fs.FileInfo, root: str, format_: str) -> InputFile:
    found, compression = _known(info.path)
    format_ = found or "" if format_ == "auto" else format_
    if not format_:
        raise ValueError(
            f"the format of {info.path!r} is not known from its name; "
            f"set input.format: {', '.join(FORMATS[1:])}"
        )
    if format_ == "parquet" and compression:
        raise ValueError(
            f"{info.path!r} is Parquet inside {compression}, which cannot be read in pieces; unpack it"
        )
    return InputFile(
        info.path[len(root) :].lstrip("/"), shell[0] + info.path + shell[1], format_, info.size, compression
    )
