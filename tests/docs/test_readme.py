"""README's first block of Python runs as it stands."""

import re

import torch

from tests.support.builders import ROOT


def test_readme_loads_a_shipped_model_and_denoises() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    (block,) = [part for part in blocks if "uvb.pretrained" in part]
    names: dict[str, object] = {}
    torch.manual_seed(0)
    exec(block, names)
    x_hat, y = names["x_hat"], names["y"]
    assert isinstance(x_hat, torch.Tensor)
    assert isinstance(y, torch.Tensor)
    assert x_hat.shape == y.shape == (8, 1, 28, 28)
    assert x_hat.square().mean() < 0.5 * y.square().mean()  # the noise is gone
