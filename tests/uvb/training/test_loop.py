"""The training loop: one step, exact resuming, any number of workers, failures."""

import dataclasses
import functools
import itertools
import json
import math
import warnings
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tests.support.builders import TINY, tiny_spec
from uvb.data import ImageSet, load_dataset
from uvb.errors import UserError
from uvb.models import Model, build_model, model_names, registry
from uvb.models.base import Energy
from uvb.models.io import load, save_model
from uvb.noise import generator, normal
from uvb.plan import Plan
from uvb.training.loop import fit
from uvb.training.objectives import Denoise
from uvb.training.state import DamagedCheckpoint, TrainState

FP64 = Plan(precision="fp64")


def train(spec, images, plan=FP64, state=None, **options):
    state = state or TrainState.fresh(spec, plan)
    progress = list(fit(spec, plan, state, images, **options))
    return state, progress


def same(a: TrainState, b: TrainState) -> None:
    """Assert that all tensors, and all metrics apart from times, are equal bit for bit."""
    assert a.tensors().keys() == b.tensors().keys()
    for name, tensor in a.tensors().items():
        assert torch.equal(tensor, b.tensors()[name]), name
    timeless = [[dataclasses.replace(row, seconds=0, time=0, images_per_second=0) for row in state.curves] for state in (a, b)]
    assert timeless[0] == timeless[1]


@pytest.mark.parametrize(("clip", "ema"), [(float("inf"), 0.0), (1.58, 0.0), (float("inf"), 0.3), (1.58, 0.3)])
def test_fit_is_adam_on_the_denoising_loss(digits, clip, ema):
    """Compare two epochs with a loop that gets the gradient in y from autograd, and writes out the clipping and the average.

    The decay of the average starts as (1 + t)/(10 + t), which is below 0.3 until the fourth step.
    """
    spec = tiny_spec(digits, recipe=dataclasses.replace(tiny_spec(digits).recipe, clip=clip, ema=ema))
    state, _ = train(spec, digits)

    model = build_model(spec).double()
    averages = [p.detach().clone() for p in model.parameters()]
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    x_all = digits.train[:100].double() / digits.levels
    total, size = 8, 32  # steps of the training, and images of a batch
    step, clipped, means = 0, 0, []
    for epoch in range(2):
        order, mean = torch.randperm(100, generator=generator(0, "order", epoch)), 0.0
        for k in range(4):
            x = x_all[order[k * size : (k + 1) * size]]
            noise = normal((size, 1, 8, 8), 0, "noise", epoch, k)[: len(x)].double()
            eps = normal((size, 5), 0, "latent", epoch, k)[: len(x)].double()
            y = (x + 1.0 * noise).requires_grad_()
            (gradient,) = torch.autograd.grad(model.energy(y, eps).sum(), y, create_graph=True)
            squares = (x - y + gradient).square().sum()
            mean += squares.item() / 100
            adam.param_groups[0]["lr"] = spec.recipe.learning_rate_at(step, total)
            adam.zero_grad()
            (squares / len(x)).backward()
            norm = sum(float(p.grad.square().sum()) for p in model.parameters()) ** 0.5
            if norm > clip:
                clipped += 1
                for p in model.parameters():
                    p.grad *= clip / norm
            adam.step()
            decay = min(ema, (1 + step) / (10 + step))
            averages = [decay * a + (1 - decay) * p.detach() for a, p in zip(averages, model.parameters(), strict=True)]
            step += 1
        means.append(mean)
    if clip < float("inf"):
        assert 0 < clipped < total, clipped  # some steps are clipped and some are not
    for (name, p), q, a, r in zip(
        model.named_parameters(), state.model.parameters(), averages, state.averaged.parameters(), strict=True
    ):
        torch.testing.assert_close(q, p, rtol=1e-6, atol=1e-8, msg=name)  # torch's clipping adds 1e-6 to the norm
        torch.testing.assert_close(r, a, rtol=1e-6, atol=1e-8, msg=name)
    assert [row.train_loss for row in state.curves] == pytest.approx(means, rel=1e-6)


