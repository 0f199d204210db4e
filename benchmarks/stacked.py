"""Eight noise levels trained at once as one stack of small models, against one after the other.

python -m benchmarks.stacked [--quick]
"""

import argparse
import json
import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.measure import Row, row, seconds_side_by_side
from uvb.models import get_model
from uvb.noise import normal
from uvb.paper import SIGMAS
from uvb.plan import Plan, has_fast_bf16
from uvb.spec import Shape, Widths
from uvb.training.loop import gradients_of
from uvb.training.objectives import Objective, build_objective

SMALL = {
    "uvb": Widths(conv=(8, 16, 32), hidden=50, latent=25, decoder=500),
    "deen": Widths(conv=(32, 64, 128), hidden=25),
}
BATCH = 128

Gradients = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # (x, noise, eps, weight) -> (K,) losses, gradients in .grad


def objectives(model: str, shape: Shape, widths: Widths, device: str, sigmas: tuple[float, ...] = SIGMAS) -> list[Objective]:
    known = get_model(model)
    return [build_objective("denoise", known.build(shape, widths, "silu", sigma).to(device)) for sigma in sigmas]


def in_turn(models: list[Objective], plan: Plan) -> Gradients:
    each = [gradients_of(objective, plan) for objective in models]
    return lambda *batch: torch.stack([gradients(*batch) for gradients in each])


def stacked(models: list[Objective], plan: Plan) -> tuple[Gradients, dict[str, nn.Parameter]]:
    """The same losses and gradients from parameters stacked along a first dimension, (K, ...), and those parameters."""
    values, buffers = torch.func.stack_module_state(models)
    parameters = {name: nn.Parameter(value.detach()) for name, value in values.items()}
    plain = models[0]

    def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor], *batch: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(plain, (parameters, buffers), batch)
        return out

    each = torch.func.vmap(torch.func.grad_and_value(loss), in_dims=(0, 0, None, None, None, None))

    def gradients(*batch: Tensor) -> Tensor:
        with plan.autocast():
            found, losses = each({k: p.detach() for k, p in parameters.items()}, buffers, *batch)
        for name, parameter in parameters.items():
            # Adam's fused kernel on a GPU wants the parameter's own strides, even of dimensions of one element.
            given = found[name]
            same = given.stride() == parameter.stride()
            parameter.grad = given if same else torch.empty_like(parameter).copy_(given)
        return losses.detach()

    return gradients, parameters


def rows(device: str, quick: bool = False) -> list[Row]:
    """A row a model: MNIST's shape with narrow networks, Adam included."""
    found: list[Row] = []
    precision = "bf16" if has_fast_bf16(device) else "fp32"
    plan = Plan(device=device, precision=precision)
    shape, batch = ((1, 12, 12), 16) if quick else ((1, 28, 28), BATCH)
    for model in ("uvb", "deen"):
        models = objectives(model, shape, SMALL[model], device)
        x = torch.rand(batch, *shape, generator=torch.Generator().manual_seed(0)).to(device)
        noise, weight = normal((batch, *shape), 0, "noise", device=device), torch.full((batch,), 1 / batch, device=device)
        eps = normal((batch, models[0].model.noise_dim), 0, "latent", device=device)
        at_once, parameters = stacked(models, plan)
        turn = in_turn(models, plan)
        adam_at_once = torch.optim.Adam(parameters.values(), lr=1e-4, fused=True)
        adam_in_turn = [torch.optim.Adam(m.parameters(), lr=1e-4, fused=True) for m in models]

        def step_at_once(gradients=at_once, adam=adam_at_once, batch=(x, noise, eps, weight)) -> None:
            gradients(*batch)
            adam.step()

        def step_in_turn(gradients=turn, adams=adam_in_turn, batch=(x, noise, eps, weight)) -> None:
            gradients(*batch)
            for adam in adams:
                adam.step()
                adam.zero_grad(set_to_none=True)

        try:
            steps = {"turn": step_in_turn, "stack": step_at_once}
            times = seconds_side_by_side(steps, repeats=3 if quick else 5 if device == "cpu" else 20, warm_up=1, device=device)
        except RuntimeError as error:  # what vmap has no rule for; said, and the other models go on
            print(f"stacked/{model}: cannot be stacked here: {str(error).splitlines()[0]}", file=sys.stderr)
            continue
        name = f"stacked/{model}/{'quick' if quick else 'mnist'}/{device}-{precision}"
        found.append(row(name, times["stack"], f"{len(models)} noise levels in turn", times["turn"]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    for found in rows(args.device, args.quick):
        print(json.dumps(found))


if __name__ == "__main__":
    main()
