"""Private functions of torch. Each docstring says why no public function will do.

They work with torch 2.11 to 2.13. After an update of torch run ``python -m pytest tests/uvb``, which tests each of them.
"""

import torch


def inside_transform() -> bool:
    """Whether `torch.func` is transforming the running code (vmap, vjp, jvp). torch has no public function for this."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def end_failed_capture(device: int, pool: tuple[int, int]) -> None:
    """Tell CUDA's allocator that a capture into `pool` is over.

    Without this call torch 2.11 acts as if the capture still went on, and refuses every later capture in this process. torch
    has no public function for this.
    """
    torch._C._cuda_endAllocateToPool(device, pool)


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware, by AVX512-BF16 or AMX. torch has no public function for this."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
