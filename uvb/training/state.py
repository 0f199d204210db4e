"""TrainState: the whole state of a training, and its checkpoints, which contain no pickled code."""

import copy
import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from uvb.decoding import decoded, parsed
from uvb.errors import UserError
from uvb.models.base import Estimator
from uvb.models.io import storable
from uvb.models.registry import build_model, code_changed, get_model
from uvb.plan import Plan
from uvb.spec import RunSpec
from uvb.training.optimizers import build_optimizers

FORMAT = 1


@dataclass(frozen=True)
class EpochMetrics:
    """The numbers of one epoch. A loss is a mean of the training objective.

    Attributes:
        epoch: the epoch's number, counted from 0. curves.parquet counts from 1.
        train_loss: the mean over the training images. Each image's loss is computed just before the step that uses the image.
        test_loss: the loss of the averaged weights at the end of the epoch, on fixed test images with fixed noise.
        kl: KL[q(z|y), p(z)] on these test images, in nats. None for a model without an encoder.
        recon: ½‖y-μ_y‖²/σ² on these test images, in nats. None for a model without an encoder.
        seconds: training time since the start.
        time: unix time at the end of the epoch.
        train_probe: like `test_loss`, but on fixed training images. None in older files.
    """

    epoch: int
    train_loss: float
    test_loss: float
    kl: float | None
    recon: float | None
    images_per_second: float
    seconds: float
    time: float
    train_probe: float | None = None


@dataclass
class TrainState:
    """Weights, optimizers, average, position and history of one training.

    Attributes:
        model: the weights that the optimizers change.
        averaged: the average of the weights, the result of the training. It is `model` itself if the recipe does not average.
        epoch, step: the position of the next step, both counted from 0.
        step_losses: (steps per epoch,), the mean loss of each batch of this epoch. Each of several workers holds a share, and
            the loss is the sum of the shares.
        seconds: training time so far, without checkpoints and start-up.
    """

    spec: RunSpec
    model: Estimator
    averaged: Estimator
    optimizers: list[torch.optim.Optimizer]
    step_losses: Tensor
    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    curves: list[EpochMetrics] = field(default_factory=list)

    @staticmethod
    def fresh(spec: RunSpec, plan: Plan) -> "TrainState":
        """The state before the first step. The weights are drawn with ``spec.seed``."""
        model = build_model(spec).to(device=plan.device, dtype=plan.dtype)
        averaged = copy.deepcopy(model).requires_grad_(False) if spec.recipe.ema else model
        losses = torch.zeros(steps_per_epoch(spec), dtype=plan.dtype, device=plan.device)
        return TrainState(spec, model, averaged, build_optimizers(model, spec.recipe), losses)

    @property
    def finished(self) -> bool:
        return self.epoch >= self.spec.recipe.epochs

    @property
    def global_step(self) -> int:
        return self.epoch * steps_per_epoch(self.spec) + self.step

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state, by name. Two trainings are the same if and only if all these tensors are equal."""
        named = {f"model/{k}": v for k, v in self.model.state_dict().items()}
        if self.averaged is not self.model:
            named |= {f"averaged/{k}": v for k, v in self.averaged.state_dict().items()}
        for optimizer in self.optimizers:
            for name, parameter in self.model.named_parameters():
                for key, value in sorted(optimizer.state.get(parameter, {}).items()):
                    named[f"{_kind(optimizer)}.{key}/{name}"] = value
        return named | {"step_losses": self.step_losses}

    def save(self, folder: Path, plan: Plan) -> None:
        """Write state.safetensors and state.json to `folder`.

        state.json has the SHA-256 of state.safetensors, and the SHA-256 of its own other fields.
        """
        folder.mkdir(parents=True, exist_ok=True)
        save_file(storable(self.tensors()), folder / "state.safetensors")
        blob = {
            "format": FORMAT,
            "spec": self.spec.to_json(),
            "plan": plan.to_json(),
            "code": get_model(self.spec.model).code,
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.seconds,
            "curves": [dataclasses.asdict(row) for row in self.curves],
            "sha256": file_sha256(folder / "state.safetensors"),
        }
        (folder / "state.json").write_text(json.dumps(blob | {"json_sha256": json_sha256(blob)}))

    @staticmethod
    def load(folder: Path, spec: RunSpec, plan: Plan) -> "TrainState":
        """Read what `save` wrote.

        Raises:
            DamagedCheckpoint: a file is missing, truncated or altered, or is not part of a checkpoint.
            UserError: the checkpoint belongs to another spec, or was made by other code of the model. The message says what
                differs.
        """
        header = read_header(folder)
        differing = "; ".join(RunSpec.from_json(header.spec).differences(spec))
        if differing:
            raise UserError(f"the checkpoint in {folder} belongs to another configuration ({differing}); remove the folder")
        if code_changed(spec.model, header.code):
            raise UserError(
                f"the code of {spec.model} has changed since the checkpoint {folder}; revert the change, or remove the folder"
            )
        if file_sha256(folder / "state.safetensors") != header.sha256:
            raise DamagedCheckpoint(f"{folder}: state.safetensors is damaged (its SHA-256 does not match)")
        tensors = load_file(folder / "state.safetensors")  # on the CPU; "cuda" would be the first GPU, not this worker's
        state = TrainState.fresh(spec, plan)
        # `state` has no tensors of the optimizers yet, because the first step creates them. So they are not compared.
        wanted = {name: tensor.shape for name, tensor in state.tensors().items()}
        stored = {k: v.shape for k, v in tensors.items() if k in wanted or k.startswith(("model/", "averaged/"))}
        unlike = sorted(name for name in wanted.keys() | stored if wanted.get(name) != stored.get(name))
        if unlike:
            raise UserError(
                f"the code of {spec.model} has changed since the checkpoint {folder} ({unlike[0]} differs); remove the folder"
            )
        try:
            state._restore(tensors)
        except (KeyError, ValueError) as error:
            raise DamagedCheckpoint(f"{folder}: a tensor is missing or unknown ({error})") from error
        state.epoch, state.step, state.seconds, state.curves = header.epoch, header.step, header.seconds, header.curves
        return state

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        """Copy the weights, the average and the optimizers' moments from `tensors`, named as in `self.tensors()`."""
        self.model.load_state_dict(_part(tensors, "model/"))
        if self.averaged is not self.model:
            self.averaged.load_state_dict(_part(tensors, "averaged/"))
        parameters = dict(self.model.named_parameters())
        for optimizer in self.optimizers:
            for key, tensor in _part(tensors, f"{_kind(optimizer)}.").items():
                moment, name = key.split("/", 1)
                parameter = parameters[name]
                # A new plan may give the weights another precision. Adam's count of steps is always float32.
                moved = tensor.to(parameter.device, torch.float32 if moment == "step" else parameter.dtype)
                optimizer.state[parameter][moment] = moved
        self.step_losses.copy_(tensors["step_losses"])


