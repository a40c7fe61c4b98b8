"""Rules for resources of every type: their inputs, names, references and keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import shapes
from ..kinds import KINDS
from ..names import NAMES
from .registry import CACHE, DATABASE, KEY, NODES, judged_elsewhere, rule, texts

if TYPE_CHECKING:
    from ..account import Call


@rule("input-shape", "the service's model in botocore: required members, enums, patterns, lengths and ranges")
def _(change: Call) -> str:
    return "; ".join(f"ValidationException: {fault}" for fault in shapes.faults(KINDS[change.type], change.new))


@rule("name-taken", "each service's API reference: AlreadyExists, ResourceInUse or Duplicate errors", verbs=("create",))
def _(change: Call) -> str:
    key = NAMES.get(change.type)
    scope = None if change.type.startswith(("aws:iam/", "aws:s3/")) else change.region
    within = {"aws:iam/rolePolicy:RolePolicy": "role", NODES: "clusterName"}.get(change.type)
    if not key or key not in change.new:
        return ""
    for live in change.account.find(change.type, scope):
        same = live[key] == change.new[key] and (within is None or live[within] == change.new[within])
        if change.type == "aws:ec2/securityGroup:SecurityGroup" and live["vpcId"] != change.new["vpcId"]:
            same = False
        if same:
            return f"AlreadyExists: {change.type} {change.new[key]}"
    return ""


REFERENCES = {
    "vpc-": ("aws:ec2/vpc:Vpc",),
    "subnet-": ("aws:ec2/subnet:Subnet",),
    "rtb-": ("aws:ec2/routeTable:RouteTable",),
    "igw-": ("aws:ec2/internetGateway:InternetGateway",),
    "nat-": ("aws:ec2/natGateway:NatGateway",),
    "eipalloc-": ("aws:ec2/eip:Eip",),
    "lt-": ("aws:ec2/launchTemplate:LaunchTemplate",),
}


@rule("reference-not-found", "Amazon EC2 API Reference, Error codes: Invalid…ID.NotFound")
def _(change: Call) -> str:
    for value in texts(change.new):
        for prefix, types in REFERENCES.items():
            # Longer than a word that begins alike, as the ids of EC2 are.
            is_id = value.startswith(prefix) and len(value) == len(prefix) + 17
            if is_id and not any(change.account.get(type_, value) for type_ in types):
                return f"NotFound: {value}"
    return ""


@rule(
    "still-in-use",
    "Amazon EC2 API Reference, Error codes: DependencyViolation; IAM DeleteConflict, ELB ResourceInUse, RDS alike",
    verbs=("delete",),
)
def _(change: Call) -> str:
    live = change.old
    assert live is not None
    own = {live.id} if live.id.startswith(tuple(REFERENCES)) or live.id.startswith("sg-") else set()
    if live.type in {"aws:lb/targetGroup:TargetGroup", "aws:acm/certificate:Certificate"}:
        own = {live["arn"]}
    by = {
        "aws:iam/role:Role": ("aws:iam/rolePolicy:RolePolicy", "aws:iam/rolePolicyAttachment:RolePolicyAttachment"),
        "aws:rds/subnetGroup:SubnetGroup": (DATABASE,),
        "aws:rds/parameterGroup:ParameterGroup": (DATABASE,),
        "aws:elasticache/subnetGroup:SubnetGroup": (CACHE,),
        "aws:elasticache/parameterGroup:ParameterGroup": (CACHE,),
    }.get(live.type, ())
    for other in change.account.live.values():
        if other is live or other.type == "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup":
            continue
        wanted = own | ({live.id} if other.type in by else set())
        if wanted and wanted & set(texts(other.inputs)):
            return f"DependencyViolation: {live.id} is used by {other.type} {other.id}"
    return ""


# The provider's own configuration judges; see plugin.Provider.Configure.
judged_elsewhere("account-guard", "Pulumi Registry, AWS Provider, Configuration: allowedAccountIds")


@rule("key-in-region", "AWS KMS Developer Guide, Multi-Region keys: a key is used in its own Region alone")
def _(change: Call) -> str:
    for key, value in change.new.items():
        if key.lower().startswith("kms") or key.lower().endswith("kmskeyid"):
            parts = str(value).split(":")
            if len(parts) > 3 and parts[2] == "kms" and parts[3] != change.region:
                return f"KMSKeyNotAccessibleFault: {value} is not in {change.region}"
    return ""


@rule(
    "key-of-what-is-kept",
    "AWS KMS Developer Guide, Deleting keys: what it encrypted is unrecoverable",
    KEY,
    verbs=("delete",),
)
def _(change: Call) -> str:
    assert change.old is not None
    kept = [entry for entry in change.account.kept.get("snapshots", []) if entry.endswith(change.old["arn"])]
    return f"snapshots {kept} could never be read again" if kept else ""
