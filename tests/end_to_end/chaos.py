"""Chaos: run one study undisturbed, kill the same study again and again, and compare their tables, which must be equal.

`make chaos`, or `python -m tests.end_to_end.chaos --help`. Killed are, with SIGKILL at moments drawn by a seed: a train worker
(also while it writes a checkpoint), a Tune trial, a whole node of a cluster of three (a new one then joins), the driver (the
same command then runs again), a downstream task. A kill counts once its restart was seen. The driver is also ended by a closed
terminal (SIGHUP) and by Ctrl-C pressed twice, after which the same command goes on, and a worker is stopped for a minute.
"""

import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

from tests.end_to_end.chaos_cluster import ChaosError, Driver, Nodes
from tests.end_to_end.chaos_record import Kill, read_json, record, require_no_traces, summary
from tests.support.marked import MARK, end_marked, marked, titled
from tests.support.same_tables import compare

WORKER = "ray::RayTrainWorker"  # how Ray names its processes; after which a new one of these must appear
TITLES = {"worker": WORKER, "checkpoint": WORKER, "trial": "ray::ImplicitFunc", "node": WORKER, "driver": WORKER,
          "hangup": WORKER, "impatient": WORKER, "frozen": WORKER, "task": "ray::run_task"}  # fmt: skip
STUDY = ["--sigmas", "1.0", "--models", "uvb", "deen", "--extra-models", "--experiments", "losses", "internals", "denoise_rows",
         "--num-workers", "2", "--cpus-per-worker", "0.9", "--concurrent-trials", "1", "--train-images", "300",
         "--eval-images", "100", "--eval-test-images", "100", "--checkpoint-seconds", "0.5"]  # fmt: skip
LAST_SHARE = 0.9  # a model that is nearly trained is not attacked: it might end before the kill is felt
ENDINGS = {"driver": [signal.SIGKILL], "hangup": [signal.SIGHUP], "impatient": [signal.SIGINT, signal.SIGINT]}
INTERRUPTED = 130  # exit code of a driver that was asked to end
TOO_LATE = "when its model had just been trained"
RETRY_SEEN_SECONDS = 20.0  # Ray tells of a second attempt within seconds, where there is one


@dataclass(frozen=True)
class Chaos:
    """How often each is killed, and the size of the study that suffers it."""

    seed: int = 0
    workers: int = 6
    checkpoints: int = 4
    """Train workers killed in the midst of writing a checkpoint."""
    trials: int = 3
    nodes: int = 3
    drivers: int = 3
    hangups: int = 1
    """Drivers whose terminal is closed."""
    impatients: int = 1
    """Drivers for which Ctrl-C is pressed, and a second later again."""
    frozens: int = 1
    """Train workers stopped for `frozen_seconds`."""
    frozen_seconds: float = 60.0
    tasks: int = 3
    reports: int = 1
    """Drivers killed while they write tables, figures and report."""
    epochs: int = 120
    eval_draws: int = 60
    patience: float = 600.0
    """Seconds that a restart may take."""
    record: bool = False
    """Write the recovery times into results/speed/, beside the benchmarks."""
    calm: str = ""
    """Where the same study ran undisturbed already (its --storage); empty: it runs first."""
    keep: str = ""
    """A folder to keep everything in; a temporary one, removed at the end, where empty."""

    @property
    def total(self) -> int:
        training = self.workers + self.checkpoints + self.trials + self.nodes + self.drivers
        return training + self.hangups + self.impatients + self.frozens + self.tasks + self.reports


