"""The checks for the GPU, run on a CPU. They pass for right gradients and fail for wrong gradients."""

import pytest
import torch

from benchmarks.gpu import checks
from benchmarks.gpu.ledger import Ledger
from tests.support.builders import TINY


def checked(digits, tmp_path, skip=(), compile=False):
    ledger = Ledger([tmp_path], "cpu")
    for name, run in checks.the_checks(digits, "cpu", widths=TINY, batch=32, compile=compile):
        if name not in skip:
            ledger.check(name, run)
    return ledger.checks


def test_checks_pass_on_this_machine(digits, tmp_path):
    found = checked(digits, tmp_path)
    assert {name: check for name, check in found.items() if not check["ok"]} == {}
    assert 0 < found["gradients/uvb"]["fp32"] < 1e-5


@pytest.mark.parametrize("wrong", [1.02, float("nan")])
def test_gradients_check_fails_for_a_wrong_gradient(digits, tmp_path, monkeypatch, wrong):
    """In fp32 the check notices an error of two percent. NaN never passes."""
    real = checks.flat_gradient

    def bent(spec, plan, arguments, weights):
        loss, gradient = real(spec, plan, arguments, weights)
        return loss, gradient * (wrong if plan.precision == "fp32" else 1)

    monkeypatch.setattr(checks, "flat_gradient", bent)
    found = checked(digits, tmp_path, skip={"keyed-noise", "gradients/uvb", "resume/uvb", "resume/deen"})
    assert {name: check["ok"] for name, check in found.items()} == {"gradients/deen": False}


def test_check_that_raises_leaves_settings_as_they_were(digits, tmp_path, monkeypatch):
    """A check changes torch's TF32 setting. If an error left it changed, later measurements would use other arithmetic."""

    def raises(*_, **__):
        raise RuntimeError("no")

    monkeypatch.setattr(checks, "flat_gradient", raises)
    before = torch.backends.cudnn.allow_tf32
    found = checked(digits, tmp_path, skip={"resume/uvb", "resume/deen", "keyed-noise"}, compile=True)
    assert {name: check["error"] for name, check in found.items()} == dict.fromkeys(found, "RuntimeError: no")
    assert set(found) == {f"{kind}/{model}" for kind in ("gradients", "compiled", "compiled-fp32") for model in ("uvb", "deen")}
    assert torch.backends.cudnn.allow_tf32 is before


@pytest.mark.gpu
def test_cuda_graph_computes_the_same_gradients(digits):
    assert checks.graphed(checks.check_spec(digits, "uvb", TINY, 32), digits)["ok"]
