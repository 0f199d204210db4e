"""Plans: which options a machine gets, and which plans it refuses."""

import json
from typing import Any

import pytest
import torch

from uvb.errors import UserError
from uvb.plan import Plan, resolve_plan


def test_plan_is_refused_where_it_cannot_run():
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="--replan"):
            Plan(device="cuda").require_possible_here()
    plan = resolve_plan(workers=2)
    assert Plan(**json.loads(json.dumps(plan.to_json()))) == plan
    assert plan.threads >= 1


@pytest.mark.parametrize(
    ("seconds", "precision", "compiler", "compiled"),
    [(900, "bf16", "g++", True), (899, "bf16", "g++", False), (900, "fp32", "g++", False), (900, "bf16", "none-such", False)],
)
def test_resolve_plan_compiles_long_trainings_in_bf16_on_a_cpu(monkeypatch, tmp_path, seconds, precision, compiler, compiled):
    monkeypatch.setattr("uvb.plan.has_fast_bf16", lambda device: True)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", compiler)
    (tmp_path / "g++").touch(mode=0o755)
    wishes = {"device": "cpu", "precision": precision, "seconds": seconds}
    assert resolve_plan(**wishes).compile is compiled
    assert resolve_plan(**wishes, compile="on").compile
    assert not resolve_plan(**wishes, compile="off").compile


@pytest.mark.parametrize("device", ["mps", "xpu"])
def test_plan_refuses_unsupported_devices_by_name(device: Any) -> None:
    for make in (lambda: Plan(device=device).require_possible_here(), lambda: resolve_plan(device=device)):
        with pytest.raises(UserError, match=f"device {device}: only cpu and cuda are supported"):
            make()
