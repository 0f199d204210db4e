"""Run a study undisturbed, then run the same study and disturb it many times. The tables of both must be equal.

Run `make chaos`, or `python -m tests.end_to_end.chaos --help`. chaos_kinds.py has the kinds of disturbance. A disturbance
counts if the study continued after it.
"""

import json
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from uuid import uuid4

from tests.end_to_end.chaos_attack import LAST_SHARE, Attack, Blow, TooLate, read_json
from tests.end_to_end.chaos_cluster import ChaosError, Driver, Nodes
from tests.end_to_end.chaos_kinds import KINDS, PHASES
from tests.end_to_end.chaos_record import record, recoveries, require_no_traces, require_same
from tests.support.marked import MARK, end_marked, marked
from tests.support.mlflow_server import MlflowServer
from tests.support.small_disk import CannotMount, SmallDisk
from tests.support.studies import STUDY

DISK_MEGABYTES = 100
Needed = tuple[MlflowServer | None, SmallDisk | None]


@dataclass(frozen=True)
class Chaos:
    """How often the study is disturbed, and how large it is."""

    times: dict[str, int] = field(default_factory=dict)
    """How often each kind happens: --times worker 6 storage 1. Other kinds do not happen. Empty: as in chaos_kinds.py."""
    rounds: int = 1
    """How many studies are disturbed, one after the other. Each has all disturbances, at other moments, and its own record."""
    seed: int = 0
    frozen_seconds: float = 60.0
    """How long a worker is stopped."""
    epochs: int = 120
    eval_draws: int = 60
    patience: float = 600.0
    """Seconds that a recovery may take."""
    record: bool = False
    """Append the results to results/chaos/runs.json."""
    calm: str = ""
    """The --storage folder of an undisturbed run of the same study. Empty: run the undisturbed study first."""
    keep: str = ""
    """The folder for the studies, which is kept. Empty: a temporary folder, removed at the end."""


def moments(times: dict[str, int], chance: random.Random) -> Iterator[tuple[str, float]]:
    """Yield the kinds in the order in which they happen, each with the share of the training that must be done first.

    A kind that strikes during the measurements or the report has the share 1.
    """
    for phase in PHASES:
        names = [name for name, count in times.items() for _ in range(count) if KINDS[name].phase == phase]
        chance.shuffle(names)
        names.sort(key=lambda name: KINDS[name].order)
        for index, name in enumerate(names):
            share = LAST_SHARE * (index + chance.uniform(0.05, 0.95)) / (len(names) + 1)
            yield name, share if phase == "training" else 1.0


def disturb(attack: Attack, times: dict[str, int]) -> list[Blow]:
    """Cause each disturbance at its moment, and wait until the study goes on. Return a `Blow` for each disturbance."""
    blows: list[Blow] = []
    for name, moment in moments(times, attack.random):
        while True:
            if moment < 1:
                attack.until(f"{moment:.0%} of the training", partial(attack.ripe, moment))
            try:
                blow = KINDS[name].strike(attack)
                break
            except TooLate as said:
                print(f"{name} came {said}; trying again", flush=True)
        blow.kind = name
        blows.append(blow)
        said = f"{name} ({blow.at}, process {blow.pid}); back after {blow.recovery_seconds:.1f} s; {blow.evidence}"
        print(f"{len(blows)}/{sum(times.values())} {said}", flush=True)
    return blows


@contextmanager
def needed(times: dict[str, int], folder: Path, skipped: dict[str, str]) -> Iterator[Needed]:
    """Set up the MLflow server and the small disk, if a kind needs them. `skipped` notes a kind that cannot happen here."""
    server = disk = None
    with ExitStack() as stack:
        if times.get("storage"):
            try:
                disk = SmallDisk(folder / "digits", DISK_MEGABYTES)
                stack.callback(disk.remove)
            except CannotMount as error:
                skipped["storage"] = str(error)
                print(f"storage is skipped: {error}", flush=True)
        if times.get("mlflow"):
            server = stack.enter_context(MlflowServer(folder / "mlflow.db", folder))
        yield server, disk


