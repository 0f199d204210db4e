"""Settings of a process on a CPU: keep the memory that each step needs again, and treat subnormal floats as zero."""

import ctypes
import sys

import torch

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


def flush_subnormals() -> None:
    """Treat floats below 1.2e-38 as zero in this thread and in the threads that torch starts later.

    A unit that gets no gradient leaves such numbers in the optimizer's averages, and a CPU multiplies such numbers slowly.
    Call this function before the first tensor is computed, because threads that already run keep their mode.
    """
    torch.set_flush_denormal(True)
