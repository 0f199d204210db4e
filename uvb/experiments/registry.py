"""Experiments by name: pure functions from one trained model to numbers and arrays.

`pipelines/executor/measuring.py` runs an experiment and stores the result in ``tasks/<name>/<spec_id>/``.
`pipelines/reporting/figures/<name>.py` draws the result.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from uvb.data import ImageSet
from uvb.data.stream import on_device_if_it_fits
from uvb.exact.empirical_bayes import EmpiricalBayes
from uvb.measure.losses import EvalConfig, NoisyImages, evaluation_images
from uvb.models.base import Energy, Estimator, LatentEnergy
from uvb.noise import generator, normal
from uvb.plan import Plan
from uvb.registry import Registry
from uvb.sampling.chains import WalkState, begin
from uvb.spec import RunSpec

ROWS = 18  # images of Figure 2


@dataclass(frozen=True)
class Context:
    """What an experiment may use besides the model.

    Attributes:
        images: the data set that the model was trained on.
        plan: the device, the precision and the number of threads.
        evaluation: how to measure losses.
        seed: keys all random numbers.
        scale: in (0, 1]. Small values give shorter chains and fewer images, for small budgets and tests.
        data_dir: the folder of named data sets.
    """

    images: ImageSet
    plan: Plan
    evaluation: EvalConfig
    seed: int = 0
    scale: float = 1.0
    data_dir: str = "data"

    def shortened(self, count: int, least: int = 1) -> int:
        """`count` times the scale, rounded, but at least `least`."""
        return max(least, round(count * self.scale))

    def estimates(self, split: str = "test", limit: int | None = None) -> int:
        """The number of estimates x̂(y) in a measurement: one for each noise draw of each image.

        With a `limit` the result counts one noise draw of at most `limit` images.
        """
        pool = len(self.images.train if split == "train" else self.images.test)
        if limit:
            return min(limit, pool)
        chosen = self.evaluation.train_images if split == "train" else self.evaluation.test_images
        return min(chosen or pool, pool) * self.evaluation.draws

    def noisy(self, spec: RunSpec, split: str = "test", limit: int | None = None) -> NoisyImages:
        """Images of a split with noise at the spec's σ: the images of the loss tables, or at most `limit` images."""
        config = self.evaluation if limit is None else replace(self.evaluation, train_images=limit, test_images=limit)
        return NoisyImages.of(self.images, split, spec.sigma, config, self.plan, spec.data.train_images)

    def test_images(self, limit: int) -> Tensor:
        """At most `limit` test images, uint8 (n, C, H, W), the same for every model."""
        return evaluation_images(self.images, "test", replace(self.evaluation, test_images=limit))

    def shown_images(self, spec: RunSpec) -> tuple[Tensor, Tensor]:
        """The images of Figure 2, x and y = x + σ noise, each (N, C, H, W) with N ≤ `ROWS`.

        x and the noise are the same for every model and every σ.
        """
        available = len(self.images.test)
        chosen = torch.randperm(available, generator=generator(self.seed, "rows"))[: min(ROWS, available)]
        clean = self.images.test[chosen].to(self.plan.device, self.plan.dtype) / self.images.levels
        return clean, clean + spec.sigma * self.normal(clean, "rows noise")

    def normal(self, like: Tensor, *purpose: str | int) -> Tensor:
        """Standard normal numbers in the shape of `like`, keyed by the seed and `purpose`."""
        return normal(tuple(like.shape), self.seed, *purpose).to(like)

    def latent_noise(self, model: Estimator, y: Tensor, *purpose: str | int) -> Tensor:
        """ε ~ N(0, I) for images y, (B, noise_dim), keyed by the seed and `purpose`."""
        return normal((len(y), model.noise_dim), self.seed, *purpose).to(y)

    def chains(self, count: int, spec: RunSpec) -> WalkState:
        """Begin `count` chains at Unif[0, 1]^d."""
        return begin(count, spec.data.shape, self.seed, device=self.plan.device, dtype=self.plan.dtype)

    def exact_energy(self, spec: RunSpec) -> EmpiricalBayes:
        """The exact energy of the images that the model was trained on."""
        prior = on_device_if_it_fits(self.images.train[: spec.data.train_images], self.plan.device)
        return EmpiricalBayes(prior, spec.sigma, levels=self.images.levels)


@dataclass(frozen=True)
class Result:
    """`scalars` (JSON types) go to result.json, `arrays` to arrays.safetensors. Unknown numbers are NaN or None."""

    scalars: dict[str, Any]
    arrays: dict[str, Tensor] = field(default_factory=dict)


Run = Callable[[Estimator, RunSpec, Context], Result]
Cost = Callable[[RunSpec, Context], float]


@dataclass(frozen=True)
class Experiment:
    """A registered experiment.

    Attributes:
        run: the function that computes the result.
        needs: the class of models that the experiment can run on.
        where: "every" trained model, or only the models at the study's "largest" σ.
        default: whether a study runs the experiment by default.
        data: the only data set that the experiment can run on. None: any.
        scaled: whether the context's `scale` changes the numbers.
        gradients: a function that estimates the cost, as a number of gradients of one image's energy. x̂(y) counts as one
            gradient, an energy alone as a half.
    """

    name: str
    run: Run
    needs: type  # not `type[Estimator]`, because mypy takes no abstract class there
    where: Literal["every", "largest"]
    default: bool
    data: str | None = None
    scaled: bool = True
    gradients: Cost = lambda spec, context: 0.0

    def applies(self, model_class: type[Estimator], data: str | None = None) -> bool:
        """Whether the experiment can run on a model of this class that was trained on the data set of this name."""
        return issubclass(model_class, self.needs) and self.data in (None, data)


EXPERIMENTS: Registry[Experiment] = Registry("experiment", "uvb.experiments")
get_experiment = EXPERIMENTS.get
_KINDS: dict[str, type] = {"estimator": Estimator, "energy": Energy, "latent": LatentEnergy}


def register_experiment(
    name: str,
    *,
    needs: Literal["estimator", "energy", "latent"] = "estimator",
    where: Literal["every", "largest"] = "every",
    default: bool = True,
    data: str | None = None,
    scaled: bool = True,
    gradients: Cost = lambda spec, context: 0.0,
) -> Callable[[Run], Run]:
    """Decorator that registers a function as the experiment `name`. `Experiment` explains the arguments."""

    def add(run: Run) -> Run:
        EXPERIMENTS.add(name, Experiment(name, run, _KINDS[needs], where, default, data, scaled, gradients))
        return run

    return add


def experiment_names(*, default_only: bool = False) -> list[str]:
    """The names of all experiments, also of installed plug-ins, in order of registration."""
    EXPERIMENTS.load_plugins()
    return [e.name for e in EXPERIMENTS.known.values() if e.default or not default_only]