class Attack:
    """The kills of one run."""

    def __init__(self, chaos: Chaos, study: Path, driver: Driver, nodes: Nodes, address: str) -> None:
        self.chaos, self.study, self.driver, self.nodes, self.address = chaos, study, driver, nodes, address
        self.random = random.Random(chaos.seed)
        self.mark = nodes.mark
        self.done: list[Kill] = []

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
        return sum(1.0 if m["done"] else m["epoch"] / self.chaos.epochs for m in all_models) / max(1, len(all_models))

    def begun(self, model: str) -> int:
        """How often it was."""
        return int(self.progress().get(model, {}).get("starts", 0))

    def training(self) -> str:
        """The model that trains now: its spec_id."""
        open_models = {k: m for k, m in self.progress().items() if not m["done"]}
        return max(open_models, key=lambda k: open_models[k]["time"]) if open_models else ""

    def where(self) -> str:
        """Model, epoch and step."""
        spec_id = self.training()
        if not spec_id:
            return "between models"
        spec, now = read_json(self.study / "models" / spec_id / "spec.json"), self.progress()[spec_id]
        steps = -(-spec["data"]["train_images"] // spec["recipe"]["batch_size"])
        return f"{spec['model']} after step {round(now['epoch'] * steps)} of {steps * self.chaos.epochs}"

    def until(self, what: str, condition: Callable[[], Any], pause: float = 0.05, seconds: float = 0.0) -> Any:
        """What `condition` finds. Raises ChaosError where the patience ends, or TimeoutError after `seconds`, if given."""
        deadline = time.monotonic() + (seconds or self.chaos.patience)
        while time.monotonic() < deadline:
            self.driver.require_running()
            if found := condition():
                return found
            time.sleep(pause)
        if seconds:
            raise TimeoutError(what)
        raise ChaosError(f"waited {self.chaos.patience:.0f} s for {what}, in vain; now at {self.where()}:\n{self.driver.log()}")

    def fresh(self, title: str, before: set[psutil.Process]) -> list[psutil.Process]:
        """Processes of that title that are not among those of before. Their birth does not tell: Ray may have taken a process
        that had stood idle since long before the kill."""
        return [process for process in titled(self.mark, title) if process not in before]

    # -------------------------------------------------------------------------------------------------- killing

    def run(self) -> None:
        """All kills of the training, spread over it at moments drawn by the seed, then those of the measurements."""
        c = self.chaos
        kinds = ["worker"] * c.workers + ["checkpoint"] * c.checkpoints + ["trial"] * c.trials + ["node"] * c.nodes
        kinds += ["driver"] * c.drivers + ["hangup"] * c.hangups + ["impatient"] * c.impatients + ["frozen"] * c.frozens
        self.random.shuffle(kinds)
        moments = [LAST_SHARE * (i + self.random.uniform(0.05, 0.95)) / (len(kinds) + 1) for i in range(len(kinds))]
        for kind, moment in zip(kinds, moments, strict=True):
            while True:
                self.until(f"{moment:.0%} of the training", partial(self.ripe, kind, moment))
                if self.training_kill(kind):
                    break
        for _ in range(c.tasks):
            self.task_kill()
        for _ in range(c.reports):
            self.report_kill()

    def ripe(self, kind: str, moment: float) -> bool:
        """Whether the training has come to that moment, and there is something to kill, in the midst of a model: between two
        no model would know that it was begun again."""
        if self.share() == 1.0:
            raise ChaosError(f"all models were trained before a {kind} could be killed: more --epochs, or fewer kills")
        now = self.progress().get(self.training(), {})
        if self.share() < moment or not now.get("images_per_s") or now["epoch"] > LAST_SHARE * self.chaos.epochs:
            return False
        return bool(self.nodes.with_workers(TITLES[kind]) if kind == "node" else titled(self.mark, TITLES[kind]))

    def training_kill(self, kind: str) -> bool:
        """Kill, and wait until that model was begun again. False where it ended by itself at that very moment, so that there
        was nothing left to begin again: such a kill does not count."""
        if kind == "frozen":
            self.freeze()
            return True
        model, at, before, note = self.training(), self.where(), set(titled(self.mark, TITLES[kind])), ""
        if not (starts := self.begun(model)):
            return False
        now, began = time.time(), time.monotonic()
        if kind == "node":
            pid = self.nodes.kill(self.random.choice(self.nodes.with_workers(TITLES[kind])))
            self.nodes.add()
        elif kind in ENDINGS:
            pid = self.end_driver(kind)
            self.driver.start()
        elif kind == "checkpoint":
            pid, left = self.kill_in_checkpoint()
            # the model may have changed since: seen anew, long before anything can have been started again
            model, at, before, note = left.split("/")[0], self.where(), set(self.watched), f", half-written {left}"
            starts = self.begun(model)
            now, began = time.time(), time.monotonic()
        else:
            victim = self.random.choice(titled(self.mark, TITLES[kind]))
            pid = victim.pid
            victim.kill()

        def begun_again() -> str:
            found, born = self.progress()[model], self.fresh(TITLES[kind], before)
            if found["starts"] > starts and born:
                return f"new process {born[0].pid}, starts {starts} -> {found['starts']}{note}"
            return TOO_LATE if found["done"] else ""

        evidence: str = self.until(f"a restart after the {kind} was killed", begun_again)
        if evidence == TOO_LATE:
            print(f"{kind} {pid} killed {TOO_LATE} ({at}); another one, then", flush=True)
            return False
        self.until("training to go on", lambda: self.moving(now))
        self.note(Kill(kind, "training", at, pid, time.monotonic() - began, evidence))
        return True

    def end_driver(self, kind: str) -> int:
        """End the driver by the signals of that kind, and see that it told so; returns its process id."""
        process = self.driver.process
        assert process is not None
        for number, ending in enumerate(ENDINGS[kind]):
            time.sleep(number)  # a person who waits a second before the next
            with suppress(ProcessLookupError):
                os.kill(process.pid, ending)
        code = process.wait(self.chaos.patience)
        if kind != "driver" and code != INTERRUPTED:
            raise ChaosError(f"after {kind} the driver ended with code {code}, not {INTERRUPTED}:\n{self.driver.log()}")
        return process.pid

    def freeze(self) -> None:
        """Stop a worker for a while. The training waits for it, or begins again without it; either way it goes on."""
        victim, at, model = self.random.choice(titled(self.mark, TITLES["frozen"])), self.where(), self.training()
        starts = self.begun(model)
        victim.suspend()
        time.sleep(self.chaos.frozen_seconds)
        now, began = time.time(), time.monotonic()
        with suppress(psutil.Error):  # it was given up for dead meanwhile
            victim.resume()
        self.until("training to go on after a worker was stopped", lambda: self.moving(now))
        evidence = f"stopped for {self.chaos.frozen_seconds:.0f} s, starts {starts} -> {self.begun(model)}"
        self.note(Kill("frozen", "training, no restart asked", at, victim.pid, time.monotonic() - began, evidence))

    def moving(self, since: float) -> bool:
        """Whether a model reported steps made after `since` (or all are done)."""
        models = self.progress().values()
        return all(m["done"] for m in models) or any(m["time"] > since and m.get("images_per_s") for m in models)

    def kill_in_checkpoint(self) -> tuple[int, str]:
        """Kill the worker that writes while its file has a temporary name; the half-written folder is the proof."""

        def hit() -> "tuple[int, str] | None":
            writing = list((self.study / "models").glob("*/state/.tmp-*"))
            if not writing:
                return None
            for worker in list(self.watched):
                with suppress(psutil.Error, OSError):
                    names = {os.readlink(f"/proc/{worker.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{worker.pid}/fd")}
                    if any(str(folder) in name for folder in writing for name in names):
                        worker.kill()
                        worker.wait(10)
                        left = [folder for folder in writing if folder.exists()]
                        if left:
                            return worker.pid, "/".join(left[0].parts[-3:])
                        # It had just got its name: a kill all the same, but not the one wanted. The next checkpoint, then.
            return None

        refreshed = 0.0

        def look() -> "tuple[int, str] | None":
            nonlocal refreshed
            if time.monotonic() - refreshed > 0.5:
                self.watched, refreshed = titled(self.mark, TITLES["checkpoint"]), time.monotonic()
            return hit()

        self.watched: list[psutil.Process] = []
        found: tuple[int, str] = self.until("a checkpoint being written", look, pause=0.001)
        return found

    def task_kill(self) -> None:
        """Kill a task at work. One that ended at that very moment leaves an idle process, whose death restarts nothing: then
        the next one."""
        from ray.util.state.exception import RayStateApiException

        attempts = self.attempts()

        def killed() -> "psutil.Process | None":
            running = titled(self.mark, TITLES["task"])
            self.random.shuffle(running)
            for process in running:
                with suppress(psutil.Error):
                    if " ".join(process.cmdline()).startswith(TITLES["task"]):  # still, now
                        process.kill()
                        return process
            return None

        def retried() -> int:
            with suppress(RayStateApiException):  # a busy dashboard: asked again
                now = self.attempts()
                return now if now > attempts else 0
            return 0

        while True:
            victim: psutil.Process = self.until("a downstream task", killed)
            at, began = f"{len(list((self.study / 'tasks').glob('*/*/result.json')))} results written", time.monotonic()
            with suppress(TimeoutError):
                after = self.until("a task's second attempt", retried, pause=0.3, seconds=RETRY_SEEN_SECONDS)
                break
        self.note(Kill("task", "measurements", at, victim.pid, time.monotonic() - began, f"retries {attempts} -> {after}"))

    def report_kill(self) -> None:
        """Kill the driver when it has just begun to write tables, figures and report, which it tells by timings.json."""
        told, report = self.study / "timings.json", self.study / "report.html"
        before = told.stat().st_mtime_ns if told.exists() else 0
        begun = lambda: told.exists() and told.stat().st_mtime_ns > before  # noqa: E731
        self.until("the report to begin", begun, pause=0.01, seconds=20 * self.chaos.patience)
        pid, began = self.end_driver("driver"), time.monotonic()
        at = f"report.html {'written' if report.exists() else 'not yet written'}"
        killed_at = time.time()
        self.driver.start()
        self.until("the report", lambda: report.exists() and report.stat().st_mtime > killed_at)
        self.note(Kill("report", "report", at, pid, time.monotonic() - began, "written by the same command, run again"))

    def attempts(self) -> int:
        """How many second and later attempts of downstream tasks Ray has begun."""
        from ray.util.state import list_tasks

        tasks = list_tasks(address=self.address, filters=[("name", "=", "run_task")], limit=5000, raise_on_missing_output=False)
        return sum(task.attempt_number > 0 for task in tasks)

    def note(self, kill: Kill) -> None:
        self.done.append(kill)
        said = f"{kill.kind} {kill.pid} killed in {kill.phase} ({kill.at}); back after {kill.recovery_seconds:.1f} s"
        print(f"{len(self.done)}/{self.chaos.total} {said}; {kill.evidence}", flush=True)


# ------------------------------------------------------------------------------------------------------------ the whole


def run_chaos(chaos: Chaos) -> list[Kill]:
    """The undisturbed study, the killed one, and their comparison.

    Raises:
        ChaosError: something was lost.
    """
    folder = Path(chaos.keep).resolve() if chaos.keep else Path(tempfile.mkdtemp(prefix="chaos"))
    scratch = Path(tempfile.mkdtemp(prefix="c"))  # short, for Ray's sockets
    mark = os.environ.get(MARK) or uuid4().hex
    arguments = [*STUDY, "--epochs", str(chaos.epochs), "--eval-draws", str(chaos.eval_draws)]
    nodes = Nodes(mark)
    try:
        calm = Path(chaos.calm or folder / "calm").resolve()
        for each in [folder / "killed"] + ([] if chaos.calm else [calm]):
            shutil.rmtree(each, ignore_errors=True)
            each.mkdir(parents=True)
        address = nodes.start(scratch)
        if not chaos.calm:
            undisturbed = Driver(calm, [*arguments, "--storage", str(calm), "--address", address], mark)
            undisturbed.start()
            undisturbed.wait(20 * chaos.patience)
        seconds = read_json(calm / "digits" / "timings.json").get("total_seconds")
        if seconds is None:
            raise ChaosError(f"{calm} holds no study named digits that ran to its end; leave --calm out, and it runs first")
        print(f"undisturbed: {seconds:.0f} s", flush=True)

        started = time.monotonic()
        driver = Driver(folder / "killed", [*arguments, "--storage", str(folder / "killed"), "--address", address], mark)
        driver.start()
        attack = Attack(chaos, folder / "killed" / "digits", driver, nodes, address)
        attack.run()
        driver.wait(20 * chaos.patience)
        said = f"{len(attack.done)} kills: {time.monotonic() - started:.0f} s, where undisturbed it took {seconds:.0f} s"
        compared = compare(calm / "digits", folder / "killed" / "digits")
        print(f"{said}; equal: {compared}")
        require_no_traces(folder / "killed", attack.done)
        (folder / "kills.json").write_text(json.dumps([asdict(kill) for kill in attack.done], indent=1))
        print(summary(attack.done))
        if chaos.record:
            record(attack.done)
        return attack.done
    finally:
        nodes.stop()
        end_marked(mark)
        if left := marked(mark):
            print(f"left: {left}")
        shutil.rmtree(scratch, ignore_errors=True)
        if not chaos.keep:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    import tyro

    run_chaos(tyro.cli(Chaos))