class DamagedCheckpoint(Exception):
    """A checkpoint is damaged and must not be used. An earlier checkpoint may be intact."""


def steps_per_epoch(spec: RunSpec) -> int:
    """The number of optimizer steps in an epoch, including the last, short batch."""
    return math.ceil(spec.data.train_images / spec.recipe.batch_size)


@dataclass(frozen=True)
class Header:
    """The contents of state.json.

    Attributes:
        sha256: SHA-256 of state.safetensors.
        json_sha256: SHA-256 of all other fields of state.json. None in older files.
    """

    format: int
    spec: dict[str, Any]
    epoch: int
    step: int
    seconds: float
    curves: list[EpochMetrics]
    sha256: str
    code: str | None = None
    json_sha256: str | None = None


def read_header(folder: Path) -> Header:
    """Read and check the state.json of a checkpoint.

    Raises:
        DamagedCheckpoint: a file is missing, or state.json is not what `TrainState.save` wrote.
    """
    where = f"{folder}: state.json"
    try:
        blob = parsed((folder / "state.json").read_bytes(), where)
        header = decoded(blob, Header, where)
    except (FileNotFoundError, UserError) as error:
        raise DamagedCheckpoint(f"{where} cannot be read ({error})") from error
    if header.json_sha256 not in (None, json_sha256(blob)):
        raise DamagedCheckpoint(f"{where} is damaged (its SHA-256 does not match)")
    if header.format != FORMAT or not (folder / "state.safetensors").exists():
        raise DamagedCheckpoint(f"{folder}: not a whole checkpoint of format {FORMAT}")
    return header


def json_sha256(blob: dict[str, Any]) -> str:
    """SHA-256 of the JSON of `blob`, without the field `json_sha256`, in hex."""
    rest = {key: value for key, value in blob.items() if key != "json_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _kind(optimizer: torch.optim.Optimizer) -> str:
    """The prefix of the optimizer's tensors in a checkpoint, such as "adam"."""
    return type(optimizer).__name__.lower()


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
