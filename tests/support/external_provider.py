"""A "cloud" on this machine for `ray up`. A folder stands for a node's home, and a subprocess for SSH.

Use it by `provider: {type: external, module: external_provider.Provider, head_ip: 127.0.0.1, worker_ips: []}`. The
variable UVB_TEST_HOME names the folder. All processes inherit UVB_TEST_MARK, so a test can find and end them.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
from ray.autoscaler._private.local.node_provider import LocalNodeProvider
from ray.autoscaler.command_runner import CommandRunnerInterface


class Subprocesses(CommandRunnerInterface):
    """Runs a node's commands on this machine. Their HOME is the node's folder."""

    def __init__(self) -> None:
        self.home = Path(os.environ["UVB_TEST_HOME"])

    def run(self, cmd: str | None = None, *_: Any, with_output: bool = False,
            environment_variables: dict[str, object] | None = None, **__: Any) -> str:  # fmt: skip
        """Run a command on the node. Raises click.ClickException if the command fails."""
        if not cmd:
            return ""
        environment = {**os.environ, "HOME": str(self.home)}
        for name, value in (environment_variables or {}).items():
            environment[name] = value if isinstance(value, str) else json.dumps(value)
        output = subprocess.PIPE if with_output else None
        done = subprocess.run(["bash", "-c", cmd], env=environment, cwd=self.home, stdout=output, text=True, check=False)
        if done.returncode:
            raise click.ClickException(f"exit code {done.returncode}: {cmd}")
        return done.stdout or ""

    def run_rsync_up(self, source: str, target: str, options: dict[str, Any] | None = None) -> None:
        place = self._place(target)
        place.parent.mkdir(parents=True, exist_ok=True)
        if Path(source).is_dir():
            shutil.copytree(source, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, place)

    def run_rsync_down(self, source: str, target: str, options: dict[str, Any] | None = None) -> None:
        shutil.copy(self._place(source), target)

    def _place(self, path: str) -> Path:
        return self.home / path.removeprefix("~/")

    def remote_shell_command_str(self) -> str:
        return "bash"

    def run_init(self, *, as_head: bool, file_mounts: dict[str, str], sync_run_yet: bool) -> bool:
        return False


class Provider(LocalNodeProvider):
    """Ray's provider for a fixed list of hosts, with subprocesses in place of SSH."""

    def __init__(self, provider_config: dict[str, Any], cluster_name: str) -> None:
        super().__init__(dict(provider_config), cluster_name)

    def get_command_runner(self, *args: Any, **kwargs: Any) -> Subprocesses:
        return Subprocesses()
