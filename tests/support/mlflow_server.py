"""A real MLflow server on this machine only, which can be killed and started again."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

from tests.support.ports import free_ports

PATIENCE = 240  # seconds; a busy machine is slow, not broken


class MlflowServer:
    """A server for a SQLite store, on a free port, with `folder` as its working directory."""

    def __init__(self, store: Path, folder: Path) -> None:
        port = str(free_ports(1)[0])
        self.address, self.folder = f"http://127.0.0.1:{port}", folder
        self.command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port, "--workers", "1",
                        "--backend-store-uri", f"sqlite:///{store.resolve()}"]  # fmt: skip
        self.start()

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        self.process = subprocess.Popen(
            self.command, cwd=self.folder, env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                urllib.request.urlopen(f"{self.address}/health", timeout=2).close()
                return
            except OSError as error:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    self.kill()
                    raise RuntimeError(f"no MLflow server at {self.address}") from error
                time.sleep(0.5)

    def kill(self) -> int:
        """Kill the server and its workers. Return the server's process id."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        return self.process.pid

    def __enter__(self) -> "MlflowServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
