"""Helpers of every kind of chaos: they look at a study, and wait until its training goes on."""

import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.end_to_end.chaos_cluster import ChaosError, Driver, Nodes
from tests.support.marked import titled
from tests.support.mlflow_server import MlflowServer
from tests.support.small_disk import SmallDisk

WORKER = "ray::RayTrainWorker"  # the title that Ray gives to a training process
LAST_SHARE = 0.9  # after this share a model is not attacked, because its training might end before the blow takes effect


class TooLate(Exception):
    """The training or the task ended before the blow took effect, so the blow does not count.

    The message completes the sentence "KIND came …", for example "… when no model was training".
    """


@dataclass
class Blow:
    """One disturbance, and how the study went on."""

    at: str
    """When it struck: the model and its step, or for a blow after the training how far the study was."""
    pid: int
    recovery_seconds: float
    evidence: str
    """What shows that the blow took effect."""
    restarts: int = 1
    """The blow caused at least this many restarts of the model."""
    kind: str = ""


@dataclass
class Scene:
    """The model and the processes that work just before a blow."""

    model: str
    """The spec_id of the model that trains."""
    at: str
    """The model and its step (see `Attack.where`)."""
    starts: int
    """How often the training of this model was begun."""
    title: str
    processes: set[psutil.Process]
    """The processes with this title."""
    time: float  # as time.time() says
    began: float  # as time.monotonic() says


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or {} if the file is missing or not yet whole."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}


@dataclass
class Attack:
    """A running study, and the processes and disks that a blow can hit."""

    study: Path
    driver: Driver
    nodes: Nodes
    epochs: int
    patience: float
    """Seconds that a recovery may take."""
    random: random.Random
    frozen_seconds: float = 60.0
    server: MlflowServer | None = None
    disk: SmallDisk | None = None

    # -------------------------------------------------------------------------------------------------- looking

    def progress(self) -> dict[str, dict[str, Any]]:
        """spec_id -> progress.json, with "done" added."""
        found = {}
        for folder in (self.study / "models").glob("*"):
            now = read_json(folder / "progress.json")
            found[folder.name] = {"epoch": 0, "starts": 0, "time": 0.0, **now, "done": (folder / "done.json").exists()}
        return found

    def share(self) -> float:
        """The share of the training that is done."""
        all_models = self.progress().values()
        return sum(1.0 if m["done"] else m["epoch"] / self.epochs for m in all_models) / max(1, len(all_models))

    def training(self) -> str:
        """The spec_id of the model that trains now."""
        open_models = {k: m for k, m in self.progress().items() if not m["done"]}
        return max(open_models, key=lambda k: open_models[k]["time"]) if open_models else ""

    def starts(self, model: str) -> int:
        """How often the training of a model was begun."""
        return int(self.progress().get(model, {}).get("starts", 0))

    def where(self) -> str:
        """Model, epoch and step."""
        spec_id = self.training()
        if not spec_id:
            return "between models"
        spec, now = read_json(self.study / "models" / spec_id / "spec.json"), self.progress()[spec_id]
        steps = -(-spec["data"]["train_images"] // spec["recipe"]["batch_size"])
        return f"{spec['model']} after step {round(now['epoch'] * steps)} of {steps * self.epochs}"

    def scene(self, title: str = WORKER) -> Scene:
        """Look at the study now. Raise TooLate if no model trains."""
        model, processes = self.training(), titled(self.nodes.mark, title)
        if not self.starts(model) or not processes:
            raise TooLate("when no model was training")
        return Scene(model, self.where(), self.starts(model), title, set(processes), time.time(), time.monotonic())

    def ripe(self, moment: float) -> bool:
        """Whether the share `moment` of the training is done, and a model trains now.

        A blow between two models restarts neither model, so there would be no restart to count.
        """
        if self.share() == 1.0:
            raise ChaosError("all models were trained before the last blow: give more --epochs, or fewer kinds")
        now = self.progress().get(self.training(), {})
        if self.share() < moment or not now.get("images_per_s") or now["epoch"] > LAST_SHARE * self.epochs:
            return False
        return bool(titled(self.nodes.mark, WORKER))

    def moving(self, since: float) -> bool:
        """Whether a model reported steps after the time `since`, or all models are done."""
        models = self.progress().values()
        return all(m["done"] for m in models) or any(m["time"] > since and m.get("images_per_s") for m in models)

    # -------------------------------------------------------------------------------------------------- waiting

    def until(self, what: str, condition: Callable[[], Any], pause: float = 0.05, seconds: float = 0.0) -> Any:
        """Wait until `condition` finds something, and return it.

        Raises:
            ChaosError: `condition` found nothing for `patience` seconds, or the driver ended.
            TooLate: `seconds` is given, and `condition` found nothing within `seconds`.
        """
        deadline = time.monotonic() + (seconds or self.patience)
        while time.monotonic() < deadline:
            self.driver.require_running()
            if found := condition():
                return found
            time.sleep(pause)
        if seconds:
            raise TooLate(f"too late: there was no sign of {what} within {seconds:g} s")
        raise ChaosError(f"no sign of {what} after {self.patience:.0f} s; now at {self.where()}:\n{self.driver.said()}")

    def begun_again(self, scene: Scene, pid: int, note: str = "") -> Blow:
        """Wait until a new process trains the scene's model. Raise TooLate if the model's training ends before that."""

        def evidence() -> str:
            found = self.progress()[scene.model]
            # Ray may give the model to an idle process, which is older than the blow. So compare sets, not times.
            born = [process for process in titled(self.nodes.mark, scene.title) if process not in scene.processes]
            if found["starts"] > scene.starts and born:
                return f"new process {born[0].pid}, starts {scene.starts} -> {found['starts']}{note}"
            if found["done"]:
                raise TooLate("when its model had just been trained")
            return ""

        said = self.until("the model to be begun again", evidence)
        return self.went_on(scene, pid, said, restarts=1)

    def went_on(self, scene: Scene, pid: int, evidence: str, restarts: int = 0, since: float = 0.0) -> Blow:
        """Wait until the training makes steps after `since`, by default the time of the scene.

        The recovery is timed from `since` too.
        """
        self.until("training to go on", lambda: self.moving(since or scene.time))
        before = max(0.0, since - scene.time)  # seconds from the scene to `since`, both by the wall clock
        return Blow(scene.at, pid, time.monotonic() - scene.began - before, evidence, restarts)
