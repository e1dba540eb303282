"""A setting of the whole process that a training step likes, and that a program has to make, not a library."""

import ctypes
from contextlib import suppress

# Parameters of glibc's mallopt, from its malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> None:
    """Let freed memory stay with the process, for the next step; without effect where the C library is not glibc.

    A step frees some hundred MB and asks for them again. Given back to the system in between, each page of 4 kB is
    fetched and zeroed anew.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, 32 * 2**20)  # the most that it takes; above, memory comes by mmap
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(M_TOP_PAD, 64 * 2**20)
