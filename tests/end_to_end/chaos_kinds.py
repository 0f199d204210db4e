"""The kinds of chaos. After each of them, the study must go on and end like an undisturbed study.

Each kind is a function. It strikes a blow (it harms the study), waits until the study goes on, and returns the `Blow`,
which records both. If the blow came too late to have an effect, the function raises `TooLate`, and `disturb` calls it again.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import psutil

from tests.end_to_end.chaos_attack import WORKER, Attack, Blow, Scene, TooLate
from tests.support.endings import ENDINGS, Ending, end, require_ended, run_statuses
from tests.support.marked import titled

TRIAL, TASK = "ray::ImplicitFunc", "ray::run_task"  # titles of Ray's processes: a Tune trial, a measurement
FULL = "No space left on device; free some space there"
MISSED = "cannot be reached"
FULL_SECONDS = 2.0  # a checkpoint is due every 0.5 s
RETRY_SECONDS = 20.0  # Ray reports a second attempt within seconds, if there is one
MORE_MEGABYTES = 100
PHASES = ("training", "measurements", "report")


@dataclass(frozen=True)
class Kind:
    """One kind, and how often `make chaos` does it."""

    strike: Callable[[Attack], Blow]
    times: int
    phase: str = "training"
    order: int = 0
    """-1: first in its phase, because the model must still train for long. 1: last, because the kind takes long."""


KINDS: dict[str, Kind] = {}


def kind(times: int, **options: Any) -> Callable[[Callable[[Attack], Blow]], Callable[[Attack], Blow]]:
    """Register a function as a kind, under the function's name."""

    def register(strike: Callable[[Attack], Blow]) -> Callable[[Attack], Blow]:
        KINDS[strike.__name__] = Kind(strike, times, **options)
        return strike

    return register


def kill_one(attack: Attack, scene: Scene) -> int:
    """Kill one of the scene's processes. Return its process id."""
    victim = attack.random.choice(sorted(scene.processes, key=lambda process: process.pid))
    with suppress(psutil.NoSuchProcess):
        victim.kill()
    return victim.pid


# ------------------------------------------------------------------------------------------------ while models train


@kind(times=6)
def worker(attack: Attack) -> Blow:
    """A train worker is killed."""
    scene = attack.scene()
    return attack.begun_again(scene, kill_one(attack, scene))


