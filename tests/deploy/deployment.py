"""What the tests of deploy/ share: where things lie, a tiny study, and processes that end with the test."""

import os
import socket
import sys
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
MARK = "UVB_DEPLOY_TEST"  # an environment variable that every process of a test inherits
TINY = ["--sigmas", "1.0", "--models", "uvb", "--extra-models", "--epochs", "1", "--train-images", "64", "--eval-images", "50",
        "--eval-test-images", "50", "--eval-draws", "1", "--experiments", "losses", "--num-workers", "1"]  # fmt: skip


def clean_environment(home: Path, mark: str) -> dict[str, str]:
    """This process's environment with a home of its own, and without what configures Ray or the project."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "UVB_", "SLURM_"))}
    binaries = f"{Path(sys.executable).parent}:{kept['PATH']}"
    return {**kept, "HOME": str(home), "PATH": binaries, MARK: mark, "OMP_NUM_THREADS": "1", "NO_COLOR": "1",
            "RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true"}  # fmt: skip


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody uses now."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports: list[int] = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def end_processes(mark: str) -> None:
    """Kill the processes that inherited `mark`, by their ids."""
    mine = {process.pid for process in [psutil.Process(), *psutil.Process().parents()]}
    for _ in range(20):
        found = []
        for process in psutil.process_iter():
            try:
                if process.pid not in mine and process.environ().get(MARK) == mark:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        if not found:
            return
        for process in found:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(found, timeout=3)
