"""A real file system of a few megabytes, which a test can fill and enlarge."""

import os
import subprocess
from pathlib import Path


class CannotMount(Exception):
    """The error of a process that may not mount file systems. The message has the output of `mount`."""


class SmallDisk:
    """A tmpfs at `path`."""

    def __init__(self, path: Path, megabytes: int) -> None:
        self.path, self.megabytes = path, megabytes
        path.mkdir(parents=True, exist_ok=True)
        self._mount(f"size={megabytes}m")

    def _mount(self, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotMount(f"no file system can be mounted here ({done.stderr.strip()})")

    def fill(self) -> Path:
        """Write a file that fills the disk."""
        path = self.path / f"filler-{self.megabytes}"
        with open(path, "wb", buffering=0) as file:
            size = 1 << 16
            while size:
                try:
                    file.write(b"x" * size)
                except OSError:
                    size //= 2
        assert os.statvfs(self.path).f_bavail == 0
        return path

    def enlarge(self, megabytes: int) -> None:
        self.megabytes += megabytes
        self._mount(f"remount,size={self.megabytes}m")

    def remove(self) -> None:
        subprocess.run(["umount", "--lazy", self.path], check=True)
