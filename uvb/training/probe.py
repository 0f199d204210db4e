"""The numbers that are measured after each epoch: losses on fixed images of both splits, KL and reconstruction error."""

import torch
from torch import Tensor

from uvb.data.image_set import ImageSet
from uvb.models.base import LatentEnergy
from uvb.noise import generator, normal
from uvb.plan import Plan
from uvb.spec import RunSpec
from uvb.training.objectives import build_objective
from uvb.training.parallel import rank_and_world, sum_over_workers
from uvb.training.state import TrainState

PROBE_IMAGES = 1024  # images of each split


class Probe:
    """Measure the averaged weights after each epoch, on fixed images with fixed noise. The workers share the images.

    The objective is computed on images of both splits. KL and reconstruction error are computed only on the test images.
    1,024 images of each split are enough to compare trainings, but too few to measure the generalization gap. On MNIST at
    σ = 1 the loss of an image has a standard deviation of 6.7, so the difference of the two splits has an error of 0.3.
    """

    def __init__(self, spec: RunSpec, plan: Plan, state: TrainState, images: ImageSet) -> None:
        self.plan, self.model = plan, state.averaged
        self.objective = build_objective(spec.objective, state.averaged)
        count = min(PROBE_IMAGES, len(images.test))  # the same for both splits
        self.train = self._fixed(images.train[: spec.data.train_images], count, images.levels)
        self.test = self._fixed(images.test, count, images.levels)

    def _fixed(self, pixels: Tensor, count: int, levels: int) -> tuple[int, list[tuple[Tensor, Tensor, Tensor]]]:
        """How many images all workers have together, and this worker's blocks of x, noise (b, C, H, W) and ε (b, noise_dim)."""
        rank, world = rank_and_world()
        n = min(count, len(pixels))
        x = pixels[torch.randperm(len(pixels), generator=generator(0, "probe"))[:n]].to(self.plan.dtype) / levels
        noise, eps = normal(tuple(x.shape), 0, "probe noise"), normal((n, self.model.noise_dim), 0, "probe latent")
        mine = (a.to(self.plan.dtype)[rank:n:world].to(self.plan.device).split(256) for a in (x, noise, eps))
        return n, list(zip(*mine, strict=True))

    @torch.no_grad()
    def __call__(self) -> tuple[float, float, float | None, float | None]:
        """The loss on training images, the loss on test images, KL, and reconstruction error (see `EpochMetrics`)."""
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
        counts = (of_train, of_test, of_test, of_test)
        train_probe, loss, kl, recon = (s / n for s, n in zip(sum_over_workers(sums).tolist(), counts, strict=True))
        return (train_probe, loss, kl, recon) if isinstance(self.model, LatentEnergy) else (train_probe, loss, None, None)
