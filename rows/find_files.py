"""The files that a path names: itself, those of a folder, or what a glob matches; each local or a URI.

Reads no file, and does not know what they hold.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow import fs

from rows.storage import first_line, is_uri, locate

GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class FoundFiles:
    """infos: of the files, sorted by path. root: the folder that they lie below.

    shell: what stands before and after a file's path in a URI. is_folder: the path is a folder, which may
    hold files that nobody means.
    """

    infos: list[fs.FileInfo]
    root: str
    shell: tuple[str, str]
    is_folder: bool = False

    def path_of(self, info: fs.FileInfo) -> str:
        """What opens the file: a path or URI."""
        before, after = self.shell
        return f"{before}{info.path}{after}"


def find_files(setting: str, path: str) -> FoundFiles:
    """The files that the path names, perhaps none; raises ValueError, naming the setting, where it cannot be
    read.
    """
    filesystem, inner = locate(path)
    shell = _uri_around(path, inner)
    try:
        info = filesystem.get_file_info(inner)
        if info.type == fs.FileType.File:
            return FoundFiles([info], os.path.dirname(inner), shell)
        if info.type == fs.FileType.Directory:
            infos = filesystem.get_file_info(fs.FileSelector(inner, recursive=True))
            return FoundFiles(_data(infos, inner), inner, shell, is_folder=True)
        if GLOB.search(inner):
            root = os.path.dirname(GLOB.split(inner, maxsplit=1)[0])
            return FoundFiles(_data(_glob(setting, filesystem, inner), root), root, shell)
    except ValueError:
        raise
    except Exception as error:  # a file system of fsspec's raises what its library raises
        raise ValueError(f"{setting} {path!r} cannot be read: {first_line(error)}") from error
    raise ValueError(
        f"{setting} {path!r} does not exist (looked for {inner}); check it, or run from another folder"
    )


def _uri_around(path: str, inner: str) -> tuple[str, str]:
    """What stands before and after the inner path in a URI: scheme and host, and the query with the file
    system's options.
    """
    if not is_uri(path) or is_uri(inner):
        return "", ""
    base, mark, query = path.partition("?")
    return base.removesuffix(inner) if base.endswith(inner) else base.split("://")[0] + "://", mark + query


def _glob(setting: str, filesystem: fs.FileSystem, pattern: str) -> list[fs.FileInfo]:
    """What the pattern matches: `**` crosses folders; `*`, `?` and `[a-z]` do not."""
    try:
        found = ArrowFSWrapper(filesystem).glob(pattern, detail=True)
    except ValueError as error:
        raise ValueError(f"{setting} {pattern!r} is no glob: {error}") from error
    return [
        fs.FileInfo(path, fs.FileType.File, size=entry["size"], mtime=entry.get("mtime"))
        for path, entry in found.items()
        if entry["type"] == "file"
    ]


def _data(infos: Sequence[fs.FileInfo], root: str) -> list[fs.FileInfo]:
    """The files among these, in order; names below root that begin with . or _ are no data."""
    hidden = re.compile(r"(^|/)[._]")
    files = [i for i in infos if i.type == fs.FileType.File and not hidden.search(i.path[len(root) + 1 :])]
    return sorted(files, key=lambda i: i.path)
