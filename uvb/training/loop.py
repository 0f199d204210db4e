"""The training loop. A script, a test and a Ray Train worker all drive this one."""

import math
import re
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from uvb.accelerate.compiled import CompiledObjective
from uvb.accelerate.cpu import keep_large_buffers
from uvb.accelerate.cuda_graph import Graphed
from uvb.accelerate.gradients import Gradients, clip, distance
from uvb.data import ImageSet
from uvb.data.stream import Rows, rows_on
from uvb.errors import Diverged, UserError
from uvb.models.base import LatentEnergy
from uvb.noise import generator, normal
from uvb.plan import Plan
from uvb.spec import RunSpec
from uvb.training.objectives import Objective, build_objective, freeze_unused, require_one_energy_an_image
from uvb.training.parallel import Pacer, first_of_all, rank_and_world, sum_over_workers
from uvb.training.state import EpochMetrics, TrainState, steps_per_epoch

PROBE_IMAGES = 1024  # of each split, the fixed ones of the per-epoch curves


@dataclass(frozen=True)
class Progress:
    """What `fit` yields: after every epoch (`metrics` is set), and about every `pulse_seconds` inside one.

    The state may be saved at each yield, on rank 0; every worker yields at the same steps.
    """

    epoch: int
    step: int
    steps: int
    loss: float
    images_per_second: float
    metrics: EpochMetrics | None


def fit(spec: RunSpec, plan: Plan, state: TrainState, images: ImageSet, *, pulse_seconds: float = 5.0) -> Iterator[Progress]:
    """Train `state` in place up to ``spec.recipe.epochs``, yielding `Progress`.

    Under `torch.distributed` every worker calls this with the same arguments; each takes its slice of every batch, and the
    result is that of one worker up to the order of float sums.

    Raises:
        UserError: the loss is no longer finite (the message says where), or the images are not those of the spec.
    """
    if images.checksum != spec.data.checksum:
        raise UserError(f"the images ({images.checksum}) are not those of the spec ({spec.data.checksum})")
    rank, world = rank_and_world()
    device, recipe = torch.device(plan.device), spec.recipe
    torch.set_num_threads(plan.threads)
    if plan.device == "cpu":
        keep_large_buffers()
    pixels = rows_on(images.train[: spec.data.train_images], device)  # (N, C, H, W) uint8
    steps = steps_per_epoch(spec)
    objective = build_objective(spec.objective, state.model)
    prepared = prepare(objective, plan, (local_batch(recipe.batch_size, world), *spec.data.shape))
    gradients = gradients_of(prepared, plan, recipe.clip)
    probe = Probe(spec, plan, state, images)
    pairs = zip(state.model.parameters(), state.averaged.parameters(), strict=True)
    trained, averaged = map(list, zip(*[(p, a) for p, a in pairs if p.requires_grad], strict=True))
    pacer = Pacer(pulse_seconds, device)
    if rank:
        state.step_losses.zero_()  # a state that was loaded has everybody's, and rank 0 keeps them

    while not state.finished:
        order = permutation(spec, state.epoch, pixels.device)  # (N,)
        pixels.begin(order, recipe.batch_size, state.step, slice_of(rank, recipe.batch_size, world))
        started, done_before = time.monotonic(), state.step
        while state.step < steps:
            x, noise, eps, weight = batch(spec, plan, pixels, order, images.levels, state, rank, world)
            loss = gradients(x, noise, eps, weight)
            for optimizer in state.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = recipe.learning_rate_at(state.global_step, steps * recipe.epochs)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            if recipe.ema:
                with torch.no_grad():  # else the average would carry a history that grows with every step
                    torch._foreach_lerp_(averaged, trained, 1 - ema_decay(recipe.ema, state.global_step))
            state.step_losses[state.step] = loss / world  # DDP averages, so each weight carries a factor `world`
            state.step += 1
            if pacer.due() and state.step < steps:
                state.seconds += time.monotonic() - started
                mean = gather_losses(state)
                rate = (state.step - done_before) * recipe.batch_size / (time.monotonic() - started)
                yield Progress(state.epoch, state.step, steps, mean, rate, None)
                started, done_before = time.monotonic(), state.step

        mean = gather_losses(state)
        if recipe.ema:
            for kept, own in zip(state.averaged.buffers(), state.model.buffers(), strict=True):
                kept.copy_(own)  # such as a batch norm's statistics: not averaged, as of these weights
        train_probe, test_loss, kl, recon = probe()
        if state.epoch + 1 == recipe.epochs and not math.isfinite(train_probe + test_loss):
            raise Diverged(
                f"{spec.label}: training diverged by its end (loss {test_loss}); "
                "lower the learning rate, or clip the gradient's norm"
            )
        state.seconds += time.monotonic() - started
        before = state.curves[-1].seconds if state.curves else 0.0
        rate = spec.data.train_images / (state.seconds - before)  # of the whole epoch, interruptions not counted
        now = time.time()
        state.curves.append(EpochMetrics(state.epoch, mean, test_loss, kl, recon, rate, state.seconds, now, train_probe))
        state.epoch, state.step = state.epoch + 1, 0
        state.step_losses.zero_()
        yield Progress(state.epoch, 0, steps, mean, rate, state.curves[-1])


