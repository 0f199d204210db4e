"""The KL divergence of a factorized Gaussian to the standard normal (Eq. 15)."""

import torch
from torch import Tensor


def kl_to_standard_normal(mu: Tensor, lam: Tensor) -> Tensor:
    """KL[N(μ, diag e^λ), N(0, I)] = -½ Σ_k (1 + λ_k - μ_k² - e^{λ_k}), Eq. 15. (B, d_z), (B, d_z) -> (B,), in nats."""
    return -0.5 * (1 + lam - mu.square() - torch.exp(lam)).sum(1)
