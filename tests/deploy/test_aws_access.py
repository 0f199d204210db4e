"""What aws_access.yaml allows the head to do. The tests evaluate each request as IAM would."""

import ipaddress
from fnmatch import fnmatchcase
from typing import Any

import pytest
import yaml

from tests.support.builders import ROOT

ACCESS = yaml.safe_load((ROOT / "aws_access.yaml").read_text())
CLUSTER = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())
RESOURCES = ACCESS["Resources"]
HERE = {"AWS::Partition": "aws", "AWS::Region": "us-west-2", "AWS::AccountId": "111122223333", "Subnet": "subnet-ours",
        "Network": "vpc-ours", "Bucket": "bucket"}  # fmt: skip
EC2 = "arn:aws:ec2:us-west-2:111122223333:"
ARNS = {"WorkerProfile": "arn:aws:iam::111122223333:instance-profile/uvb-study-worker",
        "WorkerRole": "arn:aws:iam::111122223333:role/uvb-study-worker", "Studies": "arn:aws:s3:::bucket"}  # fmt: skip
OURS = {"ec2:ResourceTag/ray-cluster-name": "uvb-study"}


def resolved(value: Any) -> Any:
    """A part of the template after CloudFormation's functions are evaluated."""
    if isinstance(value, list):
        return [resolved(each) for each in value]
    if not isinstance(value, dict):
        return value
    if "Fn::Sub" in value:
        text = value["Fn::Sub"]
        for name, known in HERE.items():
            text = text.replace("${" + name + "}", known)
        return text.replace("${Studies.Arn}", ARNS["Studies"])
    if "Fn::GetAtt" in value:
        return ARNS[value["Fn::GetAtt"][0]]
    if "Ref" in value:
        name = value["Ref"]
        default = ACCESS["Parameters"].get(name, {}).get("Default")
        return default.split(",") if default else HERE[name]
    return {key: resolved(inner) for key, inner in value.items()}


