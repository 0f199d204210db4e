"""README's first block of Python runs unchanged."""

import re

import torch

from tests.support.builders import ROOT
from uvb.noise import normal


def test_readme_loads_a_shipped_model_that_samples_and_denoises() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    (block,) = [part for part in blocks if "uvb.pretrained" in part]
    names: dict[str, object] = {}
    exec(block, names)
    samples, energy = names["samples"], names["energy"]
    assert isinstance(samples, list)
    assert callable(energy)
    assert [x.shape for x in samples] == [(8, 1, 28, 28)] * 10
    x = samples[-1]
    y = x + normal(tuple(x.shape), 0, "readme")
    x_hat = energy(y, normal((8, energy.noise_dim), 0, "readme latent"))
    assert (x_hat - x).square().mean() < 0.1 * (y - x).square().mean()  # the noise is gone
    assert torch.stack(samples).isfinite().all()
