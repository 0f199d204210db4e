"""Check deploy/kuberay.yaml against a short form of KubeRay 1.7's RayJob schema and of the operator's rules.

The file also passed a check against the operator's whole CRD once. That check refused unknown fields.
"""

import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.deploy.deployment import DEPLOY
from tests.support.builders import ROOT

# A dict lists the allowed fields: ! marks required ones, and * allows any name. A set lists the allowed values. A list has the
# type of its elements.
QUANTITIES = {"*": (str, int)}
CONTAINER = {
    "name!": str, "image!": str, "command": [str], "args": [str], "env": [{"name!": str, "value": str, "valueFrom": dict}],
    "resources": {"requests": QUANTITIES, "limits": QUANTITIES}, "volumeMounts": [{"name!": str, "mountPath!": str}],
    "ports": [{"containerPort!": int, "name": str}], "imagePullPolicy": {"Always", "IfNotPresent", "Never"},
}  # fmt: skip
POD = {
    "metadata": dict,
    "spec!": {
        "containers!": [CONTAINER], "initContainers": [CONTAINER], "nodeSelector": {"*": str}, "serviceAccountName": str,
        "imagePullSecrets": [{"name!": str}], "securityContext": {"runAsUser": int, "runAsGroup": int, "fsGroup": int},
        "tolerations": [{"key": str, "operator": {"Exists", "Equal"}, "value": str,
                         "effect": {"NoSchedule", "PreferNoSchedule", "NoExecute"}}],
        "volumes": [{"name!": str, "persistentVolumeClaim": {"claimName!": str}, "emptyDir": dict, "secret": dict}],
    },
}  # fmt: skip
GROUP = {"rayStartParams": {"*": str}, "template!": POD, "labels": {"*": str}, "resources": QUANTITIES}
WORKERS = {**GROUP, "groupName!": str, "replicas": int, "minReplicas!": int, "maxReplicas!": int, "numOfHosts": int,
           "idleTimeoutSeconds": int}  # fmt: skip
CLUSTER = {
    "rayVersion": str, "enableInTreeAutoscaling": bool, "headGroupSpec!": GROUP, "workerGroupSpecs": [WORKERS],
    "authOptions": {"mode": {"disabled", "token"}, "secretName": str},
    "autoscalerOptions": {"version": {"v1", "v2"}, "idleTimeoutSeconds": int, "resources": dict,
                          "upscalingMode": {"Default", "Aggressive", "Conservative"}},
}  # fmt: skip
RAY_JOB = {
    "apiVersion!": {"ray.io/v1"}, "kind!": {"RayJob"}, "metadata!": {"name!": str, "namespace": str, "labels": {"*": str}},
    "spec!": {
        "entrypoint": str, "runtimeEnvYAML": str,
        "submissionMode": {"K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"},
        "backoffLimit": int, "activeDeadlineSeconds": int, "preRunningDeadlineSeconds": int, "suspend": bool,
        "shutdownAfterJobFinishes": bool, "ttlSecondsAfterFinished": int, "entrypointNumCpus": (int, float),
        "submitterPodTemplate": POD, "rayClusterSpec": CLUSTER,
    },
}  # fmt: skip


def faults(value: Any, shape: Any, at: str = "") -> Iterator[str]:
    """The parts of `value` that do not fit `shape`."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            yield f"{at}: not a mapping"
            return
        fields = {name.rstrip("!"): inner for name, inner in shape.items()}
        yield from (f"{at}.{name[:-1]}: missing" for name in shape if name.endswith("!") and name[:-1] not in value)
        for name, inner in value.items():
            if name in fields or "*" in fields:
                yield from faults(inner, fields.get(name, fields.get("*")), f"{at}.{name}")
            else:
                yield f"{at}.{name}: unknown"
    elif isinstance(shape, list):
        if not isinstance(value, list):
            yield f"{at}: not a list"
            return
        for index, each in enumerate(value):
            yield from faults(each, shape[0], f"{at}[{index}]")
    elif isinstance(shape, set):
        if value not in shape:
            yield f"{at}: {value!r}, not one of {sorted(shape)}"
    elif not isinstance(value, shape) or (isinstance(value, bool) and shape is not bool):
        yield f"{at}: {value!r} is no {shape}"


CLAIM, JOB = yaml.safe_load_all((DEPLOY / "kuberay.yaml").read_text())
SPEC = JOB["spec"]["rayClusterSpec"]
PODS = [SPEC["headGroupSpec"]["template"]["spec"], *(group["template"]["spec"] for group in SPEC["workerGroupSpecs"])]


def test_rayjob_fits_kuberays_schema() -> None:
    assert list(faults(JOB, RAY_JOB)) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "entryPoint"), "python x.py"),
        (("spec", "submissionMode"), "K8s"),
        (("spec", "backoffLimit"), "2"),
        (("spec", "rayClusterSpec", "headGroupSpec"), {"rayStartParams": {}}),
        (("spec", "rayClusterSpec", "authOptions", "mode"), "tokens"),
        (("spec", "rayClusterSpec", "workerGroupSpecs"), {"groupName": "gpu"}),
    ],
)
def test_schema_check_finds_a_mistake(path: tuple[str, ...], value: Any) -> None:
    broken = copy.deepcopy(JOB)
    place = broken
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    assert list(faults(broken, RAY_JOB))


def test_rayjob_keeps_the_operators_rules() -> None:
    name = JOB["metadata"]["name"]
    assert len(name) <= 47
    assert re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", name)
    assert all(group["minReplicas"] <= group["replicas"] <= group["maxReplicas"] for group in SPEC["workerGroupSpecs"])
    assert all("restartPolicy" not in pod for pod in PODS), "the autoscaler's version 2 allows only Never"
    assert all(container["resources"]["requests"] == container["resources"]["limits"] for container in containers())
    assert JOB["spec"]["shutdownAfterJobFinishes"]


def containers() -> list[dict[str, Any]]:
    return [container for pod in PODS for container in pod["containers"]]


def test_rayjob_runs_the_pinned_ray_behind_a_token() -> None:
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    assert SPEC["rayVersion"] == pinned["ray"]
    assert SPEC["authOptions"] == {"mode": "token"}
    assert len({container["image"] for container in containers()}) == 1


def test_rayjob_expects_the_gpus_its_workers_can_have() -> None:
    gpus = sum(
        group["maxReplicas"] * group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
        for group in SPEC["workerGroupSpecs"]
    )
    assert f"--expect-gpus {gpus}" in JOB["spec"]["entrypoint"]


def test_rayjob_keeps_studies_in_a_volume_all_pods_mount() -> None:
    assert CLAIM["kind"] == "PersistentVolumeClaim"
    assert CLAIM["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in PODS:
        assert [volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"]] == [CLAIM["metadata"]["name"]]
        (mount,) = pod["containers"][0]["volumeMounts"]
        assert f"--storage {mount['mountPath']}" in JOB["spec"]["entrypoint"]
