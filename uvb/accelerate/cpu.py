"""Memory on a CPU: each step needs the memory again that the last step freed."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # numbers of glibc's mallopt


def keep_large_buffers() -> None:
    """Tell glibc's malloc to keep freed blocks of many MB for the next step.

    Otherwise the kernel maps and zeroes the pages again at every step. Only Linux with glibc has this setting.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
            libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
