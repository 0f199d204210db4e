"""The rounding of gradients, compared with float64, and clipping by their norm."""

import copy

import pytest
import torch

from tests.support.builders import tiny_spec
from uvb.accelerate.gradients import clip
from uvb.models import build_model
from uvb.noise import generator, normal
from uvb.plan import Plan


def test_gradients_in_bf16_equal_float64_within_rounding(digits):
    """The error is relative to the gradient's norm. bf16 keeps 8 bits: 2^-8 = 0.004."""
    spec = tiny_spec(digits)
    gradients = {}
    for precision in ("fp64", "fp32", "bf16"):
        plan = Plan(precision=precision)
        model = build_model(spec).to(plan.dtype)
        x = digits.train[:32].to(plan.dtype) / digits.levels
        noise, eps = normal(tuple(x.shape), 0, "n").to(plan.dtype), normal((32, model.noise_dim), 0, "e").to(plan.dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = (x - model(x + noise, eps)).square().sum() / 32
        loss.backward()
        gradients[precision] = torch.cat([p.grad.flatten().double() for p in model.parameters()])
    reference = gradients["fp64"]
    for precision, bound in (("fp32", 1e-5), ("bf16", 2e-2)):
        error = (gradients[precision] - reference).norm() / reference.norm()
        assert 0 < error < bound, (precision, error)


@pytest.mark.parametrize("longest", [0.1, 1e3])
def test_clip_equals_torchs_own(longest):
    """The clipped gradients are equal to the bit, for norms above and below the limit. One parameter has no gradient."""
    draw = generator(0, "clip")
    gradients = [torch.randn(3, 4, generator=draw), torch.randn(7, generator=draw), None]
    ours = [torch.nn.Parameter(torch.zeros(1) if g is None else torch.zeros_like(g)) for g in gradients]
    torchs = copy.deepcopy(ours)
    for parameters in (ours, torchs):
        for p, g in zip(parameters, gradients, strict=True):
            p.grad = None if g is None else g.clone()
    clip(ours, longest)
    torch.nn.utils.clip_grad_norm_(torchs, longest)
    for a, b in zip(ours, torchs, strict=True):
        assert (a.grad is None) == (b.grad is None)
        assert a.grad is None or torch.equal(a.grad, b.grad)