@kind(times=4)
def checkpoint(attack: Attack) -> Blow:
    """A train worker is killed while it writes a checkpoint. A half-written folder proves it."""
    watched: list[psutil.Process] = []
    refreshed = 0.0

    def hit() -> tuple[int, str] | None:
        nonlocal watched, refreshed
        if time.monotonic() - refreshed > 0.5:
            watched, refreshed = titled(attack.nodes.mark, WORKER), time.monotonic()
        writing = list((attack.study / "models").glob("*/state/.tmp-*"))
        if not writing:
            return None
        for process in watched:
            with suppress(psutil.Error, OSError):
                names = {os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{process.pid}/fd")}
                if any(str(folder) in name for folder in writing for name in names):
                    process.kill()
                    process.wait(10)
                    left = [folder for folder in writing if folder.exists()]
                    if left:  # empty if the checkpoint had just been renamed to its final name
                        return process.pid, "/".join(left[0].parts[-3:])
        return None

    pid, left = attack.until("a checkpoint being written", hit, pause=0.001)
    model = left.split("/")[0]
    scene = Scene(model, attack.where(), attack.starts(model), WORKER, set(watched), time.time(), time.monotonic())
    return attack.begun_again(scene, pid, f", half-written {left}")


@kind(times=3)
def trial(attack: Attack) -> Blow:
    """A Tune trial is killed. The trial drives the workers of a model."""
    scene = attack.scene(TRIAL)
    return attack.begun_again(scene, kill_one(attack, scene))


@kind(times=3)
def node(attack: Attack) -> Blow:
    """A whole node is killed, and a new node joins."""
    scene, nodes = attack.scene(), attack.nodes.with_workers(WORKER)
    if not nodes:
        raise TooLate("when no node had workers")
    pid = attack.nodes.kill(attack.random.choice(nodes))
    attack.nodes.add()
    return attack.begun_again(scene, pid)


@kind(times=3)
def driver(attack: Attack) -> Blow:
    """The driver is killed, and the same command runs again."""
    scene = attack.scene()
    pid = attack.driver.kill()
    attack.driver.start(attack.nodes.address)
    return attack.begun_again(scene, pid)


def ended(ending: Ending, attack: Attack) -> Blow:
    """The study ends early and says so, and the same command runs again. If Ray was lost, it runs on a new cluster."""
    scene, process = attack.scene(), attack.driver.process
    pid = end(ending, process, attack.nodes.of_head)
    require_ended(ending, process, attack.driver.said, attack.patience)
    statuses = set(run_statuses(attack.study.parent))
    assert statuses - {"FINISHED"} == {ending.status}, statuses
    if ending.victim:
        attack.nodes.restart()
    attack.driver.start(attack.nodes.address)
    return attack.begun_again(scene, pid)


KINDS |= {name: Kind(partial(ended, ending), times=1) for name, ending in ENDINGS.items()}


@kind(times=1)
def frozen(attack: Attack) -> Blow:
    """A worker is stopped for a while. The training waits for it, or begins again without it."""
    scene = attack.scene()
    victim = attack.random.choice(sorted(scene.processes, key=lambda process: process.pid))
    victim.suspend()
    time.sleep(attack.frozen_seconds)
    now = time.time()
    with suppress(psutil.Error):  # Ray may have ended it in the meantime
        victim.resume()
    blow = attack.went_on(scene, victim.pid, "", since=now)
    blow.evidence = f"stopped for {attack.frozen_seconds:.0f} s, starts {scene.starts} -> {attack.starts(scene.model)}"
    return blow


@kind(times=1, order=1)
def mlflow(attack: Attack) -> Blow:
    """The MLflow server is killed and started again. `require_no_traces` checks that the server has all epochs in the end."""
    scene, server = attack.scene(), attack.server
    assert server is not None
    told = attack.driver.said().count(MISSED)
    pid = server.kill()
    attack.until("the study to miss MLflow", lambda: attack.driver.said().count(MISSED) > told)
    attack.until("training to go on without MLflow", lambda: attack.moving(scene.time))
    now = time.time()
    server.start()
    return attack.went_on(scene, pid, f"away for {now - scene.time:.0f} s, which the study said", since=now)


@kind(times=1, order=-1)
def storage(attack: Attack) -> Blow:
    """The study's disk is full for a while, and then enlarged. The training goes on and says why it saved nothing."""
    scene, disk = attack.scene(), attack.disk
    assert disk is not None
    disk.fill()
    time.sleep(FULL_SECONDS)
    now = time.time()
    disk.enlarge(MORE_MEGABYTES)
    blow = attack.went_on(scene, os.getpid(), f"full for {now - scene.time:.0f} s, which the study said", since=now)
    attack.until("the study to say so", lambda: FULL in attack.driver.said())
    return blow


# ------------------------------------------------------------------------------------------------ after the training


@kind(times=3, phase="measurements")
def task(attack: Attack) -> Blow:
    """A measurement is killed while it runs. If it has just ended, the kill hits an idle process and restarts nothing."""
    from ray.util.state import list_tasks
    from ray.util.state.exception import RayStateApiException

    def attempts() -> int:
        """How many second and later attempts of measurements Ray has begun."""
        query = {"address": attack.nodes.address, "filters": [("name", "=", "run_task")], "limit": 5000}
        return sum(found.attempt_number > 0 for found in list_tasks(**query, raise_on_missing_output=False))

    def killed() -> psutil.Process | None:
        running = titled(attack.nodes.mark, TASK)
        attack.random.shuffle(running)
        for process in running:
            with suppress(psutil.Error):
                if " ".join(process.cmdline()).startswith(TASK):  # look again right before the kill
                    process.kill()
                    return process
        return None

    def retried() -> int:
        with suppress(RayStateApiException):  # the dashboard is busy, so ask again later
            now = attempts()
            return now if now > before else 0
        return 0

    before = attempts()
    victim = attack.until("a measurement", killed)
    at, began = f"{len(list((attack.study / 'tasks').glob('*/*/result.json')))} results written", time.monotonic()
    after = attack.until("a second attempt", retried, pause=0.3, seconds=RETRY_SECONDS)
    return Blow(at, victim.pid, time.monotonic() - began, f"retries {before} -> {after}", restarts=0)


@kind(times=1, phase="report")
def report(attack: Attack) -> Blow:
    """The driver is killed after it wrote timings.json, when it begins to write tables, figures and report."""
    told, page = attack.study / "timings.json", attack.study / "report.html"
    before = told.stat().st_mtime_ns if told.exists() else 0
    begun = lambda: told.exists() and told.stat().st_mtime_ns > before  # noqa: E731
    attack.until("the report to begin", begun, pause=0.01, seconds=20 * attack.patience)  # the measurements come first
    at = f"report.html {'written' if page.exists() else 'not yet written'}"
    pid, killed_at, began = attack.driver.kill(), time.time(), time.monotonic()
    attack.driver.start(attack.nodes.address)
    attack.until("the report", lambda: page.exists() and page.stat().st_mtime > killed_at)
    return Blow(at, pid, time.monotonic() - began, "written by the same command, run again", restarts=0)
