"""The code blocks of docs/tutorial.md run one after another."""

import re

import torch

from tests.support.builders import ROOT


def test_tutorial_blocks_run_and_denoise(capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "tutorial.md").read_text(), re.S)
    assert len(blocks) >= 8
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "tutorial.md", "exec"), names)
    x, y, x_hat, exact = (names[name] for name in ("x", "y", "x_hat", "exact"))
    losses = [(x - estimate).square().sum((1, 2, 3)).mean() for estimate in (y, x_hat, exact)]
    assert losses[2] < losses[1] < losses[0]  # the exact answer, four epochs of training, the noisy image itself
    assert torch.stack(names["samples"]).shape == (5, 4, 1, 8, 8)
    assert "parameters" in capsys.readouterr().out
