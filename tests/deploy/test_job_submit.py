"""docs/cluster.md has commands that submit a study as a job. The tests run these commands against a head on this machine."""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pandas as pd
import pytest
import yaml

from tests.deploy.deployment import DEPLOY, clean_environment
from tests.support.builders import ROOT
from tests.support.marked import end_marked
from tests.support.ports import free_ports
from tests.support.studies import TINY

RAY = str(Path(sys.executable).with_name("ray"))


def documented_block() -> str:
    """The block of commands in the docs that has `ray job submit` in it."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "cluster.md").read_text(), re.DOTALL)
    (found,) = [block for block in blocks if "ray job submit" in block]
    return found


@dataclass
class Head:
    """A Ray head on this machine that asks for a token, and the environment of a user's laptop that has the token."""

    folder: Path
    environment: dict[str, str]
    dashboard: int

    def submit(self, replaced: dict[str, str]) -> "subprocess.CompletedProcess[str]":
        """Run the documented commands with this head's address and a folder for the bucket. `replaced`: old -> new text."""
        block = documented_block()
        ours = {
            "http://127.0.0.1:8265": f"http://127.0.0.1:{self.dashboard}",
            "s3://YOUR-BUCKET/studies": f"{self.folder}/studies",
        }
        for old, new in {**ours, **replaced}.items():
            assert old in block, old
            block = block.replace(old, new, 1)
        return subprocess.run(
            ["bash", "-euc", block], cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    folder, mark = Path(tempfile.mkdtemp(prefix="jb")), uuid4().hex  # a short path, because Ray makes sockets below it
    for name in ("laptop", "home", "ray"):
        (folder / name).mkdir()
    laptop = clean_environment(folder / "laptop", mark)
    laptop.pop("PYTHONPATH", None)
    port, dashboard, client, agent = free_ports(4)
    try:
        with_token = {**laptop, "RAY_AUTH_MODE": "token"}
        subprocess.run([RAY, "get-auth-token", "--generate"], env=with_token, check=True, capture_output=True)
        shutil.copytree(folder / "laptop" / ".ray", folder / "home" / ".ray")
        start = [RAY, "start", "--head", f"--port={port}", f"--dashboard-port={dashboard}", "--node-ip-address=127.0.0.1",
                 "--dashboard-host=127.0.0.1", f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}",
                 "--num-cpus=2", f"--temp-dir={folder}/ray"]  # fmt: skip
        node = {**with_token, "HOME": str(folder / "home")}
        started = subprocess.run(start, env=node, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert started.returncode == 0, started.stdout
        yield Head(folder, laptop, dashboard)
    finally:
        end_marked(mark)
        shutil.rmtree(folder, ignore_errors=True)


def test_block_has_the_token_the_working_folder_and_the_gpu_flags() -> None:
    block = documented_block()
    for needed in (
        "RAY_AUTH_MODE=token",
        "--working-dir .",
        "--runtime-env deploy/job_env.yaml",
        "--use-gpu",
        "--expect-gpus 8",
    ):
        assert needed in block
    subprocess.run(["bash", "-n", "-c", block], check=True)


def test_job_env_keeps_the_package_and_leaves_the_rest() -> None:
    left = {name.strip("/") for name in yaml.safe_load((DEPLOY / "job_env.yaml").read_text())["excludes"]}
    assert {"results", "tests", ".git"} <= left
    assert not left & {"uvb", "pipelines", "tune_spaces", "pyproject.toml"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_block_trains_a_study_with_the_uploaded_package(head: Head) -> None:
    tracking = f"--tracking-uri sqlite:///{head.folder}/mlflow.db"
    done = head.submit({"--dataset mnist --use-gpu --expect-gpus 8": " ".join([*TINY, "--study job", tracking])})
    assert done.returncode == 0, done.stdout
    study = head.folder / "studies" / "job"
    assert set(pd.read_parquet(study / "tables" / "losses.parquet")["split"]) == {"train", "test"}
    assert str(study / "report.html") in done.stdout
    where = head.submit({"python pipelines/full_study.py": "python -c 'import pipelines; print(pipelines.__file__)'"})
    assert "working_dir_files" in where.stdout, where.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_block_fails_when_the_study_fails(head: Head) -> None:
    done = head.submit({"--dataset mnist --use-gpu --expect-gpus 8": "--sigmas -1 --use-gpu --expect-gpus 8"})
    assert done.returncode != 0
    assert "--sigmas -1: it must be from" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_head_refuses_a_job_without_its_token(head: Head) -> None:
    stranger = Head(head.folder, {**head.environment, "RAY_AUTH_TOKEN": "0" * 64}, head.dashboard)
    done = stranger.submit({})
    assert done.returncode != 0
    assert "unauthenticated" in done.stdout.lower() or "invalid" in done.stdout.lower() or "403" in done.stdout, done.stdout
    assert "models trained" not in done.stdout