def undisturbed(chaos: Chaos, folder: Path, nodes: Nodes) -> tuple[Path, float]:
    """Run the undisturbed study, unless `calm` names its folder. Return its folder, and how many seconds it took."""
    calm = Path(chaos.calm or folder / "calm").resolve()
    if not chaos.calm:
        driver = Driver(emptied(calm), [*arguments(chaos), "--storage", str(calm)], nodes.mark)
        driver.start(nodes.address)
        driver.wait(20 * chaos.patience)
    seconds = read_json(calm / "digits" / "timings.json").get("total_seconds")
    if seconds is None:
        raise ChaosError(f"{calm} holds no finished study named digits; leave out --calm to run that study first")
    print(f"undisturbed: {seconds:.0f} s", flush=True)
    return calm / "digits", seconds


def arguments(chaos: Chaos) -> list[str]:
    return [*STUDY, "--epochs", str(chaos.epochs), "--eval-draws", str(chaos.eval_draws)]


def emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def compare_all(chaos: Chaos, folder: Path, nodes: Nodes) -> list[Blow]:
    """Run the study undisturbed once, and `rounds` disturbed studies. A round that fails does not end the others.

    Raises:
        ChaosError: a round failed.
    """
    calm, seconds = undisturbed(chaos, folder, nodes)
    blows, failed = [], dict[int, str]()
    for seed in range(chaos.seed, chaos.seed + chaos.rounds):
        try:
            blows += compare_disturbed(replace(chaos, seed=seed), calm, seconds, folder, nodes)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            failed[seed] = str(error)
            print(f"the round of seed {seed} failed: {error}", flush=True)
            end_marked(nodes.mark)
            nodes.restart()
    if failed:
        raise ChaosError("\n".join(f"seed {seed}: {said}" for seed, said in failed.items()))
    return blows


def compare_disturbed(chaos: Chaos, calm: Path, seconds: float, folder: Path, nodes: Nodes) -> list[Blow]:
    """Run a disturbed study, and compare it with the undisturbed study in `calm`, which took `seconds`. Record the result."""
    rough, skipped = emptied(folder / "disturbed"), dict[str, str]()
    with needed(chaos.times, rough, skipped) as (server, disk):
        started = time.monotonic()
        driver = Driver(rough, [*arguments(chaos), "--storage", str(rough)], nodes.mark)
        driver.arguments += ["--tracking-uri", server.address] if server else []
        driver.start(nodes.address)
        attack = Attack(rough / "digits", driver, nodes, chaos.epochs, chaos.patience, random.Random(chaos.seed),
                        chaos.frozen_seconds, server, disk)  # fmt: skip
        blows = disturb(attack, {name: count for name, count in chaos.times.items() if name not in skipped})
        driver.wait(20 * chaos.patience)
        took = time.monotonic() - started
        compared = require_same(calm, rough / "digits")
        print(f"{len(blows)} blows: {took:.0f} s, undisturbed {seconds:.0f} s; equal: {compared}")
        require_no_traces(rough, blows)
    for kind, found in recoveries(blows).items():
        print(kind, found)
    if chaos.record:
        size = {"epochs": chaos.epochs, "seed": chaos.seed, "seconds": round(took), "undisturbed_seconds": round(seconds)}
        record(blows, {**size, "equal_tables": compared, "skipped": skipped})
    return blows


def run_chaos(chaos: Chaos) -> None:
    """Set up a cluster, compare a disturbed study with an undisturbed one, and leave nothing behind.

    Raises:
        ChaosError: a study did not recover, or its tables differ from those of the undisturbed study.
    """
    times = chaos.times or {name: kind.times for name, kind in KINDS.items()}
    if unknown := set(times) - set(KINDS):
        raise SystemExit(f"--times knows {', '.join(KINDS)}, not {', '.join(sorted(unknown))}")
    folder = Path(chaos.keep).resolve() if chaos.keep else Path(tempfile.mkdtemp(prefix="chaos"))
    scratch = Path(tempfile.mkdtemp(prefix="c"))  # a short path, because Ray makes sockets below it
    nodes = Nodes(os.environ.get(MARK) or uuid4().hex)
    try:
        nodes.start(scratch)
        blows = compare_all(replace(chaos, times=times), folder, nodes)
        (folder / "blows.json").write_text(json.dumps([asdict(blow) for blow in blows], indent=1))
    finally:
        nodes.stop()
        end_marked(nodes.mark)
        if left := marked(nodes.mark):
            print(f"left: {left}")
        shutil.rmtree(scratch, ignore_errors=True)
        if not chaos.keep:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    import tyro

    run_chaos(tyro.cli(Chaos))
