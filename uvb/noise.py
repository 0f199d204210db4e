"""Keyed randomness: a generator is a pure function of what it is for.

Nothing in this project draws from a global generator. Whoever draws names the purpose, so any worker, at any time, on a
fresh or a resumed run, draws the same numbers.
"""

import hashlib

import torch
from torch import Tensor


def key_to_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed hashed from ``(seed, *purpose)``; a different key gives an unrelated seed.

    torch's CPU generator keeps the low 32 bits: two keys have the same stream with a chance of 2⁻³².
    """
    digest = hashlib.sha256("/".join(str(part) for part in (seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(seed: int, *purpose: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh ``torch.Generator`` on `device` for the key ``(seed, *purpose)``, e.g. ``(0, "noise", epoch, step)``.

    CPU and CUDA generators give different streams for one key (torch's own algorithms differ), so results agree between
    worker counts and runs of one device type, not between device types.
    """
    return torch.Generator(device=device).manual_seed(key_to_seed(seed, *purpose))


def normal(shape: tuple[int, ...], seed: int, *purpose: str | int, device: torch.device | str = "cpu") -> Tensor:
    """Standard normal float32 of `shape` for a key. Always drawn in float32, so every precision sees the same noise."""
    return torch.randn(shape, generator=generator(seed, *purpose, device=device), device=device)
