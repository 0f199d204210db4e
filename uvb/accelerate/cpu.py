"""Memory on a CPU: what a step frees, the next asks for again."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


def keep_large_buffers() -> None:
    """Tell glibc's malloc to keep freed blocks of many MB, which the next step asks for again.

    Otherwise each is mapped anew at every step, and the kernel zeroes its pages. Without effect except on Linux with glibc.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
            libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
