"""The targets of chaos: the study's driver and a Ray cluster of several nodes, as processes of this machine."""

import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

from tests.support.builders import ROOT
from tests.support.marked import MARK, titled

NODE_CPUS, NODES = 2, 3


class ChaosError(AssertionError):
    """The study did not go on, or its results differ from those of the undisturbed study."""


@dataclass
class Driver:
    """The study's driver: `full_study.py` in another process. After a kill, `start` runs it again."""

    folder: Path
    arguments: list[str]
    mark: str  # value of an environment variable by which tests find its processes (tests/support/marked.py)
    process: Any = None
    starts: int = 0

    def start(self, address: str) -> None:
        command = [sys.executable, str(ROOT / "pipelines" / "full_study.py"), *self.arguments, "--address", address]
        self.starts += 1
        with open(self.folder / "driver.log", "ab") as log:
            log.write(f"--- start {self.starts}\n".encode())
            log.flush()
            environment = {**os.environ, MARK: self.mark}
            self.process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log)

    def kill(self) -> int:
        """Kill the driver at once. Return its process id."""
        self.process.kill()
        self.process.wait()
        return self.process.pid

    def require_running(self) -> None:
        if self.process.poll() is not None:
            raise ChaosError(f"the driver ended by itself, code {self.process.returncode}:\n{self.said()}")

    def wait(self, timeout: float) -> None:
        code = self.process.wait(timeout)
        if code:
            raise ChaosError(f"the driver ended with code {code}:\n{self.said()}")

    def said(self) -> str:
        """The driver's output since its last start."""
        return (self.folder / "driver.log").read_text().rpartition("--- start")[2]


@dataclass
class Nodes:
    """A Ray cluster of several nodes on this machine. Each node has its own raylet, which starts the node's processes."""

    mark: str
    cluster: Any = None
    workers: list[Any] = field(default_factory=list)

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def start(self, scratch: Path) -> None:
        os.environ |= {MARK: self.mark, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid4().hex, "RAY_TMPDIR": str(scratch),
                       "RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1"}  # fmt: skip
        self.restart()

    def restart(self) -> None:
        """Stop the cluster if there is one, and start a new cluster."""
        from ray.cluster_utils import Cluster

        self.stop()
        # The head has no CPUs, so all work is on nodes that can be killed.
        head = {"num_cpus": 0, "include_dashboard": True, "dashboard_port": 0, "object_store_memory": 80_000_000}
        self.cluster, self.workers = Cluster(initialize_head=True, head_node_args=head), []
        for _ in range(NODES - 1):
            self.add()

    def add(self) -> None:
        self.workers.append(self.cluster.add_node(num_cpus=NODE_CPUS, object_store_memory=80_000_000))

    @staticmethod
    def process(node: Any, name: str) -> psutil.Process:
        return psutil.Process(node.all_processes[name][0].process.pid)

    def of_head(self, name: str) -> psutil.Process:
        """A process of the node to which the driver is connected: "raylet" or "gcs_server"."""
        return self.process(self.cluster.head_node, name)

    def with_workers(self, title: str) -> list[Any]:
        """The nodes, except the head, on which a process runs whose command begins with `title`."""
        parents = {process.ppid() for process in titled(self.mark, title)}
        return [node for node in self.workers if self.process(node, "raylet").pid in parents]

    def kill(self, node: Any) -> int:
        """Kill a node's raylet and all processes that it started, as a power cut would. Return the raylet's process id."""
        raylet = self.process(node, "raylet")
        for process in [raylet, *raylet.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.cluster.remove_node(node, allow_graceful=False)
        self.workers.remove(node)
        return raylet.pid

    def stop(self) -> None:
        if self.cluster is not None:
            self.cluster.global_state.disconnect()  # the client would otherwise end this process a minute after the shutdown
            self.cluster.shutdown()
            self.cluster = None
