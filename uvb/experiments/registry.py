"""Experiments by name: pure functions from one trained model to numbers and arrays.

One file an experiment. `pipelines/executor/measuring.py` runs each and stores what it returns under
``tasks/<name>/<spec_id>/``; `pipelines/reporting/figures/<name>.py` draws it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from uvb.data import ImageSet
from uvb.measure.losses import EvalConfig
from uvb.models.base import Energy, Estimator, LatentEnergy
from uvb.plan import Plan
from uvb.registry import Registry
from uvb.spec import RunSpec


@dataclass(frozen=True)
class Context:
    """What an experiment may use besides the model. `plan` gives device, precision and threads; `seed` keys every draw.

    `scale` in (0, 1] shortens what can be shortened (chains, images), for small budgets and tests.
    """

    images: ImageSet
    plan: Plan
    evaluation: EvalConfig
    seed: int = 0
    scale: float = 1.0


@dataclass(frozen=True)
class Result:
    """`scalars` (JSON types; NaN-free) go to result.json, `arrays` to arrays.safetensors."""

    scalars: dict[str, Any]
    arrays: dict[str, Tensor] = field(default_factory=dict)


Run = Callable[[Estimator, RunSpec, Context], Result]


@dataclass(frozen=True)
class Experiment:
    """A registered experiment.

    Attributes:
        needs: the kind of model it applies to.
        where: "every" trained model, or only those at the study's "largest" σ.
        default: whether a study runs it unasked.
        data: the one data set it is for (None: any).
        scaled: whether the context's `scale` changes its numbers.
    """

    name: str
    run: Run
    needs: type[Estimator]
    where: Literal["every", "largest"]
    default: bool
    data: str | None = None
    scaled: bool = True

    def applies(self, model_class: type[Estimator], data: str | None = None) -> bool:
        """Whether it can be run on a model of this class, trained on the data set of this name."""
        return issubclass(model_class, self.needs) and self.data in (None, data)


EXPERIMENTS: Registry[Experiment] = Registry("experiment", "uvb.experiments")
_KINDS: dict[str, type[Estimator]] = {"estimator": Estimator, "energy": Energy, "latent": LatentEnergy}


def register_experiment(
    name: str,
    *,
    needs: Literal["estimator", "energy", "latent"] = "estimator",
    where: Literal["every", "largest"] = "every",
    default: bool = True,
    data: str | None = None,
    scaled: bool = True,
) -> Callable[[Run], Run]:
    """Function decorator that makes an experiment known by `name`."""

    def add(run: Run) -> Run:
        EXPERIMENTS.add(name, Experiment(name, run, _KINDS[needs], where, default, data, scaled))
        return run

    return add


def experiment_names(*, default_only: bool = False) -> list[str]:
    """The registered names, in order of registration, those of installed plug-ins included."""
    EXPERIMENTS.load_plugins()
    return [e.name for e in EXPERIMENTS.known.values() if e.default or not default_only]


def get_experiment(name: str) -> Experiment:
    """The experiment called `name`, loaded from a plug-in (group ``uvb.experiments``) if need be.

    Raises:
        UserError: if there is none.
    """
    return EXPERIMENTS.get(name)
