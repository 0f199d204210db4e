"""The optimizers of a training: Adam, as the paper has it, or Muon for the weight matrices and Adam for the rest."""

import torch
from torch import nn

from uvb.spec import Recipe


def build_optimizers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """What updates the parameters of `model`, each parameter by one of them.

    Muon (Jordan et al., 2024) steps along the nearest semi-orthogonal matrix to its momentum, so that every direction of a
    layer learns at one pace; it is for matrices, and convolutions, biases and a layer of one output stay with Adam. Its steps
    are scaled to the size of Adam's (Liu et al., 2025), so one learning rate is for both. torch orthogonalizes in bfloat16,
    whatever the plan's precision.
    """
    muons = [p for p in model.parameters() if recipe.optimizer == "muon" and p.ndim == 2 and min(p.shape) > 1]
    theirs = set(muons)
    adams = [p for p in model.parameters() if p not in theirs]
    found: list[torch.optim.Optimizer] = []
    if adams:
        found.append(torch.optim.Adam(adams, lr=recipe.learning_rate, betas=(0.9, recipe.beta2), fused=True))
    if muons:
        found.append(torch.optim.Muon(muons, lr=recipe.learning_rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"))
    return found
