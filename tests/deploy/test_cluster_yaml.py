"""ray_cluster.yaml and aws_access.yaml, checked without an AWS account. test_cluster_yamls.py asks Ray to validate the YAML."""

import copy
import re
import tomllib

import yaml
from packaging.requirements import Requirement
from ray.autoscaler._private.util import prepare_config

from tests.support.builders import ROOT

CONFIG = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())
ACCESS = yaml.safe_load((ROOT / "aws_access.yaml").read_text())
PINNED = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)


def test_head_has_no_gpu_and_workers_come_on_demand() -> None:
    nodes = prepare_config(copy.deepcopy(CONFIG))["available_node_types"]
    assert all(node["resources"] for node in nodes.values())
    assert "GPU" not in nodes[CONFIG["head_node_type"]]["resources"]
    workers = [node for name, node in nodes.items() if name != CONFIG["head_node_type"]]
    assert workers
    assert all(node["resources"]["GPU"] >= 1 and node["min_workers"] == 0 for node in workers)
    assert all(1 <= node["max_workers"] <= CONFIG["max_workers"] for node in workers)


def test_ports_are_closed_to_the_world() -> None:
    assert "IpPermissions" not in CONFIG["provider"]["security_group"], "Ray's own rules admit SSH, and traffic between nodes"
    commands = " ".join(CONFIG["head_start_ray_commands"] + CONFIG["worker_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in commands
    assert "0.0.0.0" not in commands
    assert "--env RAY_AUTH_MODE=token" in CONFIG["docker"]["run_options"]
    assert "~/.ray/auth_token" in CONFIG["file_mounts"]
    block = ACCESS["Resources"]["Studies"]["Properties"]["PublicAccessBlockConfiguration"]
    assert set(block.values()) == {True}


def test_cluster_yaml_ships_the_package_and_nothing_else() -> None:
    shipped = set(CONFIG["file_mounts"].values()) - {"~/.ray/auth_token"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert shipped == packages | {"pyproject.toml", "constraints.txt", project["project"]["readme"]}
    for remote, local in CONFIG["file_mounts"].items():
        assert remote.endswith(local.removeprefix("~/"))
    # A build writes beside its sources, but root owns the mounted folder. So the first command copies the sources.
    copied, *_, installed = CONFIG["setup_commands"]
    assert copied.endswith("cp -r ~/uvb-study /tmp/uvb-study")
    assert '"/tmp/uvb-study[study]"' in installed


def test_cluster_yaml_pins_what_it_installs() -> None:
    commands = CONFIG["setup_commands"] + CONFIG["head_setup_commands"] + CONFIG["worker_setup_commands"]
    for command in (each for each in commands if "pip" in each):
        assert re.match(r"python -m pip install .*(--constraint|==)", command), command
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for need in map(Requirement, project["dependencies"] + project["optional-dependencies"]["study"]):
        assert need.name in PINNED, f"{need.name} has no line in constraints.txt"
        assert need.specifier.contains(PINNED[need.name]), f"{need}, and constraints.txt pins {PINNED[need.name]}"
    for image in ("image", "head_image", "worker_image"):
        assert f":{PINNED['ray']}-py311-" in CONFIG["docker"][image]


def test_roles_are_those_of_the_nodes() -> None:
    names = {node["node_config"]["IamInstanceProfile"]["Name"] for node in CONFIG["available_node_types"].values()}
    profiles = [r["Properties"] for r in ACCESS["Resources"].values() if r["Type"] == "AWS::IAM::InstanceProfile"]
    assert {profile["InstanceProfileName"] for profile in profiles} == names
    assert f'"ec2:ResourceTag/ray-cluster-name": {CONFIG["cluster_name"]}' in (ROOT / "aws_access.yaml").read_text()


def test_cluster_yaml_keeps_results_in_the_bucket() -> None:
    assert any(option.startswith("--env UVB_STORAGE=s3://") for option in CONFIG["docker"]["run_options"])
