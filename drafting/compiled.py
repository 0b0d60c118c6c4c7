"""How this package compiles its loops: numba, without the GIL, kept on disk.

A compiled function calls only compiled functions of its own file: numba's disk cache looks at the time stamp of that one
file, and would go on using an old version of a helper that lies elsewhere.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """The function as machine code, compiled at its first call."""
    return cast(Function, numba.njit(cache=True, nogil=True)(function))


def compiled_lean(function: Function) -> Function:
    """The same for functions that make no array but by slicing: numba then counts no references, which took half the time of
    small functions that are handed many arrays."""
    options: dict[str, Any] = {"cache": True, "nogil": True, "_nrt": False}
    return cast(Function, numba.njit(**options)(function))
