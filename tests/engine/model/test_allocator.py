"""Memory that a worker frees stays its own.

Each case in a process of its own: the setting cannot be taken back.
"""

import ctypes
import platform
import subprocess
import sys

import pytest

from engine.model.allocator import keep_freed_memory

# hblks: blocks that the C library has mapped apart from its heap, each to be given back when freed.
PROGRAM = """
import ctypes
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks "
                                                    "uordblks fordblks keepcost".split()]
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.mallinfo2.restype = ctypes.c_void_p, [ctypes.c_size_t], Info
if {keep}:
    from engine.model.allocator import keep_freed_memory
    assert keep_freed_memory()
before = libc.mallinfo2().hblks
libc.malloc(4 << 20)
print(libc.mallinfo2().hblks - before)
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc",
    reason="counts the mapped blocks of glibc, the only library that is told anything",
)
@pytest.mark.parametrize(("keep", "mapped_apart"), [(False, "1"), (True, "0")])
def test_a_block_of_some_megabytes_comes_from_the_heap_that_is_kept(keep, mapped_apart):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(keep=keep)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == mapped_apart


def test_another_c_library_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())  # as musl's and macOS's: without mallopt
    assert not keep_freed_memory()
