"""The optimizers of a training: Adam as in the paper, or Muon for weight matrices and Adam for the rest."""

import torch
from torch import Tensor, nn

from uvb.spec import Recipe
from uvb.training.muon import GramMuon


def build_optimizers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """The optimizers of `model`. Each parameter belongs to exactly one of them.

    - "adam": Adam trains all parameters.
    - "muon": `torch.optim.Muon` trains the linear layers, and orthogonalizes in bfloat16.
    - "muon_conv": our `uvb.training.muon` also trains convolutions, and computes in the weights' precision.

    With Muon, Adam trains the other parameters, such as biases and layers of one output. Muon's steps have the size of
    Adam's (Liu et al., 2025), so both use the same learning rate.
    """
    muons = [p for p in model.parameters() if _by_muon(p, recipe)]
    adams = [p for p in model.parameters() if not _by_muon(p, recipe)]
    found: list[torch.optim.Optimizer] = []
    if adams:
        found.append(torch.optim.Adam(adams, lr=recipe.learning_rate, betas=(0.9, recipe.beta2), fused=True))
    if muons and recipe.optimizer == "muon":
        found.append(torch.optim.Muon(muons, lr=recipe.learning_rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"))
    elif muons:
        found.append(GramMuon(muons, lr=recipe.learning_rate, weight_decay=recipe.weight_decay))
    return found


def _by_muon(parameter: Tensor, recipe: Recipe) -> bool:
    if recipe.optimizer == "muon":
        return parameter.ndim == 2 and min(parameter.shape) > 1
    return recipe.optimizer == "muon_conv" and parameter.ndim >= 2 and min(parameter.flatten(1).shape) > 1
