"""What the cluster has, what is asked of it, and the layout chosen: workers a model, models at a time."""

import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import ray
import torch
from ray._private.utils import read_ray_address
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipelines.cluster.cost_model import L4, TWO_CORES, Work, best_workers, training_seconds
from pipelines.files.store import Store
from pipelines.study.config import StudyConfig
from uvb.errors import UserError
from uvb.plan import Plan, resolve_plan, usable_cpus
from uvb.spec import RunSpec

TRIAL_CPUS = 0.01  # a trial only waits for its worker group, which has a placement group of its own; 0 is refused
LEAST_CPUS = 0.01  # of a worker
ANSWER_SECONDS = 10.0  # until a cluster's port counts as closed
FIRST_WORKER_SECONDS = 900.0  # an autoscaler may have to start a machine first
CARRIED = ("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "RAY_TRAIN_COLLECTIVE_TIMEOUT_S", "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S",
           "RAY_CHDIR_TO_TRIAL_DIR", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "MLFLOW_DISABLE_TELEMETRY")  # fmt: skip


@dataclass(frozen=True)
class Capacity:
    """What there is: CPUs and GPUs in all, those of each node, and whether it is a cluster or this machine."""

    cpus: int
    gpus: int
    nodes: tuple[tuple[int, int], ...]  # (CPUs, GPUs) of each
    cluster: bool

    def __str__(self) -> str:
        count = len(self.nodes)
        where = f"the cluster ({count} node{'s' * (count != 1)})" if self.cluster else "this machine"
        return f"{where} has {self.cpus} CPU{'s' * (self.cpus != 1)} and {self.gpus} GPU{'s' * (self.gpus != 1)}"

    @property
    def node_cpus(self) -> list[int]:
        """CPUs of each node; what is expected to come counts as nodes like the largest."""
        return _with_expected([cpus for cpus, _ in self.nodes if cpus], self.cpus)

    @property
    def node_gpus(self) -> list[int]:
        """GPUs of each node that has some, likewise."""
        return _with_expected([gpus for _, gpus in self.nodes if gpus], self.gpus)


def _with_expected(found: list[int], total: int) -> list[int]:
    size, missing = max(found, default=total), total - sum(found)
    return found + [size] * (missing // size) + [missing % size] * (missing % size > 0) if missing > 0 else found


@dataclass(frozen=True)
class Layout:
    """How the trainings share what there is. `concurrency` groups at a time, each of `workers` workers."""

    workers: int
    concurrency: int
    cpus_per_worker: float
    gpus_per_worker: float

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        return "cuda" if self.gpus_per_worker else "cpu"

    @property
    def threads(self) -> int:
        """CPU threads of one worker: the CPUs it has, the sliver that is left for the trials not missed."""
        return max(1, round(self.cpus_per_worker))

    @property
    def resources(self) -> dict[str, float]:
        """Ray resources of one worker."""
        gpus = {"GPU": self.gpus_per_worker} if self.gpus_per_worker else {}
        return {"CPU": self.cpus_per_worker, **gpus}

    def __str__(self) -> str:
        each = f"{self.cpus_per_worker:g} CPU" + (f" and {self.gpus_per_worker:g} GPU" if self.gpus_per_worker else "")
        together = "one model at a time" if self.concurrency == 1 else f"{self.concurrency} models at a time"
        return f"{together}, {self.workers} worker{'s' * (self.workers != 1)} of {each} each"


def cluster_address(config: StudyConfig) -> str | None:
    """The address of the cluster to join, or None where Ray is to be started on this machine.

    A running cluster counts where `ray start` made it (a node of a cluster, or a laptop's own), not another study's.
    """
    if config.address == "local":
        return None
    if config.address and config.address != "auto":
        return config.address
    found = os.environ.get("RAY_ADDRESS") or read_ray_address(None)
    if config.address == "auto" and not found:
        raise UserError("--address auto: no running Ray cluster was found; start one, or leave --address out")
    return found


def start_ray(address: str | None) -> None:
    """Join the cluster at `address`, or start Ray on this machine; its own words stay in its log files.

    Raises:
        UserError: there is no cluster at that address.
    """
    if address is not None:
        _require_answer(address)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        # Ray tells of every worker that died in a paragraph, however quiet it is told to be; we say what is done about it.
        ray._private.worker.print_to_stdstream = lambda *_, **__: None
        if address is None:
            # The dashboard's process is the one that frees the CPUs of a killed trial's workers.
            ray.init(address="local", num_cpus=usable_cpus(), include_dashboard=True, **quiet)
        else:
            ray.init(address=address, runtime_env={"env_vars": {name: os.environ[name] for name in CARRIED}}, **quiet)
    except ConnectionError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"no Ray cluster answers at {address} ({reason}); give another --address, or local") from error
    except Exception as error:  # Ray's own start-up time-out is a bare Exception
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"Ray did not start ({reason}); on a busy machine, try again when it is quieter") from error


