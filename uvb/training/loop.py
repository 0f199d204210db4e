"""The training loop. Scripts, tests and Ray Train workers all use it."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from uvb.accelerate.cpu import flush_subnormals, keep_large_buffers
from uvb.data.image_set import ImageSet
from uvb.errors import Diverged, UserError
from uvb.plan import Plan
from uvb.spec import RunSpec
from uvb.training.batch import Batches
from uvb.training.objectives import build_objective
from uvb.training.parallel import Pacer, rank_and_world, sum_over_workers
from uvb.training.probe import Probe
from uvb.training.state import EpochMetrics, TrainState, steps_per_epoch
from uvb.training.step import gradients_of, prepare


@dataclass(frozen=True)
class Progress:
    """What `fit` yields after every epoch, and about every `pulse_seconds` within an epoch.

    All workers yield at the same steps, so rank 0 can save the state there.

    Attributes:
        epoch, step: the position of the next step, both counted from 0.
        steps: number of steps in an epoch.
        loss: the mean loss of the current epoch so far.
        images_per_second: the speed of training.
        metrics: the numbers of an epoch that has just ended. None within an epoch.
    """

    epoch: int
    step: int
    steps: int
    loss: float
    images_per_second: float
    metrics: EpochMetrics | None


def fit(spec: RunSpec, plan: Plan, state: TrainState, images: ImageSet, *, pulse_seconds: float = 5.0) -> Iterator[Progress]:
    """Train `state` in place up to ``spec.recipe.epochs``. Yield `Progress` on the way.

    Under `torch.distributed` every worker calls this with the same arguments, and processes its slice of every batch. The
    number of workers changes the result only by the order of float sums.

    Raises:
        Diverged: the loss is no longer finite. The message says where.
        UserError: the images differ from the spec's images.
    """
    if images.checksum != spec.data.checksum:
        raise UserError(
            f"the images ({images.checksum}) are not those of the spec ({spec.data.checksum}); load the spec's data set"
        )
    torch.set_num_threads(plan.threads)
    if plan.device == "cpu":
        keep_large_buffers()
        flush_subnormals()
    rank, world = rank_and_world()
    steps = steps_per_epoch(spec)
    batches = Batches(spec, plan, images, state.model.noise_dim)
    loss_of = prepare(build_objective(spec.objective, state.model), plan, batches.shape)
    gradients = gradients_of(loss_of, plan, spec.recipe.clip)
    averages, probe = Averages(state), Probe(spec, plan, state, images)
    pacer = Pacer(pulse_seconds, torch.device(plan.device))
    if rank:
        state.step_losses.zero_()  # a loaded state has the sums over all workers, so only rank 0 keeps them

    while not state.finished:
        batches.begin(state.epoch, state.step)
        started, done_before = time.monotonic(), state.step
        while state.step < steps:
            loss = gradients(*batches[state.step])
            update(state, steps)
            averages.follow(state.global_step)
            state.step_losses[state.step] = loss / world  # `Batch.weight` has the factor `world`, since DDP averages
            state.step += 1
            if pacer.due() and state.step < steps:
                state.seconds += time.monotonic() - started
                mean = gather_losses(state)
                rate = (state.step - done_before) * spec.recipe.batch_size / (time.monotonic() - started)
                yield Progress(state.epoch, state.step, steps, mean, rate, None)
                started, done_before = time.monotonic(), state.step

        mean = gather_losses(state)
        averages.copy_buffers()
        figures = probe()
        require_finite(state, figures)
        state.seconds += time.monotonic() - started
        end_epoch(state, mean, figures)
        yield Progress(state.epoch, 0, steps, mean, state.curves[-1].images_per_second, state.curves[-1])


def update(state: TrainState, steps: int) -> None:
    """Take one optimizer step at the recipe's learning rate, and drop the gradients. An epoch has `steps` steps."""
    recipe = state.spec.recipe
    rate = recipe.learning_rate_at(state.global_step, steps * recipe.epochs)
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


