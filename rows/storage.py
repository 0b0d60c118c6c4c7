"""Where a path or URI lies (local disk or object store), and writing a file there so that it is either whole
or absent.

Does not know what the files hold.
"""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

import pyarrow as pa
from pyarrow import fs


def is_uri(path: str) -> bool:
    """Whether a path names a file system of its own, as in s3://bucket/prompts."""
    return "://" in path


def locate(path: str) -> tuple[fs.FileSystem, str]:
    """The file system of a path or URI and the path within it."""
    if not is_uri(path):
        return fs.LocalFileSystem(), os.path.abspath(path)
    try:
        return fs.FileSystem.from_uri(path)
    except pa.ArrowInvalid as error:
        if "Unrecognized filesystem type" in str(error):
            return _through_fsspec(path)
        raise _cannot_open(path, error) from error
    except OSError as error:
        raise _cannot_open(path, error) from error


def _through_fsspec(path: str) -> tuple[fs.FileSystem, str]:
    """File systems that pyarrow does not know itself: http, memory, sftp and so on; each may need a package
    of its own.
    """
    from fsspec.core import url_to_fs

    try:
        filesystem, inner = url_to_fs(path)
    except (ImportError, ValueError, TypeError, OSError) as error:
        # An ImportError names the package; a TypeError says that an option is missing.
        raise _cannot_open(path, error) from error
    return fs.PyFileSystem(fs.FSSpecHandler(filesystem)), inner


def _cannot_open(path: str, error: Exception) -> ValueError:
    return ValueError(
        f"{path!r} cannot be opened: {first_line(error)}; give a path or a URI such as s3://bucket/prompts"
    )


def first_line(error: Exception) -> str:
    """What an error says, without the advice and traces that some libraries put below."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def whole_file(path: str) -> Iterator[IO[bytes]]:
    """A local file to write, which has its name once the block has ended without an error.

    Raises ValueError, before the block is entered, where no file can be made.
    """
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    try:
        if os.path.isdir(path):
            raise IsADirectoryError(None, "Is a directory")
        file = open(temporary, "xb")  # noqa: SIM115  (closed below)
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror}") from error
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