def prepare(objective: Objective, plan: Plan, shape: tuple[int, int, int, int]) -> nn.Module:
    """Compile and wrap `objective` for data parallelism, after a warm-up backward pass that leaves no trace.

    `shape` is that of this worker's slice of a batch, (B / workers, C, H, W).
    DDP regroups its gradient buckets after the first backward pass, which changes the order of sums: warmed up, a resumed
    run adds in the same order as one that was never interrupted.

    Raises:
        UserError: the model's loss or its gradient cannot be computed.
    """
    shapes = (shape, shape, (shape[0], objective.model.noise_dim))
    x, noise, eps = (normal(s, 0, "example", i, device=plan.device).to(plan.dtype) for i, s in enumerate(shapes))
    arguments = (x, noise, eps, x.new_full((len(x),), 1 / len(x)))
    wrong, cause = "", None
    try:
        with plan.autocast():
            require_one_energy_an_image(objective.model, x)
            freeze_unused(objective, x)
    except UserError as error:
        wrong = str(error)
    except Exception as error:  # whatever a model raises: it would at every step, on every worker
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or re.search("CUDA|CUDNN|CUBLAS|memory", str(error)):
            raise  # the machine's doing, and worth another try
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        wrong, cause = f"{type(objective.model).__name__} cannot be trained ({reason}); mend it, or leave it out", error
    if wrong := first_of_all(wrong):
        raise UserError(wrong) from cause
    prepared: nn.Module = objective
    if plan.compile:
        try:
            prepared = CompiledObjective(objective, plan, arguments)
        except Exception as error:  # whatever the compiler raises: training goes on, slower, and says so
            reason = " ".join(str(error).split())[:300]
            warnings.warn(f"torch.compile failed ({type(error).__name__}: {reason}); training eagerly", stacklevel=2)
    if rank_and_world()[1] > 1:
        with plan.autocast(), warnings.catch_warnings():
            # of one channel's strides, which name the same order; of a name that older versions have alone
            warnings.filterwarnings("ignore", message="Grad strides do not match|`broadcast_buffers` is deprecated")
            prepared = DistributedDataParallel(prepared, broadcast_buffers=False, gradient_as_bucket_view=True)
            prepared(*arguments).backward()
    objective.zero_grad(set_to_none=True)
    return prepared


def gradients_of(loss_of: nn.Module, plan: Plan, longest: float = math.inf) -> Gradients:
    """A function of a batch that returns the loss and leaves the gradients in ``.grad``, their norm together at most `longest`.

    One CUDA graph if the plan says so.
    """
    trained = [p for p in loss_of.parameters() if p.requires_grad]

    def loss_and_gradients(*batch: Tensor) -> tuple[Tensor | None, ...]:
        for parameter in trained:
            parameter.grad = None  # written by the backward pass, not added to
        with plan.autocast():
            loss: Tensor = loss_of(*batch)
        loss.backward()
        if math.isfinite(longest):
            clip(trained, longest)
        return loss.detach(), *(p.grad for p in trained)

    # the gradients alone are compared: beside the loss they would be small
    computed = Graphed(loss_and_gradients, lambda a, b: distance(a[1:], b[1:])) if plan.graph else loss_and_gradients

    def gradients(*batch: Tensor) -> Tensor:
        loss, *found = computed(*batch)
        for parameter, gradient in zip(trained, found, strict=True):
            parameter.grad = gradient
        assert loss is not None
        return loss

    return gradients


def permutation(spec: RunSpec, epoch: int, device: torch.device) -> Tensor:
    """The order of the training images in `epoch`, (N,) int64; drawn on the CPU, so the same on every device."""
    order = torch.randperm(spec.data.train_images, generator=generator(spec.seed, "order", epoch))
    return order.to(device)


