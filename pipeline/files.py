"""The input's files: paths, folders, globs and URIs become a sorted list with sizes and formats. Reads no file."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from pyarrow import fs

from actors.storage import is_uri, locate

SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet"}


@dataclass(frozen=True)
class InputFile:
    """path opens it; name is its path below the input's root, by which rows are seeded: a moved folder keeps its names."""

    name: str
    path: str
    format: str
    size: int


def list_files(paths: Sequence[str], format_: str = "auto") -> list[InputFile]:
    """The files that the paths name, each once, in the order of the paths and sorted within a folder or glob."""
    files: list[InputFile] = []
    for index, path in enumerate(paths):
        found = _list_one(path, format_)
        # equal names in two folders must not share seeds
        files += [InputFile(f"{index}/{f.name}", f.path, f.format, f.size) for f in found] if len(paths) > 1 else found
    repeated = sorted({f.path for f in files if sum(g.path == f.path for g in files) > 1}) if len(paths) > 1 else []
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
            infos, root, named = _walk(filesystem, inner, recursive=True), inner, False
        elif re.search(r"[*?\[]", inner):
            root, pattern = _glob(inner)
            infos, named = [i for i in _walk(filesystem, root, "/" in pattern) if re.fullmatch(pattern, i.path[len(root) + 1 :])], True
        else:
            raise ValueError(f"input.path {path!r} does not exist (looked for {inner}); check it, or run from another folder")
    except PermissionError as error:
        raise ValueError(f"input.path {path!r} cannot be read: {error}") from error
    if not named and format_ == "auto":  # a folder may hold a README; a glob that matches one is a mistake
        infos = [i for i in infos if os.path.splitext(i.path)[1] in SUFFIXES]
    if not infos:
        raise ValueError(f"input.path {path!r} holds no files to read; known are names in {', '.join(SUFFIXES)} (others need input.format)")
    return [_input_file(shell, i, root, format_) for i in infos]


def _uri_around(path: str, inner: str) -> tuple[str, str]:
    """What stands before and behind the inner path in a URI: scheme and host, and the query with the file system's options."""
    if not is_uri(path):
        return "", ""
    base, mark, query = path.partition("?")
    return base.removesuffix(inner) if base.endswith(inner) else base.split("://")[0] + "://", mark + query


def _walk(filesystem: fs.FileSystem, root: str, recursive: bool) -> list[fs.FileInfo]:
    """Files below root in order; names that begin with . or _ are no data."""
    infos = filesystem.get_file_info(fs.FileSelector(root, recursive=recursive, allow_not_found=True))
    hidden = re.compile(r"(^|/)[._]")
    return sorted((i for i in infos if i.type == fs.FileType.File and not hidden.search(i.path[len(root) + 1 :])), key=lambda i: i.path)


def _glob(path: str) -> tuple[str, str]:
    """The folder before the first wildcard, and the rest as a regular expression: ** crosses folders, * and ? do not."""
    root = os.path.dirname(re.split(r"[*?\[]", path, maxsplit=1)[0])
    signs = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", path[len(root) + 1 :])
    return root, "".join(signs.get(piece) or (piece.replace("[!", "[^") if piece.startswith("[") else re.escape(piece)) for piece in pieces)


def _input_file(shell: tuple[str, str], info: fs.FileInfo, root: str, format_: str) -> InputFile:
    found = SUFFIXES.get(os.path.splitext(info.path)[1]) if format_ == "auto" else format_
    if found is None:
        raise ValueError(f"the format of {info.path!r} is not known from its name; set input.format: jsonl or parquet")
    return InputFile(info.path[len(root) :].lstrip("/"), shell[0] + info.path + shell[1], found, info.size)
