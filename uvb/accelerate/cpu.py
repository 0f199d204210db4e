"""CPU memory: keep the memory that a step frees, because the next step needs it again."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # option numbers of glibc's mallopt


def keep_large_buffers() -> None:
    """Tell glibc's malloc to keep freed blocks of many MB for the next step.

    Otherwise the kernel would map and zero the pages again at every step. Without glibc this function does nothing.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
            libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
