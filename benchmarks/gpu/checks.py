"""Checks that the fast training and sampling steps (compiled, in bf16, as CUDA graphs) are right on this GPU.

They need no pytest: each returns ``{"ok": bool, ...numbers}``.
"""

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from benchmarks.gpu.ledger import Check
from benchmarks.measure import no_fallback, setting
from benchmarks.training import spec_on, trained
from uvb.accelerate.frozen import Frozen
from uvb.data import ImageSet
from uvb.models import build_model, get_model
from uvb.models.base import Energy, Estimator
from uvb.noise import normal
from uvb.plan import Plan, Precision
from uvb.sampling.chains import begin, chain_gradient
from uvb.sampling.langevin import langevin_step
from uvb.spec import Recipe, RunSpec, Widths
from uvb.training.loop import fit
from uvb.training.objectives import build_objective
from uvb.training.state import TrainState
from uvb.training.step import gradients_of, prepare

BOUNDS = {"fp32": 1e-4, "tf32": 1e-2, "bf16": 5e-2}  # for ‖gradient - exact‖ / ‖exact‖, over all parameters at once

FIRST = ("keyed-noise", "gradients/", "compiled/", "graphed/")  # the checks that decide on the plan of a training


def the_checks(
    images: ImageSet, device: str, *, widths: Widths | None = None, batch: int = 128, compile: bool = True
) -> Iterator[tuple[str, Callable[[], Check]]]:
    """The name and function of every check, those of `FIRST` first. A CPU gets no checks of graphs."""
    specs = {model: check_spec(images, model, widths, batch) for model in ("uvb", "deen")}
    yield "keyed-noise", lambda: keyed_noise(device)
    for model, spec in specs.items():
        yield f"gradients/{model}", partial(gradients, spec, images, device)
        if compile:
            yield f"compiled/{model}", partial(compiled, spec, images, device, "bf16")
        if device == "cuda":
            yield f"graphed/{model}", partial(graphed, spec, images)
    for model, spec in specs.items():
        yield f"resume/{model}", partial(resume, spec, images, device, compile=compile)
        if device == "cuda":
            yield f"resume-graphed/{model}", partial(resume, spec, images, device, compile=True, graph=True)
            muon = dataclasses.replace(spec, recipe=dataclasses.replace(spec.recipe, optimizer="muon"))
            yield f"resume-muon/{model}", partial(resume, muon, images, device, compile=True, graph=True)
            yield f"no-host-sync/{model}", partial(no_host_sync, spec, images)
            yield f"graphed-walk/{model}", partial(graphed_walk, spec, images)
        if compile:
            yield f"compiled-fp32/{model}", partial(compiled, spec, images, device, "fp32")


