"""Every rule of the policy pack refuses what it should and passes what it should, and all stacks pass all rules."""

from __future__ import annotations

import importlib
import inspect
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import rules
from pulumi_policy import PolicyResourceOptions, ResourceValidationArgs

if TYPE_CHECKING:
    from collections.abc import Callable

    from rehearsal import Rehearsal

pytestmark = pytest.mark.xdist_group("infra")

TAGS = {"project": "rates", "stack": "prod", "environment": "prod", "owner": "freight-rates"}
INGRESS = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
DATABASE = "aws:rds/instance:Instance"
CACHE = "aws:elasticache/replicationGroup:ReplicationGroup"
TEMPLATE = "aws:ec2/launchTemplate:LaunchTemplate"
ROLE_POLICY = "aws:iam/rolePolicy:RolePolicy"
BUCKET_POLICY = "aws:s3/bucketPolicy:BucketPolicy"
ATTACHMENT = "aws:iam/rolePolicyAttachment:RolePolicyAttachment"
GOOD_DATABASE = {
    "tags": TAGS,
    "multiAz": True,
    "deletionProtection": True,
    "backupRetentionPeriod": 7,
    "storageEncrypted": True,
    "kmsKeyId": "key",
    "publiclyAccessible": False,
}


def _violations(rule: Callable[..., None], type_: str, props: dict[str, Any]) -> list[str]:
    found: list[str] = []
    options = PolicyResourceOptions(False, [], None, [], {}, [])  # type: ignore[arg-type]  # none of the rules reads them
    args = ResourceValidationArgs(type_, props, f"urn:{type_}", "it", options, None)
    rule(args, lambda message, urn=None: found.append(message))
    return found


def _document(**statement: Any) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **statement}]})