def _require_answer(address: str) -> None:
    """Ask the port first: Ray itself would retry, and warn of each try on stderr."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not (host and port.isdecimal()):
        return  # "auto", or what Ray has its own words for
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"no Ray cluster answers at {address} ({reason}); give another --address, or local") from error


def leave_ray(*, at_once: bool = False) -> None:
    """Disconnect from Ray, and end what of it was started here.

    `at_once` is for a process that is about to leave by `os._exit` while Tune's thread still talks to Ray: a proper shutdown
    would take the connection from under that thread, which crashes the process. A cluster then ends what the driver had
    running when it sees the driver gone.
    """
    if not at_once:
        ray.shutdown()
        return
    logging.disable()  # what Tune's thread has to say of it
    node = ray._private.worker._global_node
    if node is not None:
        node.kill_all_processes(check_alive=False, allow_graceful=True)


def local_capacity() -> Capacity:
    """What this machine has."""
    cpus, gpus = usable_cpus(), torch.cuda.device_count()
    return Capacity(cpus, gpus, ((cpus, gpus),), cluster=False)


def cluster_capacity(config: StudyConfig) -> Capacity:
    """What the cluster has, or can grow to as the user says (`expect_cpus`, `expect_gpus`)."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    nodes = tuple((int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in alive)
    cpus, gpus = map(sum, zip(*nodes, strict=True))
    return Capacity(max(cpus, config.expect_cpus), max(gpus, config.expect_gpus), nodes, cluster=True)


def choose_layout(config: StudyConfig, has: Capacity, specs: Sequence[RunSpec]) -> Layout:
    """The layout for the trainings of `specs`. What the user asked for is kept; the rest is what suits `has`.

    On CPUs two workers share a model, and as many models train at a time as there are CPUs for. On GPUs a model has as
    many as end the study first by docs/scaling.md, reckoned for slow links: one, unless there are more GPUs than models.

    Raises:
        UserError: it asks for more than there is.
    """
    return _gpu_layout(config, has, specs) if config.use_gpu else _cpu_layout(config, has, specs)


def _cpu_layout(config: StudyConfig, has: Capacity, specs: Sequence[RunSpec]) -> Layout:
    workers = config.num_workers or max(1, min(2, has.cpus))
    least = config.cpus_per_worker or 1.0
    slots = sum(int(cpus / least) for cpus in has.node_cpus)  # a worker lies on one node whole
    if workers > slots:
        asked = f"{workers} worker{'s' * (workers != 1)} of {least:g} CPU{'s' * (least != 1)} each"
        advice = f"{slots} (--num-workers)" if slots else f"{max(has.node_cpus)} CPUs each, as one node has (--cpus-per-worker)"
        raise UserError(f"asked for {asked}, and {has}; ask for at most {advice}")
    fitting = slots // workers
    concurrency = config.concurrent_trials or min(fitting, len(specs))
    if concurrency > fitting and config.cpus_per_worker:
        raise UserError(
            f"asked for {concurrency} trials at a time of {workers} x {least:g} CPUs, and {has}; "
            f"ask for at most {fitting} (--concurrent-trials), or fewer CPUs a worker"
        )
    # A little is left for the trials themselves, and workers that share a CPU get equal parts of it.
    spare = concurrency * TRIAL_CPUS
    share = cpu_share(has.node_cpus, concurrency * workers, spare) if spare < max(has.node_cpus) else 0.0
    if share < LEAST_CPUS:
        raise UserError(f"asked for {concurrency} trials at a time, and {has}; ask for fewer (--concurrent-trials)")
    cpus = min(config.cpus_per_worker or share, share)
    return Layout(workers, concurrency, int(cpus * 100 + 1e-6) / 100, 0.0)


