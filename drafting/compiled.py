"""How this package compiles its loops: with numba, without the GIL, and kept on disk; and the types of the
records that these loops read.

A compiled function holds what it calls and every constant it names, from other files too, while numba's disk
cache asks for the time stamp of the function's own file alone. It also fails on an older cache file that
mentions a class which was renamed since. So the names of the cache files carry a digest of all source files
of the package and of this one, whose functions others call: any change to one of them makes all functions
compile again, and older cache files are never read.

Machine code does not check the indices that it is given: a wrong one reads other memory. With
NUMBA_BOUNDSCHECK=1 every function is compiled with checks, and a wrong index raises IndexError; `make test`
runs the tests of these functions that way.
"""

from collections.abc import Callable
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np

Function = TypeVar("Function", bound=Callable[..., Any])
BOUNDS_ARE_CHECKED = bool(getattr(numba.config, "BOUNDSCHECK", None))
MARK = ".source-"  # comes before the digest in the names of cache files


def record(**names_by_type: str) -> np.dtype[np.void]:
    """A type of records, one field for each of the names: record(int32="place match", float32="share")."""
    return np.dtype([(name, type_) for type_, names in names_by_type.items() for name in names.split()])


def compiled(function: Function) -> Function:
    """The function as machine code, compiled at its first call."""
    return _compiled(function, {})


def compiled_lean(function: Function) -> Function:
    """The function as machine code that counts no references; it must make no array except by slicing.

    Counting took half the time of small functions that are handed many arrays.
    """
    return _compiled(function, {"_nrt": False})


def compiled_sums(function: Function) -> Function:
    """The function as machine code that may add up in any order, or it could not use vector instructions."""
    return _compiled(function, {"error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz", "arcp"}})


def _compiled(function: Function, options: dict[str, Any]) -> Function:
    dispatcher = numba.njit(cache=True, nogil=True, **options)(function)
    if dispatcher is not function:  # as it is with NUMBA_DISABLE_JIT
        file = dispatcher._cache._cache_file
        name = file._index_name.removesuffix(".nbi") + MARK + _digest(Path(function.__code__.co_filename))
        if getattr(
            numba.config, "BOUNDSCHECK", None
        ):  # numba's cache would mix up functions with and without checks
            name += ".checked"
        dispatcher._cache._cache_file = type(file)(file._cache_path, name, file._source_stamp)
    return cast(Function, dispatcher)


def _digest(file: Path) -> str:
    """The digest of the outermost package that contains a file."""
    folder = file.parent
    while (folder.parent / "__init__.py").exists():
        folder = folder.parent
    return _digest_of(folder)


@cache
def _digest_of(folder: Path) -> str:
    """A digest of all source files of a package and of this one; cache files of other digests are removed."""
    sources = [
        (str(file.relative_to(package.parent)), file.stat().st_mtime_ns, file.stat().st_size)
        for package in sorted({folder, Path(__file__).resolve().parent})
        for file in sorted(package.rglob("*.py"))
    ]
    digest = blake2b(repr(sources).encode(), digest_size=6).hexdigest()
    for file in folder.rglob(f"__pycache__/*{MARK}*.nb[ic]"):
        if f"{MARK}{digest}." not in file.name:
            file.unlink(missing_ok=True)
    return digest
