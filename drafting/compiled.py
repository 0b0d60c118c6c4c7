"""How this package compiles its loops: numba, without the GIL, kept on disk.

Compiled functions hold what they call and every constant they name, of other files too, while numba's disk
cache asks for the time stamp of their own file alone. So here any change to a file of the package makes all
of its functions compile again.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """The function as machine code, compiled at its first call."""
    return _compiled(function, {})


def compiled_lean(function: Function) -> Function:
    """The same for functions that make no array but by slicing: numba then counts no references, which took
    half the time of small functions that are handed many arrays.
    """
    return _compiled(function, {"_nrt": False})


def _compiled(function: Function, options: dict[str, Any]) -> Function:
    dispatcher = numba.njit(cache=True, nogil=True, **options)(function)
    if dispatcher is not function:  # as it is with NUMBA_DISABLE_JIT
        dispatcher._cache._cache_file._source_stamp = _stamp(
            _package_folder(Path(function.__code__.co_filename))
        )
    return cast(Function, dispatcher)


def _package_folder(file: Path) -> Path:
    """The outermost folder around a file that is still a package."""
    folder = file.parent
    while (folder.parent / "__init__.py").exists():
        folder = folder.parent
    return folder


@cache
def _stamp(folder: Path) -> list[tuple[str, float, int]]:
    files = sorted(folder.rglob("*.py"))
    return [(str(file.relative_to(folder)), file.stat().st_mtime, file.stat().st_size) for file in files]
