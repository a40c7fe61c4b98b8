"""Checks before the first deployment, against responses that fit AWS's own service models."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import boto3
import preflight
import pytest
from botocore.stub import Stubber
from rehearsal import stack_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rehearsal import Rehearsal

pytestmark = pytest.mark.xdist_group("infra")

ACCOUNT = "123456789012"
CALLER = {"Account": ACCOUNT, "UserId": "AID", "Arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/operator/session"}


class Aws:
    """Clients that give prepared responses, in order, and refuse any other call."""

    def __init__(self) -> None:
        self._clients: dict[str, Any] = {}
        self._stubs: dict[str, Stubber] = {}

    def client(self, service: str, region: str) -> Any:
        if service not in self._clients:
            credentials = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
            self._clients[service] = boto3.client(service, region_name=region, **credentials)  # type: ignore[call-overload]
            self._stubs[service] = Stubber(self._clients[service])
            self._stubs[service].activate()
        return self._clients[service]

    def answer(self, service: str, operation: str, **response: Any) -> Aws:
        self.client(service, "us-east-1")
        self._stubs[service].add_response(operation, response)
        return self

    def refuse(self, service: str, operation: str, code: str) -> Aws:
        self.client(service, "us-east-1")
        self._stubs[service].add_client_error(operation, code)
        return self

    def check_used(self) -> None:
        for stub in self._stubs.values():
            stub.assert_no_pending_responses()


@pytest.fixture
def aws() -> Iterator[Aws]:
    aws = Aws()
    yield aws
    aws.check_used()


@pytest.fixture
def plan(dev: Rehearsal, aws: Aws) -> preflight.Requirements:
    return preflight.Requirements(
        stack="dev", config=stack_config("dev"), rehearsal=dev, client=aws.client, file={}, digest="sha256:0a1b"
    )


def texts(check: str, plan: preflight.Requirements) -> list[str]:
    return [problem.text for problem in preflight.CHECKS[check](plan)]


def test_placeholders_are_named_with_their_keys(plan: preflight.Requirements) -> None:
    assert texts("settings", plan) == []
    config = {**plan.config, "rates:alertEmail": "rates-dev@example.com"}
    (problem,) = texts("settings", replace(plan, config=config))
    assert "alertEmail" in problem


def test_credentials_of_another_account_are_refused(plan: preflight.Requirements, aws: Aws) -> None:
    aws.answer("sts", "get_caller_identity", **CALLER)
    assert texts("account", plan) == []
    aws.answer("sts", "get_caller_identity", **{**CALLER, "Account": "999999999999"})
    assert texts("account", plan) == [f"the credentials are of account 999999999999, and rates:account is {ACCOUNT}"]


def test_missing_permissions_are_named_with_the_role_of_the_session(plan: preflight.Requirements, aws: Aws) -> None:
    aws.answer("sts", "get_caller_identity", **CALLER)
    results = [
        {"EvalActionName": name, "EvalDecision": "implicitDeny" if name == "eks:CreateCluster" else "allowed"}
        for name in preflight.ACTIONS
    ]
    aws.answer("iam", "simulate_principal_policy", EvaluationResults=results)
    role = f"arn:aws:iam::{ACCOUNT}:role/operator"
    assert texts("permissions", plan) == [f"{role} may not eks:CreateCluster: implicitDeny"]


def test_zones_that_are_impaired_or_absent_are_named(plan: preflight.Requirements, aws: Aws) -> None:
    zones = [
        {"ZoneId": "use1-az1", "State": "available"},
        {"ZoneId": "use1-az2", "State": "impaired"},
        {"ZoneId": "use1-az6", "State": "available"},
    ]
    aws.answer("ec2", "describe_availability_zones", AvailabilityZones=zones)
    assert texts("zones", plan) == ["zone use1-az2 is not available", "zone use1-az4 is not available"]


def test_each_zone_offers_the_nodes_and_one_type_for_spark(plan: preflight.Requirements, aws: Aws) -> None:
    offers = [("use1-az1", "t3.medium"), ("use1-az1", "m5.large"), ("use1-az2", "m5.large"), ("use1-az4", "t3.medium")]
    listed = [{"Location": zone, "InstanceType": name} for zone, name in offers]
    aws.answer("ec2", "describe_instance_type_offerings", InstanceTypeOfferings=listed)
    assert texts("instance types", plan) == [
        "use1-az2 does not offer t3.medium",
        "use1-az4 offers none of m6a.large, m5a.large, m5.large",
    ]


def test_the_vcpu_of_a_new_account_are_too_few_for_the_nodes_at_their_maximum(
    plan: preflight.Requirements, aws: Aws
) -> None:
    for cores in (2, 2):
        aws.answer("ec2", "describe_instance_types", InstanceTypes=[{"VCpuInfo": {"DefaultVCpus": cores}}])
    # In the order of the check: Elastic addresses, NAT gateways, VPC, cluster, balancer, databases, and the vCPUs.
    values = {
        "EC2-VPC Elastic IPs": 5,
        "VPCs": 5,
        "NAT gateways": 5,
        "Clusters": 100,
        "Balancers": 50,
        "DB": 40,
        "on-demand": 5,
        "spot": 5,
    }
    for name, value in values.items():
        aws.answer("service-quotas", "get_service_quota", Quota={"QuotaName": name, "Value": float(value)})
    assert texts("quotas", plan) == [
        "us-east-1: 10 on-demand vCPU are needed, and the quota 'on-demand' is 5",
    ]


def test_versions_that_eks_does_not_offer_are_named_with_those_it_does(plan: preflight.Requirements, aws: Aws) -> None:
    addons = plan.config["rates:kubernetes"]["1.35"]["addons"]
    supported = {
        "clusterVersion": "1.35",
        "versionStatus": "STANDARD_SUPPORT",
        "endOfStandardSupportDate": datetime(2027, 3, 27, tzinfo=UTC),
    }
    aws.answer("eks", "describe_cluster_versions", clusterVersions=[supported])
    for name in sorted(addons):
        offered = "v9.9.9-eksbuild.1" if name == "coredns" else addons[name]
        addon = {"addonName": name, "addonVersions": [{"addonVersion": offered}]}
        aws.answer("eks", "describe_addon_versions", addons=[addon])
    (problem,) = preflight.check_versions(plan)
    assert problem.text == f"us-east-1: coredns {addons['coredns']} is not offered for Kubernetes 1.35"
    assert "v9.9.9-eksbuild.1" in problem.remedy


def test_a_version_that_left_standard_support_is_refused(plan: preflight.Requirements, aws: Aws) -> None:
    old = {"clusterVersion": "1.35", "versionStatus": "EXTENDED_SUPPORT"}
    aws.answer("eks", "describe_cluster_versions", clusterVersions=[old])
    assert texts("versions", plan) == ["us-east-1: Kubernetes 1.35 is EXTENDED_SUPPORT"]


@pytest.mark.parametrize(("owner", "problems"), [("dev", 0), ("other", 1)])
def test_a_cluster_of_the_same_name_must_be_the_stack_s(
    plan: preflight.Requirements, aws: Aws, owner: str, problems: int
) -> None:
    aws.answer("eks", "describe_cluster", cluster={"name": "rates-dev-blue", "tags": {"stack": owner}})
    assert len(texts("names", plan)) == problems


def test_a_name_that_is_free_is_no_problem(plan: preflight.Requirements, aws: Aws) -> None:
    aws.refuse("eks", "describe_cluster", "ResourceNotFoundException")
    assert texts("names", plan) == []


def test_the_parent_zone_must_be_public_and_there(plan: preflight.Requirements, aws: Aws) -> None:
    config = {**plan.config, "rates:parentZone": "rates.test"}
    zone = {"Id": "Z1", "Name": "rates.test.", "CallerReference": "1", "Config": {"PrivateZone": True}}
    more = {"DNSName": "rates.test", "IsTruncated": False, "MaxItems": "100"}
    aws.answer("route53", "list_hosted_zones_by_name", HostedZones=[zone], **more)
    assert texts("domain", replace(plan, config=config)) == ["there is no public hosted zone rates.test"]


def test_an_image_that_was_not_pushed_is_named(plan: preflight.Requirements, aws: Aws) -> None:
    aws.refuse("ecr", "describe_images", "ImageNotFoundException")
    assert texts("image", plan) == ["rates-dev has no image sha256:0a1b"]
    assert texts("image", replace(plan, digest="")) == ["no image was released for dev"]


def test_a_call_that_aws_refuses_is_reported_and_the_next_check_runs(
    plan: preflight.Requirements, aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {name: preflight.CHECKS[name] for name in ("account", "settings")}
    monkeypatch.setattr(preflight, "CHECKS", chosen)
    aws.refuse("sts", "get_caller_identity", "ExpiredToken")
    found = dict(preflight.run(plan))
    assert "ExpiredToken" in found["account"][0].text
    assert found["settings"] == []