class Averages:
    """The exponential moving average of the weights. If the recipe has no average, the methods do nothing."""

    def __init__(self, state: TrainState) -> None:
        self.decay, self.state = state.spec.recipe.ema, state
        pairs = zip(state.model.parameters(), state.averaged.parameters(), strict=True)
        trained = [(own, kept) for own, kept in pairs if own.requires_grad]
        self.own: list[Tensor] = [own for own, _ in trained]
        self.kept: list[Tensor] = [kept for _, kept in trained]

    @torch.no_grad()  # otherwise the average would keep an autograd graph that grows with every step
    def follow(self, step: int) -> None:
        """Move the average towards the weights after optimizer step `step`."""
        if self.decay:
            torch._foreach_lerp_(self.kept, self.own, 1 - ema_decay(self.decay, step))

    def copy_buffers(self) -> None:
        """Copy the buffers, which are not averaged, such as the statistics of a batch norm."""
        if self.decay:
            for kept, own in zip(self.state.averaged.buffers(), self.state.model.buffers(), strict=True):
                kept.copy_(own)


def require_finite(state: TrainState, figures: tuple[float, float, float | None, float | None]) -> None:
    """Raise `Diverged` if the loss after the last epoch is not finite. `figures` is the result of `Probe`."""
    train_probe, test_loss, _, _ = figures
    if state.epoch + 1 == state.spec.recipe.epochs and not math.isfinite(train_probe + test_loss):
        raise Diverged(
            f"{state.spec.label}: training diverged in its last epoch (train loss {train_probe}, test loss {test_loss}); "
            "lower the learning rate, or clip the gradient's norm"
        )


def end_epoch(state: TrainState, mean: float, figures: tuple[float, float, float | None, float | None]) -> None:
    """Add the epoch's numbers to the curves, and go to the next epoch. `figures` is the result of `Probe`."""
    train_probe, test_loss, kl, recon = figures
    before = state.curves[-1].seconds if state.curves else 0.0
    rate = state.spec.data.train_images / (state.seconds - before)  # for the whole epoch; `seconds` excludes interruptions
    row = EpochMetrics(state.epoch, mean, test_loss, kl, recon, rate, state.seconds, time.time(), train_probe)
    state.curves.append(row)
    state.epoch, state.step = state.epoch + 1, 0
    state.step_losses.zero_()


def ema_decay(decay: float, step: int) -> float:
    """The decay of the average at `step`. It is small at first, so that the average soon forgets the initial weights."""
    return min(decay, (1 + step) / (10 + step))


def gather_losses(state: TrainState) -> float:
    """Sum the workers' shares of `step_losses`. Return the epoch's mean loss so far.

    Rank 0 then keeps the sums, and the other ranks keep zeros. So a later call counts no loss twice.

    Raises:
        Diverged: a loss is not finite.
    """
    total = sum_over_workers(state.step_losses)
    so_far = total[: state.step]
    if not bool(so_far.isfinite().all()):
        step = int((~so_far.isfinite()).nonzero()[0])
        if state.epoch == step == 0:  # no step was taken, so the learning rate cannot be the cause
            where, advice = "the loss is not finite before the first update", "check what the model computes from noisy images"
        else:
            where = f"training diverged at epoch {state.epoch}, step {step}"
            advice = "lower the learning rate, or clip the gradient's norm"
        raise Diverged(f"{state.spec.label}: {where} (loss {so_far[step].item()}); {advice}")
    state.step_losses = total if rank_and_world()[0] == 0 else torch.zeros_like(total)
    size, n = state.spec.recipe.batch_size, state.spec.data.train_images
    images = torch.full_like(so_far, size, dtype=torch.float64)
    if state.step * size > n:  # the last batch of an epoch may be shorter
        images[-1] = n - (state.step - 1) * size
    return float((so_far.double() * images).sum() / images.sum())