@pytest.mark.parametrize(
    ("rule", "type_", "good", "bad", "message"),
    [
        (
            rules.no_public_database,
            DATABASE,
            {"publiclyAccessible": False},
            {"publiclyAccessible": True},
            "publicly accessible",
        ),
        (
            rules.no_public_database,
            INGRESS,
            {"cidrIpv4": "0.0.0.0/0", "fromPort": 443, "toPort": 443},
            {"cidrIpv4": "0.0.0.0/0", "fromPort": 5000, "toPort": 6000},
            "port 5432",
        ),
        (
            rules.no_public_database,
            INGRESS,
            {"cidrIpv4": "10.0.0.0/8", "ipProtocol": "-1"},
            {"cidrIpv6": "::/0", "ipProtocol": "-1"},
            "port 6379",
        ),
        (
            rules.no_public_database,
            "aws:ec2/securityGroup:SecurityGroup",
            {"description": "empty"},
            {"ingress": [{"cidrBlocks": ["0.0.0.0/0"], "fromPort": 6379, "toPort": 6379}]},
            "port 6379",
        ),
        (
            rules.no_public_database,
            "aws:eks/cluster:Cluster",
            {"publicAccessCidrs": ["203.0.113.0/24"]},
            {},
            "Kubernetes API",
        ),
        (
            rules.encrypted_storage,
            DATABASE,
            {"storageEncrypted": True, "kmsKeyId": "k"},
            {"kmsKeyId": "k"},
            "storageEncrypted",
        ),
        (
            rules.encrypted_storage,
            CACHE,
            {"atRestEncryptionEnabled": True, "transitEncryptionEnabled": True},
            {"atRestEncryptionEnabled": True, "transitEncryptionEnabled": False},
            "transitEncryptionEnabled",
        ),
        (rules.encrypted_storage, "aws:sqs/queue:Queue", {"kmsMasterKeyId": "k"}, {}, "kmsMasterKeyId"),
        (rules.encrypted_storage, "aws:cloudwatch/logGroup:LogGroup", {"kmsKeyId": "k"}, {"kmsKeyId": ""}, "kmsKeyId"),
        (
            rules.encrypted_storage,
            TEMPLATE,
            {"blockDeviceMappings": [{"ebs": {"encrypted": "true"}}]},
            {"blockDeviceMappings": [{"ebs": {"encrypted": "false"}}]},
            "unencrypted disk",
        ),
        (
            rules.encrypted_storage,
            TEMPLATE,
            {"blockDeviceMappings": [{"ebs": {"encrypted": True}}]},
            {},
            "unencrypted disk",
        ),
        (
            rules.encrypted_storage,
            "aws:ecr/repository:Repository",
            {"encryptionConfigurations": [{"encryptionType": "KMS"}]},
            {},
            "stack's key",
        ),
        (
            rules.no_wildcard_iam,
            ROLE_POLICY,
            {"policy": _document(Action="s3:GetObject", Resource="arn:aws:s3:::b/*")},
            {"policy": _document(Action="s3:*", Resource="arn:aws:s3:::b/*")},
            "'s3:\\*'",
        ),
        (
            rules.no_wildcard_iam,
            ROLE_POLICY,
            {"policy": _document(Action="ec2:DescribeVpcs", Resource="*")},
            {"policy": _document(Action=["ec2:DescribeVpcs", "ec2:RunInstances"], Resource="*")},
            "ec2:RunInstances on every",
        ),
        (
            rules.no_wildcard_iam,
            ROLE_POLICY,
            {"policy": json.dumps({"Statement": {"Effect": "Deny", "NotAction": "s3:GetObject"}})},
            {"policy": _document(NotAction="s3:GetObject", Resource="arn:x")},
            "NotAction",
        ),
        (
            rules.no_wildcard_iam,
            BUCKET_POLICY,
            {"policy": _document(Principal="*", Action="s3:GetObject", Resource="arn:x", Condition={"Bool": {}})},
            {"policy": _document(Principal={"AWS": "*"}, Action="s3:GetObject", Resource="arn:x")},
            "lets anyone in",
        ),
        (
            rules.no_wildcard_iam,
            "aws:iam/role:Role",
            {"assumeRolePolicy": _document(Action="sts:AssumeRole", Principal={"Service": "x"})},
            {"inlinePolicies": [{"policy": _document(Action="*", Resource="*")}]},
            "'\\*'",
        ),
        (
            rules.no_wildcard_iam,
            ATTACHMENT,
            {"policyArn": "arn:aws:iam::aws:policy/AmazonEKS_CNI_Policy"},
            {"policyArn": "arn:aws:iam::aws:policy/AmazonS3FullAccess"},
            "AmazonS3FullAccess",
        ),
        (
            rules.required_tags,
            "aws:s3/bucket:Bucket",
            {"tags": TAGS},
            {"tags": {**TAGS, "owner": ""}},
            "lacks the tags owner",
        ),
        (
            rules.required_tags,
            "aws:new/thing:Thing",
            {"tags": TAGS},
            {},
            "lacks the tags project, stack, environment, owner",
        ),
        (rules.prod_survives, DATABASE, GOOD_DATABASE, {**GOOD_DATABASE, "multiAz": False}, "without multiAz"),
        (
            rules.prod_survives,
            DATABASE,
            {**GOOD_DATABASE, "multiAz": False, "replicateSourceDb": "arn"},
            {**GOOD_DATABASE, "deletionProtection": False},
            "without deletionProtection",
        ),
        (
            rules.prod_survives,
            DATABASE,
            {"tags": {**TAGS, "environment": "dev"}},
            {**GOOD_DATABASE, "backupRetentionPeriod": 0},
            "without backups",
        ),
        (rules.prod_survives, CACHE, {"tags": TAGS, "multiAzEnabled": True}, {"tags": TAGS}, "without multiAzEnabled"),
    ],
)
def test_a_rule_passes_the_good_and_refuses_the_bad(
    rule: Callable[..., None], type_: str, good: dict[str, Any], bad: dict[str, Any], message: str
) -> None:
    assert _violations(rule, type_, good) == []
    assert re.search(message, "\n".join(_violations(rule, type_, bad)))


def test_every_rule_is_in_the_pack_and_tested() -> None:
    names = {policy.name for policy in rules.POLICIES}
    assert names == {"no-public-database", "encrypted-storage", "no-wildcard-iam", "required-tags", "prod-survives"}


@pytest.mark.parametrize("rule", [policy.name for policy in rules.POLICIES])
def test_every_stack_passes_every_rule(rule: str, stack: Rehearsal) -> None:
    check = getattr(rules, rule.replace("-", "_"))
    providers = {
        provider.region: json.loads(provider.inputs["defaultTags"])["tags"]
        for provider in stack.of_type("pulumi:providers:aws").values()
    }
    found = [
        f"{resource.key} {violation}"
        for resource in stack.resources
        # The AWS provider puts its default tags under a resource's own before any policy sees them.
        for violation in _violations(
            check,
            resource.type,
            {**resource.inputs, "tags": {**providers.get(resource.region, {}), **resource.inputs.get("tags", {})}},
        )
    ]
    assert found == []


def test_only_untaggable_resources_are_exempt_from_tags() -> None:
    for token in rules.UNTAGGABLE:
        module, name = token.split(":")[1].partition("/")[0], token.rpartition(":")[2]
        resource = getattr(importlib.import_module(f"pulumi_aws.{module}{'_' if module == 'lambda' else ''}"), name)
        assert "tags" not in inspect.signature(resource._internal_init).parameters, f"{token} takes tags"
