"""Lets a worker keep the memory it frees, where the C library would give it back to the system after every
step.

A step's tensors are of the same few sizes over and over. glibc maps each block of a few hundred kilobytes
anew, or trims the end of its heap, so the system zeroes the same pages in every layer of every step: up to 60
% of one (benchmarks/bench_allocator.py).
"""

import ctypes
import logging

logger = logging.getLogger(__name__)
# Parameters of mallopt, from malloc.h; a threshold above 32 MB is refused.
M_TRIM_THRESHOLD = -1
M_TOP_PAD = -2
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8
# One arena: those of other threads are heaps of 64 MB, each given back as soon as it is empty.
SETTINGS = {M_MMAP_THRESHOLD: 32 << 20, M_TRIM_THRESHOLD: (1 << 31) - 1, M_TOP_PAD: 64 << 20, M_ARENA_MAX: 1}


def keep_freed_memory() -> bool:
    """Makes this process keep the memory it frees, from now on.

    Returns False, and changes nothing, where the C library is not glibc (musl, macOS).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        logger.info(
            "this C library has no mallopt: freed memory goes back to the system, which costs a CPU time in "
            "every step"
        )
        return False
    return all(mallopt(name, value) == 1 for name, value in SETTINGS.items())