def check_spec(images: ImageSet, model: str, widths: Widths | None, batch: int) -> RunSpec:
    """The spec of a training of two epochs of a few steps. The last batch is short.

    The recipe uses a schedule, a warm-up, clipping and averaged weights, so the checks cover all of these.
    """
    recipe = Recipe("check", epochs=2, batch_size=batch, learning_rate=1e-3, schedule="cosine", warmup=0.2, clip=100.0, ema=0.9)
    count = min(len(images.train), 5 * batch - batch // 3)
    return spec_on(images, model, recipe, widths=widths or get_model(model).widths, train_images=count)


def batch_of(spec: RunSpec, model: Estimator, images: ImageSet, device: str, key: int = 0) -> tuple[Tensor, ...]:
    """x and noise (B, C, H, W), ε (B, noise_dim), weight (B,), float32. Each key gives another batch."""
    b = spec.recipe.batch_size
    x = images.train[key * b : (key + 1) * b].to(device).float() / images.levels
    noise = normal(tuple(x.shape), 0, "check noise", key, device=device)
    eps = normal((len(x), model.noise_dim), 0, "check latent", key, device=device)
    return x, noise, eps, torch.full((len(x),), 1 / len(x), device=device)


def flat_gradient(spec: RunSpec, plan: Plan, arguments: tuple[Tensor, ...], weights: Estimator) -> tuple[float, Tensor]:
    """The loss and the gradients, as one vector, of a copy of `weights` under `plan`."""
    torch._dynamo.reset()
    model = build_model(spec).to(device=plan.device, dtype=plan.dtype)
    model.load_state_dict(weights.state_dict())
    arguments = tuple(a.to(plan.dtype) for a in arguments)
    with no_fallback():
        step = gradients_of(prepare(build_objective(spec.objective, model), plan, tuple(arguments[0].shape)), plan)
    return loss_and_gradient(model, step, arguments)


def loss_and_gradient(model: Estimator, step: Callable[..., Tensor], arguments: tuple[Tensor, ...]) -> tuple[float, Tensor]:
    """The loss of `step`, and the gradients that it leaves in `model`, as one float64 vector."""
    model.zero_grad(set_to_none=True)
    with no_fallback():
        loss = float(step(*arguments))
    return loss, torch.cat([p.grad.double().flatten() for p in model.parameters() if p.grad is not None])


def distance(a: Tensor, exact: Tensor) -> float:
    return float((a - exact).norm() / exact.norm())


def gradients(spec: RunSpec, images: ImageSet, device: str) -> Check:
    """Compare the gradients in fp32, TF32 (torch's default for convolutions) and bf16 with the float64 gradient."""
    weights = build_model(spec).to(device)
    arguments = batch_of(spec, weights, images, device)
    loss, exact = flat_gradient(spec, Plan(device=device, precision="fp64"), arguments, weights)
    check: Check = {"ok": bool(exact.isfinite().all()), "loss": loss}
    for name, precision, tf32 in (("fp32", "fp32", False), ("tf32", "fp32", True), ("bf16", "bf16", True)):
        with setting(torch.backends.cudnn, "allow_tf32", tf32):
            value, gradient = flat_gradient(spec, Plan(device=device, precision=precision), arguments, weights)
        check[name] = distance(gradient, exact)
        check[f"{name}_loss"] = abs(value - loss) / abs(loss)
        check["ok"] &= check[name] < BOUNDS[name]  # False for nan
    return check


def compiled(spec: RunSpec, images: ImageSet, device: str, precision: Precision) -> Check:
    """Compare the compiled gradient with the eager one. fp32 is computed without TF32."""
    weights = build_model(spec).to(device)
    arguments = batch_of(spec, weights, images, device, key=1)
    with setting(torch.backends.cudnn, "allow_tf32", False):
        _, eager = flat_gradient(spec, Plan(device=device, precision=precision), arguments, weights)
        _, fast = flat_gradient(spec, Plan(device=device, precision=precision, compile=True), arguments, weights)
    apart = distance(fast, eager)
    return {"ok": apart < BOUNDS[precision], precision: apart}


def graphed(spec: RunSpec, images: ImageSet) -> Check:
    """Compare the gradient of the CUDA graph with the gradient of the same kernels without a graph, on three batches."""
    torch._dynamo.reset()
    check: Check = {"ok": True}
    plan = Plan(device="cuda", precision="bf16", compile=True)
    model = build_model(spec).to("cuda")
    with no_fallback():
        loss_of = prepare(build_objective(spec.objective, model), plan, (spec.recipe.batch_size, *spec.data.shape))
    plain, graph = gradients_of(loss_of, plan), gradients_of(loss_of, dataclasses.replace(plan, graph=True))
    for key in range(3):
        arguments = batch_of(spec, model, images, "cuda", key)
        runs = (loss_and_gradient(model, step, arguments) for step in (plain, graph, graph))
        (loss, expected), (first, once), (second, twice) = runs
        apart, replayed = distance(once, expected), distance(twice, once)
        check[f"batch{key}"] = {"distance": apart, "replayed": replayed, "loss": [loss, first, second]}
        check["ok"] &= apart < 1e-2 and replayed < 1e-2 and abs(loss - first) < 1e-3 * abs(loss)
    check["bit_equal"] = all(check[f"batch{key}"]["distance"] == 0 for key in range(3))
    return check


def graphed_walk(spec: RunSpec, images: ImageSet) -> Check:
    """Compare ∇f of a frozen energy, with and without a CUDA graph, with ∇f of the original energy.

    Then check that a Langevin step does not make the host wait for the GPU.
    """
    plan = Plan(device="cuda", precision="bf16")
    energy = build_model(spec).to("cuda")
    assert isinstance(energy, Energy)
    plain, graph = Frozen(energy, plan), Frozen(energy, dataclasses.replace(plan, graph=True))
    state = begin(300, images.shape, 0, device="cuda")
    check: Check = {"ok": True, "distance": []}
    for step in range(3):
        state = state._replace(step=step)
        with torch.no_grad(), no_fallback(), plan.autocast():
            exact, *found = (chain_gradient(each, state, 0, batch=128).double() for each in (energy, plain, graph))
        check["distance"].append([distance(each, exact) for each in found])
        check["ok"] &= max(check["distance"][-1]) < 1e-2
    torch.cuda.set_sync_debug_mode("error")
    try:
        langevin_step(graph, state, 0, delta=0.2, batch=128)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return check


def keyed_noise(device: str) -> Check:
    """Draw twice with one key and once with another. The first two draws must agree, and the third must differ.

    The first draw must have the mean and variance of standard normal numbers.
    """
    a, b, c = (normal((1 << 20,), 0, "check", key, device=device) for key in (1, 1, 2))
    mean, variance = float(a.mean()), float(a.var())
    same, apart = bool(torch.equal(a, b)), not bool(torch.equal(a, c))
    normal_enough = abs(mean) < 5e-3 and abs(variance - 1) < 7e-3  # five standard errors each
    return {"ok": same and apart and normal_enough, "mean": mean, "variance": variance}


def resume(spec: RunSpec, images: ImageSet, device: str, *, compile: bool, graph: bool = False) -> Check:
    """Save a training in mid-epoch and continue it. The result must have the same bits as an uninterrupted training.

    If the results differ, the check says how much, and whether cuDNN's deterministic algorithms help.
    """
    check = resumed(spec, images, device, compile, graph)
    if not check["ok"] and device == "cuda":
        with setting(torch.backends.cudnn, "deterministic", True):
            check["deterministic"] = resumed(spec, images, device, compile, graph)
    return check


def resumed(spec: RunSpec, images: ImageSet, device: str, compile: bool, graph: bool) -> Check:
    plan = Plan(device=device, precision="bf16", compile=compile, graph=graph)
    torch._dynamo.reset()
    with no_fallback():
        whole = trained(spec, plan, images)
    torch._dynamo.reset()
    with TemporaryDirectory() as place:
        state = TrainState.fresh(spec, plan)
        for count, _ in enumerate(fit(spec, plan, state, images, pulse_seconds=0)):
            if count == 6:  # in the second epoch
                state.save(Path(place) / "state", plan)
                break
        torch._dynamo.reset()
        again = TrainState.load(Path(place) / "state", spec, plan)
        at = (again.epoch, again.step)
        trained(spec, plan, images, again)
    a, b = whole.tensors(), again.tensors()
    differing = [name for name in a if not torch.equal(a[name], b[name])]
    largest = max((distance(b[n].double(), a[n].double()) for n in differing), default=0.0)
    ok = not differing and at[0] == 1 and at[1] > 0
    return {"ok": ok, "resumed_at": list(at), "differing": len(differing), "of": len(a), "largest_distance": largest}


def no_host_sync(spec: RunSpec, images: ImageSet) -> Check:
    """Run an epoch, and check that no step makes the host wait for the GPU."""
    plan = Plan(device="cuda", precision="bf16", compile=True, graph=True)
    torch._dynamo.reset()
    state = TrainState.fresh(dataclasses.replace(spec, recipe=dataclasses.replace(spec.recipe, epochs=1)), plan)
    steps = fit(state.spec, plan, state, images, pulse_seconds=1e6)
    next(steps)  # this step compiles, and looks at the clock for the first time
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            for _ in steps:
                pass
        finally:
            torch.cuda.set_sync_debug_mode("default")
    places = [f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)]
    found = {place: places.count(place) for place in sorted(set(places))}
    per_step = [place for place, count in found.items() if count >= 2]  # the end of the epoch waits once
    return {"ok": not per_step, "places": found}
