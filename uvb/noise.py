"""Keyed randomness: a seed and a purpose, such as "noise" at one step, determine the random numbers.

Nothing in this project depends on a global generator, so every worker draws the same numbers, also after a resume. torch's
initializers do draw from torch's global generator. Our code seeds it by a key before, and restores it afterwards.
"""

import hashlib

import torch
from torch import Tensor


def key_to_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed hashed from the key ``(seed, *purpose)``. Another key gives an unrelated seed.

    torch's CPU generator uses only the low 32 bits, so two keys give the same numbers with probability 2⁻³².
    Among 20,000 keys there is such a pair with probability 5 %.
    """
    digest = hashlib.sha256("/".join(str(part) for part in (seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(seed: int, *purpose: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh ``torch.Generator`` on `device` for the key ``(seed, *purpose)``, e.g. ``(0, "noise", epoch, step)``.

    The same key gives the same numbers in every run and on every worker. CPU and CUDA give different numbers, because torch
    uses different algorithms there.
    """
    return torch.Generator(device=device).manual_seed(key_to_seed(seed, *purpose))


def normal(shape: tuple[int, ...], seed: int, *purpose: str | int, device: torch.device | str = "cpu") -> Tensor:
    """Standard normal numbers of `shape` for a key. They are always float32, so every precision sees the same noise."""
    return torch.randn(shape, generator=generator(seed, *purpose, device=device), device=device)