def cpu_share(nodes: Sequence[int], count: int, spare: float) -> float:
    """The most CPUs that each of `count` workers can have where each lies on one node whole, `spare` left on every node."""
    rooms = [cpus - spare for cpus in nodes if cpus > spare]
    shares = sorted({room / k for room in rooms for k in range(1, count + 1)}, reverse=True)
    return next(share for share in shares if sum(int(room / share + 1e-9) for room in rooms) >= count)


def _gpu_layout(config: StudyConfig, has: Capacity, specs: Sequence[RunSpec]) -> Layout:
    each = config.gpus_per_worker
    if not has.gpus:
        raise UserError(f"--use-gpu, and {has}; where the cluster adds GPU nodes on demand, say how many with --expect-gpus")
    slots = sum(int(gpus / each + 1e-9) for gpus in has.node_gpus)  # a worker lies on one node whole
    if not slots:
        most = max(has.node_gpus)
        raise UserError(
            f"asked for {each:g} GPUs a worker, and {has}, {most} on one node; ask for at most {most} (--gpus-per-worker)"
        )
    if each < 1 and config.num_workers > 1:  # NCCL refuses two ranks of one model on one GPU
        raise UserError(
            f"asked for {config.num_workers} workers a model of {each:g} GPU each; workers of one model need a whole GPU each: "
            "give --gpus-per-worker 1, or --num-workers 1"
        )
    workers = config.num_workers or (1 if each < 1 else best_workers([Work.of(spec) for spec in specs], L4, slots))
    concurrency = config.concurrent_trials or max(1, min(slots // workers, len(specs)))
    count = workers * concurrency
    if count > slots:
        raise UserError(f"asked for {concurrency} x {workers} workers of {each:g} GPU each, and {has}; ask for at most {slots}")
    rooms = [(cpus - concurrency * TRIAL_CPUS) / (gpus / each) for cpus, gpus in has.nodes if gpus]  # a GPU's part of its node
    share = int(10 * min([(has.cpus - concurrency * TRIAL_CPUS) / count, *rooms])) / 10
    cpus = config.cpus_per_worker or max(0.1, min(4.0, share))
    if cpus > share:
        raise UserError(f"asked for {count} workers of {cpus:g} CPUs each, and {has}; ask for at most {share:g} CPUs a worker")
    return Layout(workers, concurrency, cpus, each)


def new_plan(config: StudyConfig, layout: Layout, has: Capacity, specs: Sequence[RunSpec]) -> Plan:
    """The plan for `specs`, models that have none yet, resolved where workers run: here, or on a worker's node."""
    shortest = min(training_seconds(Work.of(spec), TWO_CORES, layout.workers) for spec in specs)  # roughly, and on a CPU
    wishes: dict[str, Any] = {
        "workers": layout.workers, "device": layout.device, "precision": config.precision, "compile": config.compile,
        "threads": layout.threads, "seconds": shortest,
    }  # fmt: skip
    if not has.cluster:
        return resolve_plan(**wishes)
    task = ray.remote(resolve_plan).options(num_cpus=layout.cpus_per_worker, num_gpus=layout.gpus_per_worker)
    try:
        plan = ray.get(task.remote(**wishes), timeout=FIRST_WORKER_SECONDS)
    except GetTimeoutError as error:
        raise UserError(
            f"no node with room for a worker ({layout}) came within {FIRST_WORKER_SECONDS / 60:g} minutes, and {has}; "
            "ask for less, or look at what the autoscaler says: ray status"
        ) from error
    return Plan.from_json(plan.to_json())


def require_shared(store: Store, has: Capacity) -> None:
    """Refuse a study's folder on the driver's own disk where other nodes do not see it.

    Raises:
        UserError: a node does not see the file study.json, which the driver has just written.
    """
    if not has.cluster or len(has.nodes) < 2 or store.local_path is None:
        return
    here = ray.get_runtime_context().get_node_id()
    others = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    sees = ray.remote(os.path.exists)
    asked = []
    for node in others:
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        asked.append(sees.options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote(f"{store.uri}/study.json"))
    blind = 0
    for answer in asked:
        try:
            blind += not ray.get(answer, timeout=60)
        except RayError:  # it went away meanwhile, or is busy: it will be seen whether it can work
            continue
    if blind:
        raise UserError(
            f"{blind} of {len(has.nodes)} nodes do not see {store.uri}; give --storage a folder that all nodes mount, or a URI "
            "such as s3://bucket/studies"
        )