def local_batch(batch_size: int, world: int) -> int:
    """Images a worker and step: the global batch is padded to a multiple of the workers."""
    return -(-batch_size // world)


def slice_of(rank: int, batch_size: int, world: int) -> slice:
    """This worker's part of a global batch."""
    width = local_batch(batch_size, world)
    return slice(rank * width, (rank + 1) * width)


def batch(
    spec: RunSpec, plan: Plan, pixels: Tensor | Rows, order: Tensor, levels: int, state: TrainState, rank: int, world: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """This worker's slice of the global batch: x, noise (b, C, H, W), ε (b, noise_dim), weight (b,).

    Noise is drawn for the whole batch and then sliced, so it does not depend on the number of workers. Images beyond the
    end of the epoch are padding: zeros, with weight 0.
    """
    size, key = spec.recipe.batch_size, (state.epoch, state.step)
    index = order[state.step * size : (state.step + 1) * size]
    real, width = len(index), local_batch(size, world)
    mine = slice_of(rank, size, world)
    noise = normal((size, *spec.data.shape), spec.seed, "noise", *key, device=plan.device)[mine]
    eps = normal((size, state.model.noise_dim), spec.seed, "latent", *key, device=plan.device)[mine]
    x = pixels[index[mine]].to(plan.dtype) / levels
    weight = x.new_full((len(x),), world / real)
    return padded(x, width), padded(noise.to(plan.dtype), width), padded(eps.to(plan.dtype), width), padded(weight, width)


def padded(rows: Tensor, count: int) -> Tensor:
    """`rows` and as many of zeros as are missing to `count`."""
    missing = count - len(rows)
    return torch.cat([rows, rows.new_zeros(missing, *rows.shape[1:])]) if missing else rows


def ema_decay(decay: float, step: int) -> float:
    """EMA decay at `step`: short memory at first, so the random start is forgotten."""
    return min(decay, (1 + step) / (10 + step))


def gather_losses(state: TrainState) -> float:
    """Bring the workers' shares of `step_losses` together on rank 0; returns the epoch's mean loss so far.

    Kept a step at a time and never summed twice, so that when this happens does not change a bit of the result.

    Raises:
        UserError: a loss is not finite.
    """
    total = sum_over_workers(state.step_losses)
    so_far = total[: state.step]
    if not bool(so_far.isfinite().all()):
        step = int((~so_far.isfinite()).nonzero()[0])
        untrained = state.epoch == step == 0  # then no rate is to blame
        raise Diverged(
            f"{state.spec.label}: "
            + (
                "the loss is not finite before the first update"
                if untrained
                else f"training diverged at epoch {state.epoch}, step {step}"
            )
            + f" (loss {so_far[step].item()}); "
            + (
                "check what the model computes from noisy images"
                if untrained
                else "lower the learning rate, or clip the gradient's norm"
            )
        )
    state.step_losses = total if rank_and_world()[0] == 0 else torch.zeros_like(total)
    size, n = state.spec.recipe.batch_size, state.spec.data.train_images
    images = torch.full_like(so_far, size, dtype=torch.float64)
    if state.step * size > n:
        images[-1] = n - (state.step - 1) * size
    return float((so_far.double() * images).sum() / images.sum())


class Probe:
    """Compute each epoch's figures, of the averaged weights, on fixed images with fixed noise; the workers share the images.

    The objective on images of both splits; KL and reconstruction on the test images. 1,024 images a split tell trainings apart
    and are too few for a gap: the splits' images alone differ by several tenths at σ = 1 on MNIST.
    """

    def __init__(self, spec: RunSpec, plan: Plan, state: TrainState, images: ImageSet) -> None:
        self.plan, self.model = plan, state.averaged
        self.objective = build_objective(spec.objective, state.averaged)
        count = min(PROBE_IMAGES, len(images.test))  # of training images no more than of test images
        self.train = self._fixed(images.train[: spec.data.train_images], count, images.levels)
        self.test = self._fixed(images.test, count, images.levels)

    def _fixed(self, pixels: Tensor, count: int, levels: int) -> tuple[int, list[tuple[Tensor, Tensor, Tensor]]]:
        """How many images, and this worker's part of them in blocks: x, noise (b, C, H, W), ε (b, noise_dim)."""
        rank, world = rank_and_world()
        n = min(count, len(pixels))
        x = pixels[torch.randperm(len(pixels), generator=generator(0, "probe"))[:n]].to(self.plan.dtype) / levels
        noise, eps = normal(tuple(x.shape), 0, "probe noise"), normal((n, self.model.noise_dim), 0, "probe latent")
        mine = (a.to(self.plan.dtype)[rank:n:world].to(self.plan.device).split(256) for a in (x, noise, eps))
        return n, list(zip(*mine, strict=True))

    @torch.no_grad()
    def __call__(self) -> tuple[float, float, float | None, float | None]:
        """Loss on training images, loss on test images, KL, reconstruction (`EpochMetrics`)."""
        (of_train, train), (of_test, test) = self.train, self.test
        sums = torch.zeros(4, dtype=torch.float64, device=self.plan.device)
        with self.plan.autocast():
            for x, noise, eps in train:
                sums[0] += self.objective.per_image(x, noise, eps).double().sum()
            for x, noise, eps in test:
                sums[1] += self.objective.per_image(x, noise, eps).double().sum()
                if isinstance(self.model, LatentEnergy):
                    y = x + self.model.sigma * noise
                    z, mu, lam = self.model.sample_latent(y, eps)
                    sums[2] += self.model.kl(z, mu, lam).double().sum()
                    squares = (y - self.model.decode(z)).square().double().sum()
                    sums[3] += squares / (2 * self.model.sigma.double() ** 2)
        counts = (of_train, *[of_test] * 3)
        train_probe, loss, kl, recon = (s / n for s, n in zip(sum_over_workers(sums).tolist(), counts, strict=True))
        return (train_probe, loss, kl, recon) if isinstance(self.model, LatentEnergy) else (train_probe, loss, None, None)