@pytest.mark.parametrize("name", [n for n in model_names() if "laplace" not in n])  # Laplace models barely learn (Remark 4)
def test_fit_lowers_the_loss_of_every_model(digits, name):
    spec = tiny_spec(digits, name)
    spec = dataclasses.replace(spec, recipe=dataclasses.replace(spec.recipe, epochs=4, learning_rate=1e-2))
    state, progress = train(spec, digits)
    losses = [p.metrics.train_loss for p in progress if p.metrics]
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    assert state.finished


@pytest.mark.parametrize(
    ("name", "optimizer", "precision"),
    [*itertools.product(("uvb", "deen"), ("adam",), ("fp32", "fp64")), ("uvb", "muon", "fp32"), ("deen", "muon", "fp64")],
)
def test_fit_resumed_from_any_yield_is_the_same_to_the_bit(digits, tmp_path, name, optimizer, precision):
    """Save the training at every yield, also within epochs. Load each state into new objects, and finish the training."""
    spec, plan = tiny_spec(digits, name), Plan(precision=precision)
    spec = dataclasses.replace(spec, recipe=dataclasses.replace(spec.recipe, optimizer=optimizer))
    whole, _ = train(spec, digits, plan)

    state = TrainState.fresh(spec, plan)
    for i, _ in enumerate(fit(spec, plan, state, digits, pulse_seconds=0.0)):
        state.save(tmp_path / f"{i}", plan)
    same(state, whole)
    folders = sorted(tmp_path.iterdir(), key=lambda p: int(p.name))
    assert len(folders) > 4  # some of them within an epoch
    for folder in folders:
        resumed, _ = train(spec, digits, plan, TrainState.load(folder, spec, plan))
        same(resumed, whole)


def test_tied_weights_are_saved_and_stay_tied(digits, tmp_path, monkeypatch):
    """An energy uses one layer twice. safetensors refuses tensors that share memory, so state and model store copies."""

    class Tied(Energy):
        def __init__(self, shape, widths, activation, sigma):
            super().__init__(sigma)
            self.one = torch.nn.Linear(64, 64)
            self.two = self.one

        def energy(self, y, eps):
            return (y.flatten(1) - self.two(self.one(y.flatten(1)).tanh())).square().sum(1) / 2

    monkeypatch.setitem(registry.MODELS.known, "tied", Model("tied", Tied, TINY))
    spec = tiny_spec(digits, "tied")
    whole, _ = train(spec, digits)
    state = TrainState.fresh(spec, FP64)
    next(fit(spec, FP64, state, digits, pulse_seconds=0.0))
    state.save(tmp_path / "state", FP64)
    resumed, _ = train(spec, digits, FP64, TrainState.load(tmp_path / "state", spec, FP64))
    same(resumed, whole)
    loaded = load(save_model(whole.averaged, spec, tmp_path / "model"))
    assert loaded.two is loaded.one
    assert torch.equal(loaded.one.weight, whole.averaged.one.weight)


def test_fit_leaves_a_finished_training_unchanged(digits):
    state, _ = train(tiny_spec(digits), digits)
    before = {k: v.clone() for k, v in state.tensors().items()}
    assert train(state.spec, digits, state=state)[1] == []
    assert all(torch.equal(v, state.tensors()[k]) for k, v in before.items())


