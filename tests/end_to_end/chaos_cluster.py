"""What chaos attacks: the study's driver and a Ray cluster of several nodes, as processes of this machine."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

from tests.support.builders import ROOT
from tests.support.marked import MARK, titled

NODE_CPUS, NODES = 2, 3


class ChaosError(AssertionError):
    """The study did not survive, or what survived is not equal."""


@dataclass
class Driver:
    """`full_study.py` as a process of its own; after a kill it is run again."""

    folder: Path
    arguments: list[str]
    mark: str
    process: "subprocess.Popen[bytes] | None" = None
    starts: int = 0

    def start(self) -> None:
        command = [sys.executable, str(ROOT / "pipelines" / "full_study.py"), *self.arguments]
        self.starts += 1
        with open(self.folder / "driver.log", "ab") as log:
            log.write(f"--- start {self.starts}\n".encode())
            log.flush()
            environment = {**os.environ, MARK: self.mark}
            self.process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log)

    def require_running(self) -> None:
        assert self.process is not None
        if self.process.poll() is not None:
            raise ChaosError(f"the driver ended by itself, code {self.process.returncode}:\n{self.log()}")

    def wait(self, timeout: float) -> None:
        assert self.process is not None
        code = self.process.wait(timeout)
        if code:
            raise ChaosError(f"the driver ended with code {code}:\n{self.log()}")

    def log(self) -> str:
        return "\n".join((self.folder / "driver.log").read_text().splitlines()[-30:])


@dataclass
class Nodes:
    """A Ray cluster of several nodes on this machine; a process belongs to the node of its raylet."""

    mark: str
    cluster: Any = None
    workers: list[Any] = field(default_factory=list)

    def start(self, scratch: Path) -> str:
        """Start the nodes; return the cluster's address."""
        os.environ |= {MARK: self.mark, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid4().hex, "RAY_TMPDIR": str(scratch),
                       "RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1"}  # fmt: skip
        from ray.cluster_utils import Cluster

        # The head has no CPUs, so all work is on nodes that can be killed.
        head = {"num_cpus": 0, "include_dashboard": True, "dashboard_port": 0, "object_store_memory": 80_000_000}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(NODES - 1):
            self.add()
        return str(self.cluster.address)

    def add(self) -> None:
        self.workers.append(self.cluster.add_node(num_cpus=NODE_CPUS, object_store_memory=80_000_000))

    def raylet(self, node: Any) -> psutil.Process:
        return psutil.Process(node.all_processes["raylet"][0].process.pid)

    def with_workers(self, title: str) -> list[Any]:
        """The nodes, without the head, on which a process of that title runs."""
        parents = {process.ppid() for process in titled(self.mark, title)}
        return [node for node in self.workers if self.raylet(node).pid in parents]

    def kill(self, node: Any) -> int:
        """Kill a node's raylet and all it started, as a power cut would. Returns the raylet's process id."""
        raylet = self.raylet(node)
        for process in [raylet, *raylet.children(recursive=True)]:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self.cluster.remove_node(node, allow_graceful=False)
        self.workers.remove(node)
        return raylet.pid

    def stop(self) -> None:
        if self.cluster is not None:
            self.cluster.shutdown()