def many(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def holds(operator: str, key: str, wanted: Any, context: dict[str, str]) -> bool:
    """Whether a request with these `context` keys meets one condition of a statement."""
    if key not in context:
        return operator.endswith("IfExists")
    given = context[key]
    kind = operator.removesuffix("IfExists")
    if kind == "NumericLessThanEquals":
        return float(given) <= float(wanted)
    assert kind in ("StringEquals", "ArnEquals", "Bool"), operator
    return given in many(wanted)


HEAD = resolved(RESOURCES["HeadRole"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"])


def allowed(action: str, resource: str, context: dict[str, str]) -> bool:
    """Whether any statement allows the head this action on this resource."""
    return any(
        statement["Effect"] == "Allow"
        and any(fnmatchcase(action, pattern) for pattern in many(statement["Action"]))
        and any(fnmatchcase(resource, pattern) for pattern in many(statement["Resource"]))
        and all(
            holds(operator, key, wanted, context)
            for operator, keys in statement.get("Condition", {}).items()
            for key, wanted in keys.items()
        )
        for statement in HEAD
    )


def launch(**changes: str) -> bool:
    """Whether the head may start the worker of ray_cluster.yaml with `changes`. IAM must allow each resource of the request."""
    node = CLUSTER["available_node_types"]["gpu_worker"]["node_config"]
    (disk,) = node["BlockDeviceMappings"]
    asked = {
        "type": node["InstanceType"], "tokens": node["MetadataOptions"]["HttpTokens"], "size": str(disk["Ebs"]["VolumeSize"]),
        "encrypted": str(disk["Ebs"]["Encrypted"]).lower(), "cluster": CLUSTER["cluster_name"], "subnet": "subnet-ours",
        "vpc": "vpc-ours", "profile": ARNS["WorkerProfile"], "region": "us-west-2", **changes,
    }  # fmt: skip
    ec2 = f"arn:aws:ec2:{asked['region']}:111122223333:"
    tag = {"aws:RequestTag/ray-cluster-name": asked["cluster"]}
    instance = {"ec2:InstanceType": asked["type"], "ec2:MetadataHttpTokens": asked["tokens"],
                "ec2:InstanceProfile": asked["profile"], **tag}  # fmt: skip
    inside = {"ec2:Vpc": f"{EC2}vpc/{asked['vpc']}"}
    parts: list[tuple[str, dict[str, str]]] = [
        (f"{ec2}instance/*", instance),
        (f"{ec2}volume/*", {"ec2:VolumeSize": asked["size"], "ec2:Encrypted": asked["encrypted"]}),
        (f"{ec2}subnet/{asked['subnet']}", inside), (f"{ec2}security-group/sg-1", inside),
        (f"{ec2}network-interface/*", inside), (f"{ec2}key-pair/ray-autoscaler", {}),
        (f"arn:aws:ec2:{asked['region']}::image/ami-1", {}), (f"{ec2}spot-instances-request/*", {}),
    ]  # fmt: skip
    tagged = allowed("ec2:CreateTags", f"{ec2}instance/*", {"ec2:CreateAction": "RunInstances", **tag})
    return tagged and all(allowed("ec2:RunInstances", resource, context) for resource, context in parts)


def test_head_may_start_the_workers_of_ray_cluster_yaml() -> None:
    assert launch()
    assert allowed("iam:PassRole", ARNS["WorkerRole"], {"iam:PassedToService": "ec2.amazonaws.com"})
    assert allowed("ec2:DescribeInstances", "*", {})


@pytest.mark.parametrize(
    "change",
    [
        {"type": "p5.48xlarge"}, {"tokens": "optional"}, {"size": "16000"}, {"encrypted": "false"}, {"cluster": "mine"},
        {"subnet": "subnet-large"}, {"vpc": "vpc-other"}, {"region": "eu-west-1"},
        {"profile": "arn:aws:iam::111122223333:instance-profile/admin"},
    ],
)  # fmt: skip
def test_head_may_start_nothing_else(change: dict[str, str]) -> None:
    assert not launch(**change)


def test_head_may_tag_only_machines_of_its_cluster() -> None:
    instance = f"{EC2}instance/i-1"
    assert allowed("ec2:CreateTags", instance, OURS)
    assert not allowed("ec2:CreateTags", instance, {})
    assert not allowed("ec2:CreateTags", instance, {"aws:RequestTag/ray-cluster-name": "uvb-study"}), (
        "a head that tags any machine could end any machine"
    )
    assert not allowed("ec2:CreateTags", instance, {**OURS, "aws:RequestTag/ray-cluster-name": "other"})
    assert not allowed("ec2:CreateTags", f"{EC2}volume/vol-1", OURS)
    assert not allowed("ec2:DeleteTags", instance, OURS)


def test_head_may_end_only_machines_of_its_cluster() -> None:
    assert allowed("ec2:TerminateInstances", f"{EC2}instance/i-1", OURS)
    assert not allowed("ec2:TerminateInstances", f"{EC2}instance/i-1", {})
    assert not allowed("ec2:TerminateInstances", f"{EC2}instance/i-1", {"ec2:ResourceTag/ray-cluster-name": "other"})


def test_network_has_no_more_addresses_than_the_cluster_needs() -> None:
    """IAM cannot limit the number of machines, but the network's addresses can. AWS keeps five addresses of each subnet."""
    assert RESOURCES["Subnet"]["Properties"]["VpcId"] == {"Ref": "Network"}
    subnet = ipaddress.ip_network(RESOURCES["Subnet"]["Properties"]["CidrBlock"])
    machines = subnet.num_addresses - 5
    assert 1 + CLUSTER["max_workers"] <= machines <= 11
    assert RESOURCES["Network"]["Properties"]["CidrBlock"] == str(subnet), "a second subnet would add addresses"


def test_cluster_yaml_uses_the_network_and_types_of_the_template() -> None:
    nodes = CLUSTER["available_node_types"]
    assert all(node["node_config"]["SubnetIds"] == ["subnet-CHANGE-ME"] for node in nodes.values())
    assert CLUSTER["provider"]["availability_zone"] == ACCESS["Parameters"]["Zone"]["Default"]
    types = ACCESS["Parameters"]["WorkerTypes"]["Default"].split(",")
    assert nodes["gpu_worker"]["node_config"]["InstanceType"] in types


def test_no_statement_allows_everything() -> None:
    for statement in HEAD:
        assert "*" not in many(statement["Action"])
        if "*" in many(statement["Resource"]):
            assert statement["Action"] == "ec2:Describe*", "only reading is allowed on all resources"