def test_load_refuses_damaged_and_foreign_checkpoints(digits, tmp_path):
    spec = tiny_spec(digits)
    state, _ = train(spec, digits)
    state.save(tmp_path, FP64)
    with pytest.raises(UserError, match=r"sigma: 1.0 != 0.5"):
        TrainState.load(tmp_path, dataclasses.replace(spec, sigma=0.5), FP64)
    file = tmp_path / "state.safetensors"
    blob = file.read_bytes()
    for damaged in (blob[: len(blob) // 2], blob[:-9] + bytes([blob[-9] ^ 1]) + blob[-8:]):
        file.write_bytes(damaged)
        with pytest.raises(DamagedCheckpoint, match="SHA-256"):
            TrainState.load(tmp_path, spec, FP64)
    (tmp_path / "state.json").write_text('{"format": 1')
    with pytest.raises(DamagedCheckpoint, match=r"state.json"):
        TrainState.load(tmp_path, spec, FP64)


def test_fit_says_in_one_line_where_it_diverged(digits):
    spec = tiny_spec(digits, recipe=dataclasses.replace(tiny_spec(digits).recipe, learning_rate=1e30, clip=float("inf")))
    with pytest.raises(UserError, match=r"diverged at epoch \d+, step \d+"):
        train(spec, digits)


def test_fit_refuses_weights_ruined_by_the_last_step(digits, monkeypatch):
    """The loss of every batch was finite, but the loss of the final weights is not."""
    spec = tiny_spec(digits)
    monkeypatch.setattr("uvb.training.loop.Probe.__call__", lambda self: (math.nan, math.nan, None, None))
    with pytest.raises(UserError, match="diverged in its last epoch"):
        train(spec, digits)


class Counting(torch.nn.Module):
    """Stands for a layer that keeps statistics, such as a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.float64))


def test_averaged_model_copies_the_buffers_of_the_trained_one(digits):
    spec = tiny_spec(digits)
    state = TrainState.fresh(spec, FP64)
    assert state.averaged is not state.model
    for model in (state.model, state.averaged):
        model.statistics = Counting()
    for progress in fit(spec, FP64, state, digits):
        if progress.metrics:
            assert state.averaged.statistics.calls == state.model.statistics.calls
        state.model.statistics.calls += 1
    assert state.averaged.statistics.calls > 0


def test_fit_refuses_a_model_that_raises_before_the_first_step(digits, monkeypatch):
    """The model would raise again, so this is a user's error. Too little memory is not, because a second try may find more."""
    spec = tiny_spec(digits)
    monkeypatch.setattr(Energy, "forward", Mock(side_effect=AttributeError("no attribute 'nothere'")))
    with pytest.raises(UserError, match=r"\(AttributeError: no attribute 'nothere'\); mend it, or leave it out"):
        train(spec, digits)
    monkeypatch.setattr(Energy, "forward", Mock(side_effect=torch.OutOfMemoryError()))
    with pytest.raises(torch.OutOfMemoryError):
        train(spec, digits)


def test_fit_does_not_blame_the_rate_for_a_loss_not_finite_at_the_start(digits, monkeypatch):
    spec = tiny_spec(digits)
    monkeypatch.setattr(Denoise, "per_image", lambda self, x, noise, eps: self.model(x, eps).flatten(1).sum(1) / 0.0)
    with pytest.raises(UserError, match=r"not finite before the first update \(loss .*\); check what the model computes"):
        train(spec, digits)


def test_fit_refuses_images_of_another_checksum(digits):
    spec = tiny_spec(digits)
    other = ImageSet("digits", digits.train.flip(0), digits.test, digits.train_labels, digits.test_labels, digits.levels)
    with pytest.raises(UserError, match="not those of the spec"):
        train(spec, other)


MODELS = ("uvb", "deen", "muon")  # "muon" is UVB, trained by Muon


def spec_of(digits, model):
    spec = tiny_spec(digits, "uvb" if model == "muon" else model)
    optimizer = "muon" if model == "muon" else "adam"
    return dataclasses.replace(spec, recipe=dataclasses.replace(spec.recipe, optimizer=optimizer))


def nearness(spec):
    """How far the weights of 1, 2 and 3 workers may differ in float64. Muon may differ more: it orthogonalizes in bfloat16."""
    return 1e-9 if spec.recipe.optimizer == "adam" else 0.01 * spec.recipe.learning_rate


def worker(rank: int, world: int, folder: str, compile: bool = False) -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("error", message="torch.compile failed")
    torch.compile = functools.partial(torch.compile, backend="eager")  # traces without compiling; DDP treats both alike
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet-{world}", rank=rank, world_size=world)
    digits, plan = load_dataset("digits"), Plan(workers=world, precision="fp64", compile=compile)
    for model in MODELS:
        spec, place = spec_of(digits, model), Path(folder) / model
        state = TrainState.fresh(spec, plan)
        for step, _ in enumerate(fit(spec, plan, state, digits, pulse_seconds=0.0)):
            if rank == 0 and step == 1:
                assert state.step  # a state from within an epoch
                state.save(place / f"{world}-half", plan)
        dist.barrier()
        resumed, _ = train(spec, digits, plan, TrainState.load(place / f"{world}-half", spec, plan))
        if rank == 0:
            state.save(place / str(world), plan)
            resumed.save(place / f"{world}-resumed", plan)
    dist.destroy_process_group()


def test_fit_with_any_number_of_workers_trains_the_same_model(digits, tmp_path):
    """1, 2 and 3 gloo processes in float64 train weights that agree to 1e-9. The batch size is not a multiple of 3.

    Muon orthogonalizes in bfloat16, where the last bit of a sum can change a rounding. So Muon's weights agree only to a
    twentieth of a step. A training that resumes within an epoch equals the uninterrupted one bit for bit.
    """
    alone = {model: train(spec_of(digits, model), digits)[0] for model in MODELS}
    for world in (2, 3):
        mp.start_processes(worker, args=(world, str(tmp_path)), nprocs=world, start_method="fork")
        for model in MODELS:
            together = TrainState.load(tmp_path / model / str(world), alone[model].spec, FP64)
            same(TrainState.load(tmp_path / model / f"{world}-resumed", alone[model].spec, FP64), together)
            near = nearness(alone[model].spec)
            for name, tensor in alone[model].tensors().items():
                torch.testing.assert_close(together.tensors()[name], tensor, rtol=near, atol=near)
            for a, b in zip(alone[model].curves, together.curves, strict=True):
                assert b.train_loss == pytest.approx(a.train_loss, rel=near)
                assert b.test_loss == pytest.approx(a.test_loss, rel=near)
                assert b.train_probe == pytest.approx(a.train_probe, rel=near)


@pytest.mark.slow
def test_fit_with_compiled_workers_trains_the_same_model(digits, tmp_path):
    """A compiled step hands out all gradients at once. DDP must still average them over the two gloo processes."""
    mp.start_processes(worker, args=(2, str(tmp_path), True), nprocs=2, start_method="spawn")
    for model in MODELS:
        alone, _ = train(spec_of(digits, model), digits)
        together = TrainState.load(tmp_path / model / "2", alone.spec, FP64)
        same(TrainState.load(tmp_path / model / "2-resumed", alone.spec, FP64), together)
        near = nearness(alone.spec)
        for name, tensor in alone.tensors().items():
            torch.testing.assert_close(together.tensors()[name], tensor, rtol=near, atol=near)


@pytest.mark.parametrize("epoch", [0, 1])
def test_probe_measures_both_splits_alike(digits, epoch):
    """The test writes out `train_probe` and `test_loss`: averaged weights, fixed images, the same noise."""
    spec = tiny_spec(digits)
    state = TrainState.fresh(spec, FP64)
    for progress in fit(spec, FP64, state, digits):
        if progress.metrics and len(state.curves) == epoch + 1:
            break
    model, count = state.averaged, 100  # all training images of the spec, fewer than the test images
    got = (state.curves[epoch].train_probe, state.curves[epoch].test_loss)
    for loss, pixels, n in zip(got, (digits.train[:count], digits.test), (count, len(digits.test)), strict=True):
        order = torch.randperm(len(pixels), generator=generator(0, "probe"))
        x = pixels[order].double() / digits.levels
        noise, eps = normal(tuple(x.shape), 0, "probe noise").double(), normal((n, 5), 0, "probe latent").double()
        assert loss == pytest.approx(float((x - model(x + noise, eps)).square().sum() / n), rel=1e-9)


def test_probe_measures_the_encoder_on_noisy_test_images(digits):
    """torch.distributions gives the expected `kl`, here at σ = 0.5. `recon` is ½‖y - μ_y(z)‖²/σ². DEEN has neither number."""
    spec = tiny_spec(digits, sigma=0.5)
    state, _ = train(spec, digits)
    model, n = state.averaged, len(digits.test)
    x = digits.test[torch.randperm(n, generator=generator(0, "probe"))].double() / digits.levels
    y = x + 0.5 * normal(tuple(x.shape), 0, "probe noise").double()
    eps = normal((n, 5), 0, "probe latent").double()
    with torch.no_grad():
        mu, lam = model.encode(y)
        q, prior = torch.distributions.Normal(mu, (lam / 2).exp()), torch.distributions.Normal(0.0, 1.0)
        recon = (y - model.decode(mu + (lam / 2).exp() * eps)).square().sum() / (2 * 0.25) / n
        kl = torch.distributions.kl_divergence(q, prior).sum() / n
    assert state.curves[-1].kl == pytest.approx(kl.item(), rel=1e-6)
    assert state.curves[-1].recon == pytest.approx(recon.item(), rel=1e-6)
    deen, _ = train(tiny_spec(digits, "deen"), digits)
    assert [(row.kl, row.recon) for row in deen.curves] == [(None, None)] * 2


def test_load_reads_a_state_without_the_training_probe(digits, tmp_path):
    state, _ = train(tiny_spec(digits), digits)
    state.save(tmp_path / "state", FP64)
    path = tmp_path / "state" / "state.json"
    blob = json.loads(path.read_text())
    for row in blob["curves"]:
        del row["train_probe"]
    del blob["json_sha256"]  # a state without the probe is also older than this hash
    path.write_text(json.dumps(blob))
    again = TrainState.load(tmp_path / "state", state.spec, FP64)
    assert [row.train_probe for row in again.curves] == [None, None]


@pytest.mark.parametrize(("before", "after"), [("fp32", "fp64"), ("fp64", "fp32")])
def test_load_takes_over_a_new_plans_precision(digits, tmp_path, before, after):
    """`--replan --precision`: weights, moments and losses are read in the new precision, and the training continues."""
    spec, plan = tiny_spec(digits), Plan(precision=after)
    first = TrainState.fresh(spec, Plan(precision=before))
    next(fit(spec, Plan(precision=before), first, digits, pulse_seconds=0.0))
    assert first.step
    first.save(tmp_path / "state", Plan(precision=before))
    state, _ = train(spec, digits, plan, TrainState.load(tmp_path / "state", spec, plan))
    assert state.finished
    floats = {t.dtype for name, t in state.tensors().items() if not name.startswith("adam.step")}
    assert floats == {plan.dtype}
    exact = train(spec, digits)[0].tensors()
    for name, tensor in state.tensors().items():
        torch.testing.assert_close(tensor.double(), exact[name].double(), rtol=2e-3, atol=2e-4)


def test_fit_trains_eagerly_if_the_compiler_fails(digits, monkeypatch):
    """A warning says so, and the result is the same to the bit."""

    class Broken(torch.nn.Module):
        def forward(self, *_):
            raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", lambda module, **_: Broken())
    spec = tiny_spec(digits)
    with pytest.warns(UserWarning, match=r"torch\.compile failed \(RuntimeError: no compiler here\); training eagerly"):
        eager, _ = train(spec, digits, Plan(precision="fp64", compile=True))
    same(eager, train(spec, digits)[0])
