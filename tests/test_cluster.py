"""The files that bring up a cluster, against Ray's own checks and a simulated AWS."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import ray
import yaml
from moto import mock_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.commands import _bootstrap_config
from ray.autoscaler._private.util import prepare_config, validate_config

PROJECT = Path(__file__).resolve().parents[1]
REGION = "us-east-1"


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((PROJECT / name).read_text())


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A simulated account in which cluster/aws.yaml was deployed; its outputs."""
    monkeypatch.setenv("HOME", str(tmp_path))  # the key pair is written there
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    with mock_aws():
        [vpc] = boto3.client("ec2").describe_vpcs()["Vpcs"]
        formation = boto3.client("cloudformation")
        formation.create_stack(
            StackName="vsgae",
            TemplateBody=(PROJECT / "cluster" / "aws.yaml").read_text(),
            Parameters=[
                {"ParameterKey": "Vpc", "ParameterValue": vpc["VpcId"]},
                {"ParameterKey": "SshFrom", "ParameterValue": "203.0.113.7/32"},
            ],
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        [stack] = formation.describe_stacks(StackName="vsgae")["Stacks"]
        yield {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


@pytest.fixture
def bootstrapped(aws: dict[str, str]) -> dict[str, Any]:
    """cluster.yaml as Ray completes it, with what is SET taken from the account."""
    text = (PROJECT / "cluster.yaml").read_text()
    [image, *_] = boto3.client("ec2").describe_images()["Images"]
    for placeholder, value in {
        r"ami-0+": image["ImageId"],
        r"sg-0+": aws["SecurityGroup"],
        r"BUCKET": aws["Bucket"],
    }.items():
        text, times = re.subn(placeholder, value, text)
        assert times == 1
    return _bootstrap_config(yaml.safe_load(text), no_config_cache=True)


@pytest.mark.parametrize("name", ["cluster.yaml", "cluster/local.yaml"])
def test_ray_finds_the_file_valid(name: str) -> None:
    validate_config(prepare_config(read(name)))


def test_versions_are_those_that_the_tests_run_with() -> None:
    assert read("cluster.yaml")["docker"]["image"] == f"rayproject/ray:{ray.__version__}-py311-gpu"
    assert f"ray=={ray.__version__}\n" in (PROJECT / "constraints.txt").read_text()


def test_every_placeholder_is_marked() -> None:
    lines = (PROJECT / "cluster.yaml").read_text().splitlines()
    for placeholder in ("ami-0", "sg-0", "BUCKET", "region:"):
        [line] = [line for line in lines if placeholder in line]
        assert "# SET" in line


def test_no_group_is_open_to_the_world_and_ray_adds_none(aws: dict[str, str], bootstrapped: dict[str, Any]) -> None:
    kinds = bootstrapped["available_node_types"]
    assert {tuple(kind["node_config"]["SecurityGroupIds"]) for kind in kinds.values()} == {(aws["SecurityGroup"],)}
    groups = boto3.client("ec2").describe_security_groups()["SecurityGroups"]
    [ours] = [group for group in groups if group["GroupId"] == aws["SecurityGroup"]]
    assert [range_["CidrIp"] for rule in ours["IpPermissions"] for range_ in rule["IpRanges"]] == ["203.0.113.7/32"]
    assert [pair["GroupId"] for rule in ours["IpPermissions"] for pair in rule["UserIdGroupPairs"]] == [ours["GroupId"]]
    for group in groups:
        assert "0.0.0.0/0" not in str(group["IpPermissions"])


def test_the_head_runs_no_trials_and_workers_have_a_gpu(bootstrapped: dict[str, Any]) -> None:
    kinds = bootstrapped["available_node_types"]
    assert kinds["head"]["resources"]["CPU"] == 0
    assert "GPU" not in kinds["head"]["resources"]
    for name in ("gpu_spot", "gpu_on_demand"):
        assert kinds[name]["resources"].items() >= {"CPU": 4, "GPU": 1}.items()
        assert kinds[name]["min_workers"] == 0


@pytest.mark.parametrize(("name", "is_spot"), [("gpu_spot", True), ("gpu_on_demand", False), ("head", False)])
def test_machines_are_launched_as_the_file_says(
    bootstrapped: dict[str, Any], name: str, is_spot: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = AWSNodeProvider(bootstrapped["provider"], bootstrapped["cluster_name"])
    asked: list[dict[str, Any]] = []
    create = provider.ec2_fail_fast.create_instances
    monkeypatch.setattr(
        provider.ec2_fail_fast, "create_instances", lambda **request: [asked.append(request), create(**request)][1]
    )
    node_config = dict(bootstrapped["available_node_types"][name]["node_config"])
    provider.create_node(node_config, {"ray-node-type": "worker"}, 1)
    [request] = asked
    assert (request.get("InstanceMarketOptions") == {"MarketType": "spot"}) == is_spot
    profile = "vsgae-head" if name == "head" else "vsgae-worker"
    assert request["IamInstanceProfile"] == {"Name": profile}
    assert len(provider.non_terminated_nodes({})) == 1
    provider.terminate_nodes(provider.non_terminated_nodes({}))
    assert provider.non_terminated_nodes({}) == []
