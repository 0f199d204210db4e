"""Ray accepts each cloud's YAML. The YAMLs for Google and Azure use their own fields, and otherwise equal ray_cluster.yaml."""

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

from tests.deploy.deployment import DEPLOY
from tests.support.builders import ROOT

CLOUDS = ["gcp", "azure"]
PRIVATE = Path(ray.autoscaler.__file__).parent / "_private"
# Fields of Compute Engine's instances.insert, and of the parts that we use (its public REST reference).
GCP_FIELDS = {
    "": {"machineType", "disks", "serviceAccounts", "scheduling", "guestAccelerators", "metadata", "networkInterfaces"},
    "disks": {"boot", "autoDelete", "type", "initializeParams"},
    "initializeParams": {"diskSizeGb", "diskType", "sourceImage"},
    "serviceAccounts": {"email", "scopes"},
    "scheduling": {"provisioningModel", "instanceTerminationAction", "onHostMaintenance", "automaticRestart"},
}


def config(cloud: str) -> dict[str, Any]:
    path = ROOT / "ray_cluster.yaml" if cloud == "aws" else DEPLOY / f"ray_cluster.{cloud}.yaml"
    loaded: dict[str, Any] = yaml.safe_load(path.read_text())
    return loaded


def prepared(loaded: dict[str, Any]) -> dict[str, Any]:
    ready: dict[str, Any] = prepare_config(copy.deepcopy(loaded))
    return ready


@pytest.mark.parametrize("cloud", ["aws", *CLOUDS])
def test_ray_accepts_cluster_yaml(cloud: str) -> None:
    assert config(cloud)["provider"]["type"] == cloud
    validate_config(prepared(config(cloud)))


@pytest.mark.parametrize("cloud", ["aws", *CLOUDS])
@pytest.mark.parametrize("broken", [{"max_worker": 8}, {"available_node_types": {"cpu_head": {"node_config": {}}}}])
def test_ray_refuses_cluster_yaml_with_mistakes(cloud: str, broken: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepared({**config(cloud), **broken}))


@pytest.mark.parametrize("cloud", ["aws", *CLOUDS])
def test_autoscaler_finds_an_image_for_each_kind_of_node(cloud: str) -> None:
    """`ray up` starts version 2 of the autoscaler. It needs a general image besides the images of head and workers."""
    scaling = AutoscalingConfig(prepared(config(cloud)), skip_content_hash=True)
    for kind in config(cloud)["available_node_types"]:
        assert scaling.get_docker_config(kind)["image"].startswith("rayproject/ray:")


@pytest.mark.parametrize("cloud", CLOUDS)
@pytest.mark.parametrize("key", [
    "cluster_name", "max_workers", "file_mounts", "rsync_exclude", "setup_commands", "head_start_ray_commands",
    "worker_start_ray_commands", "idle_timeout_minutes", "head_node_type",
])  # fmt: skip
def test_cluster_yaml_ships_and_starts_as_on_aws(cloud: str, key: str) -> None:
    assert config(cloud)[key] == config("aws")[key]


@pytest.mark.parametrize("cloud", CLOUDS)
def test_cluster_yaml_runs_the_same_image_with_the_token(cloud: str) -> None:
    docker, aws = config(cloud)["docker"], config("aws")["docker"]
    ours, theirs = docker.pop("run_options"), aws.pop("run_options")
    assert docker == aws
    assert "--env RAY_AUTH_MODE=token" in ours
    assert len(ours) == len(theirs)
    (storage,) = set(ours) - set(theirs)
    assert storage.startswith("--env UVB_STORAGE=" + {"gcp": "gs://", "azure": "abfs://"}[cloud])


@pytest.mark.parametrize("cloud", CLOUDS)
def test_cluster_yaml_has_a_cpu_head_and_gpu_workers_on_demand(cloud: str) -> None:
    nodes = prepared(config(cloud))["available_node_types"]
    assert "GPU" not in nodes["cpu_head"]["resources"]
    worker = nodes["gpu_worker"]
    assert worker["resources"]["GPU"] == 1
    assert (worker["min_workers"], worker["max_workers"]) == (0, config(cloud)["max_workers"])


@pytest.mark.parametrize("cloud", CLOUDS)
def test_cluster_yaml_pins_what_the_head_installs(cloud: str) -> None:
    for command in config(cloud)["head_setup_commands"]:
        packages = [word.strip('"') for word in command.split()[5:]]  # after `python -m pip install --quiet`
        assert packages
        assert all("==" in package for package in packages), command


def test_gcp_node_configs_use_known_fields() -> None:
    def check(value: Any, name: str) -> None:
        for each in value if isinstance(value, list) else [value]:
            if name in GCP_FIELDS and isinstance(each, dict):
                assert set(each) <= GCP_FIELDS[name], f"{name}: {set(each) - GCP_FIELDS[name]}"
                for key, inner in each.items():
                    check(inner, key)

    loaded = config("gcp")
    for node in loaded["available_node_types"].values():
        check(node["node_config"], "")
        (disk,) = node["node_config"]["disks"]
        assert f"zones/{loaded['provider']['availability_zone']}/" in disk["initializeParams"]["diskType"]
    worker = loaded["available_node_types"]["gpu_worker"]["node_config"]
    assert worker["scheduling"]["onHostMaintenance"] == "TERMINATE", "Google refuses GPUs otherwise"
    (account,) = worker["serviceAccounts"]
    assert account["email"] == f"uvb-study-worker@{loaded['provider']['project_id']}.iam.gserviceaccount.com"


def test_azure_machines_use_parameters_of_rays_own_template() -> None:
    template = json.loads((PRIVATE / "_azure" / "azure-vm-template.json").read_text())["parameters"]
    kinds = {"string": str, "int": int, "bool": bool, "object": dict}
    for node in config("azure")["available_node_types"].values():
        for name, value in node["node_config"]["azure_arm_parameters"].items():
            if name != "availability_zone":  # Ray itself reads this parameter
                assert isinstance(value, kinds[template[name]["type"]]), name


def test_azure_head_installs_what_rays_own_template_names() -> None:
    template = yaml.safe_load((Path(ray.autoscaler.__file__).parent / "azure" / "defaults.yaml").read_text())
    (theirs,), (ours,) = template["head_setup_commands"], config("azure")["head_setup_commands"]
    assert {word for word in theirs.split() if "==" in word} == {word for word in ours.split() if "==" in word}
