"""`ray up`, `ray submit` and `ray job submit` on this machine. They run the package that `ray up` shipped, not the checkout."""

import copy
import os
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

from tests.support.builders import ROOT
from tests.support.marked import MARK, end_marked, marked
from tests.support.ports import free_ports
from tests.support.studies import TINY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@dataclass
class Cluster:
    """A cluster of one node on this machine. The node's home is a temporary folder."""

    yaml: Path
    home: Path
    environment: dict[str, str]
    dashboard: int

    def ray(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run `ray ARGUMENTS` as a person would in the project's root."""
        command = [str(Path(sys.executable).with_name("ray")), *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )


def local_yaml(folder: Path, port: int, dashboard: int, ray_folder: Path) -> Path:
    """ray_cluster.yaml with this machine in place of AWS. It ships and installs the package, but downloads nothing."""
    config = copy.deepcopy(yaml.safe_load((ROOT / "ray_cluster.yaml").read_text()))
    for key in ("docker", "upscaling_speed"):
        del config[key]
    config |= {
        "cluster_name": f"uvb-{port}",
        "max_workers": 0,
        "provider": {"type": "external", "module": "external_provider.Provider", "head_ip": "127.0.0.1", "worker_ips": []},
        "auth": {},
        "available_node_types": {"cpu_head": {"resources": {"CPU": 2}, "node_config": {}, "min_workers": 0, "max_workers": 0}},
        "setup_commands": [
            "python -m pip install --quiet --no-deps --no-index --no-build-isolation --target ~/site ~/uvb-study"
        ],
        "head_setup_commands": [],
    }
    stop, start = config["head_start_ray_commands"]
    assert stop == "ray stop"  # left out here, because the command would end every Ray on this machine
    start = start.replace("--port=6379 --object-manager-port=8076", f"--port={port} --dashboard-port={dashboard} --num-cpus=2")
    assert str(port) in start
    # All servers listen only on loopback. If another Ray holds the port of the dashboard's agent, this Ray accepts no jobs.
    client, agent = free_ports(2)
    start += f" --node-ip-address=127.0.0.1 --temp-dir={ray_folder} --ray-client-server-port={client}"
    start += f" --dashboard-agent-listen-port={agent}"
    config["head_start_ray_commands"] = [start.replace(" --autoscaling-config=~/ray_bootstrap_config.yaml", "")]
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="uvb"))  # a short path, because Ray makes sockets below it
    laptop, home, ray_folder = folder / "l", folder / "h", folder / "r"
    for each in (laptop, home, ray_folder):
        each.mkdir()
    mark = uuid4().hex
    port, dashboard = free_ports(2)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "UVB_"))}
    environment |= {
        "HOME": str(laptop), "UVB_TEST_HOME": str(home), MARK: mark, "RAY_TMPDIR": str(ray_folder), "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1", "NO_COLOR": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{home / 'site'}:{ROOT / 'tests' / 'support'}",
        "UVB_STORAGE": str(home / "studies"), "RAY_ADDRESS": f"127.0.0.1:{port}", "RAY_JOB_ALLOW_DRIVER_ON_WORKER_NODES": "1",
    }  # fmt: skip
    found = Cluster(local_yaml(folder, port, dashboard, ray_folder), home, environment, dashboard)
    try:
        assert found.ray("get-auth-token", "--generate").returncode == 0
        up = found.ray("up", "--yes", "--no-config-cache", str(found.yaml))
        assert up.returncode == 0, up.stdout
        yield found
    finally:
        end_marked(mark)
        assert not marked(mark)
        shutil.rmtree(folder, ignore_errors=True)


def test_ray_submit_runs_the_study(cluster: Cluster) -> None:
    arguments = ["--study", "submitted", *TINY]
    done = cluster.ray("submit", "--no-config-cache", str(cluster.yaml), "pipelines/full_study.py", "--", *arguments)
    assert done.returncode == 0, done.stdout
    study = cluster.home / "studies" / "submitted"
    losses = pd.read_parquet(study / "tables" / "losses.parquet")
    assert set(losses["split"]) == {"train", "test"}
    assert losses["loss"].between(0, 100).all()
    assert len(pd.read_parquet(study / "tables" / "curves.parquet")) == 1
    assert str(study / "report.html") in done.stdout
    where = cluster.ray(
        "exec", "--no-config-cache", str(cluster.yaml), "python -c 'import pipelines; print(pipelines.__file__)'"
    )
    assert str(cluster.home / "site") in where.stdout, "the package that ran is the one that was shipped"


def test_ray_job_refuses_a_request_that_cannot_be_met(cluster: Cluster) -> None:
    """tests/deploy/test_job_submit.py has jobs that train, jobs that fail and a wrong token."""
    address = ["--address", f"http://127.0.0.1:{cluster.dashboard}"]
    *tiny, _ = TINY  # it ends with the number of workers
    done = cluster.ray("job", "submit", *address, "--", "python", "-m", "pipelines.full_study", *tiny, "50")
    assert done.returncode != 0
    assert "asked for 50 workers" in done.stdout
    assert "has 2 CPUs" in done.stdout
