"""A real Slurm with two nodes on this machine runs deploy/slurm.sbatch."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.deploy.deployment import DEPLOY, clean_environment
from tests.support.builders import ROOT
from tests.support.studies import TINY

BOX = Path(__file__).with_name("slurm_box.sh")
NEEDED = ("slurmctld", "slurmd", "sbatch", "munged", "ip", "unshare")


def why_not() -> str:
    """The reason why Slurm cannot run here. "" if it can."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        return f"no {', '.join(missing)}: apt-get install slurmctld slurmd slurm-client munge iproute2"
    if os.geteuid() != 0:
        return "slurmd needs root"
    command = ["unshare", "--pid", "--fork", "--net", "--mount", "true"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"no namespaces here: {made.stderr.strip()}" if made.returncode else ""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, because Ray makes sockets below it."""
    made = Path(tempfile.mkdtemp(prefix="sl"))
    (made / "home").mkdir()
    yield made
    shutil.rmtree(made, ignore_errors=True)


def submit(folder: Path, *arguments: str, venv: Path = Path(sys.prefix)) -> tuple[int, str]:
    """Submit the batch script on the cluster's login node and wait. Return the job's exit code and output."""
    if reason := why_not():
        pytest.skip(reason)  # the cluster on this machine needs root and Slurm's programs
    environment = clean_environment(folder / "home", uuid4().hex) | {
        "PYTHONPATH": str(ROOT), "UVB_VENV": str(venv), "UVB_STORAGE": str(folder / "studies"),
        "UVB_RAY_TMP": str(folder / "ray/t"),
    }  # fmt: skip
    log = folder / "job.log"
    command = [str(BOX), str(folder), "sbatch", "--wait", f"--output={log}", str(DEPLOY / "slurm.sbatch"), *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1200
    )
    return done.returncode, done.stdout + (log.read_text() if log.is_file() else "")


def test_sbatch_script_is_valid_bash_and_asks_for_one_ray_node_a_machine() -> None:
    script = DEPLOY / "slurm.sbatch"
    subprocess.run(["bash", "-n", str(script)], check=True)
    asked = [line.removeprefix("#SBATCH ") for line in script.read_text().splitlines() if line.startswith("#SBATCH ")]
    assert "--ntasks-per-node=1" in asked
    assert "--exclusive" in asked


def test_sbatch_says_that_a_node_cannot_make_rays_folder(tmp_path: Path) -> None:
    found = re.search(r"^owned='(.+)'$", (DEPLOY / "slurm.sbatch").read_text(), re.MULTILINE)
    assert found
    (tmp_path / "file").write_text("in the way")
    for folder, code in ((tmp_path / "new", 0), (tmp_path / "file" / "new", 2)):
        done = subprocess.run(["bash", "-c", found[1], "-", str(folder)], capture_output=True, text=True)
        assert done.returncode == code
    assert done.stderr.endswith(f"error: {folder} cannot be made or is not yours; set another UVB_RAY_TMP\n")


def test_symmetric_run_has_the_options_the_script_uses() -> None:
    ray = Path(sys.executable).with_name("ray")
    told = subprocess.run([str(ray), "symmetric-run", "--help"], capture_output=True, text=True, check=True).stdout
    assert "--address" in told
    assert "--min-nodes" in told


@pytest.mark.nightly  # two Slurm nodes on one machine; on a busy machine they may be too slow
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_sbatch_trains_a_study_on_two_nodes(folder: Path) -> None:
    tracking = ["--tracking-uri", f"sqlite:///{folder}/mlflow.db"]
    code, said = submit(folder, "--study", "slurm", *TINY, *tracking)
    assert code == 0, said
    assert "the cluster (2 nodes) has 4 CPUs" in said
    assert (folder / "studies" / "slurm" / "report.html").is_file()
    assert (folder / "home" / ".ray" / "auth_token").stat().st_mode & 0o077 == 0, "only its owner may read the token"


@pytest.mark.nightly  # two Slurm nodes on one machine; on a busy machine they may be too slow
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_sbatch_fails_when_the_study_fails(folder: Path) -> None:
    code, said = submit(folder, "--sigmas", "-1")
    assert code == 2, said
    assert "--sigmas -1: it must be from" in said


@pytest.mark.slow  # a real Slurm, but no Ray, so it takes seconds on a busy machine too
@pytest.mark.timeout(300)
def test_sbatch_names_a_missing_environment_in_one_line(folder: Path) -> None:
    code, said = submit(folder, venv=folder / "nowhere")
    assert code == 2, said
    assert f"error: no virtual environment at {folder}/nowhere" in said
