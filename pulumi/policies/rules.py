"""The rules of the policy pack, each a function of one resource's properties as AWS would receive them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pulumi_policy import ResourceValidationArgs, ResourceValidationPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    # The SDK calls it with a message and, if the resource is another one, a URN.
    ReportViolation = Callable[..., None]

REQUIRED_TAGS = ("project", "stack", "environment", "owner")
DATA_PORTS = (5432, 6379)
ANYWHERE = ("0.0.0.0/0", "::/0")

# AWS has no tags for these types. All others must have tags, so a new type is checked by default.
UNTAGGABLE = frozenset(
    {
        "aws:acm/certificateValidation:CertificateValidation",
        "aws:cloudwatch/dashboard:Dashboard",
        "aws:cloudwatch/logMetricFilter:LogMetricFilter",
        "aws:ec2/route:Route",
        "aws:ec2/routeTableAssociation:RouteTableAssociation",
        "aws:ecr/lifecyclePolicy:LifecyclePolicy",
        "aws:ecr/replicationConfiguration:ReplicationConfiguration",
        "aws:eks/accessPolicyAssociation:AccessPolicyAssociation",
        "aws:iam/rolePolicy:RolePolicy",
        "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
        "aws:kms/alias:Alias",
        "aws:lambda/functionEventInvokeConfig:FunctionEventInvokeConfig",
        "aws:lambda/permission:Permission",
        "aws:route53/record:Record",
        "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration",
        "aws:s3/bucketNotification:BucketNotification",
        "aws:s3/bucketPolicy:BucketPolicy",
        "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock",
        "aws:s3/bucketReplicationConfig:BucketReplicationConfig",
        "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration",
        "aws:s3/bucketVersioning:BucketVersioning",
        "aws:secretsmanager/secretRotation:SecretRotation",
        "aws:secretsmanager/secretVersion:SecretVersion",
        "aws:sns/topicPolicy:TopicPolicy",
        "aws:sns/topicSubscription:TopicSubscription",
        "aws:sqs/queuePolicy:QueuePolicy",
        "aws:sqs/redriveAllowPolicy:RedriveAllowPolicy",
    }
)

# Where each type says that it is encrypted; every one of the properties has to be set.
ENCRYPTION: Mapping[str, tuple[str, ...]] = {
    "aws:cloudwatch/logGroup:LogGroup": ("kmsKeyId",),
    "aws:ebs/volume:Volume": ("encrypted",),
    "aws:efs/fileSystem:FileSystem": ("encrypted",),
    "aws:elasticache/replicationGroup:ReplicationGroup": ("atRestEncryptionEnabled", "transitEncryptionEnabled"),
    "aws:kms/key:Key": ("enableKeyRotation",),
    "aws:rds/instance:Instance": ("storageEncrypted", "kmsKeyId"),
    "aws:secretsmanager/secret:Secret": ("kmsKeyId",),
    "aws:sns/topic:Topic": ("kmsMasterKeyId",),
    "aws:sqs/queue:Queue": ("kmsMasterKeyId",),
}

# Actions that AWS does not tie to a resource, so that "*" is the only resource they can have.
# Source: the "Resource types" column of the Service Authorization Reference.
RESOURCELESS_ACTIONS = frozenset(
    {
        "autoscaling:DescribeAutoScalingGroups",
        "autoscaling:DescribeAutoScalingInstances",
        "autoscaling:DescribeLaunchConfigurations",
        "autoscaling:DescribeScalingActivities",
        "autoscaling:DescribeTags",
        "cloudwatch:PutMetricData",
        "ec2:DescribeAvailabilityZones",
        "ec2:DescribeImages",
        "ec2:DescribeInstances",
        "ec2:DescribeInstanceTypes",
        "ec2:DescribeLaunchTemplateVersions",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeSecurityGroups",
        "ec2:DescribeSubnets",
        "ec2:DescribeVpcs",
        "ecr:GetAuthorizationToken",
        "elasticloadbalancing:DescribeTargetGroups",
        "elasticloadbalancing:DescribeTargetHealth",
        "route53:ListHostedZones",
        "secretsmanager:GetRandomPassword",
    }
)

# Where each type keeps a policy document. A KMS key's own policy is not among them: its "*" is the key itself.
DOCUMENTS: Mapping[str, str] = {
    "aws:iam/policy:Policy": "policy",
    "aws:iam/role:Role": "assumeRolePolicy",
    "aws:iam/rolePolicy:RolePolicy": "policy",
    "aws:s3/bucketPolicy:BucketPolicy": "policy",
    "aws:sns/topicPolicy:TopicPolicy": "policy",
    "aws:sqs/queuePolicy:QueuePolicy": "policy",
}


def no_public_database(args: ResourceValidationArgs, report: ReportViolation) -> None:
    """Refuse databases and caches that the internet can reach."""
    props = args.props
    if args.resource_type == "aws:rds/instance:Instance" and props.get("publiclyAccessible"):
        report("is publicly accessible: set publiclyAccessible to false and let the clusters' security groups in")
    if args.resource_type == "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule":
        _refuse_open_ports(props, [props.get("cidrIpv4"), props.get("cidrIpv6")], report)
    if args.resource_type == "aws:ec2/securityGroup:SecurityGroup":
        for rule in props.get("ingress") or ():
            _refuse_open_ports(rule, [*rule.get("cidrBlocks", ()), *rule.get("ipv6CidrBlocks", ())], report)
    if args.resource_type == "aws:eks/cluster:Cluster":
        config = props.get("vpcConfig") or props
        public = config.get("endpointPublicAccess", True)
        if public and set(config.get("publicAccessCidrs") or ANYWHERE) & set(ANYWHERE):
            report("opens its Kubernetes API to the internet: name the networks in publicAccessCidrs")


def encrypted_storage(args: ResourceValidationArgs, report: ReportViolation) -> None:
    """Refuse anything that keeps data without encryption."""
    for prop in ENCRYPTION.get(args.resource_type, ()):
        if args.props.get(prop) in {None, False, "", "false"}:
            report(f"is not encrypted as it has to be: set {prop}")
    if args.resource_type == "aws:ec2/launchTemplate:LaunchTemplate":
        mappings: list[dict[str, Any]] = args.props.get("blockDeviceMappings") or [{}]
        for mapping in mappings:
            if str((mapping.get("ebs") or {}).get("encrypted", False)).lower() != "true":
                report("starts machines with an unencrypted disk: set ebs.encrypted in every block device mapping")
    if args.resource_type == "aws:ecr/repository:Repository":
        configurations: list[dict[str, Any]] = args.props.get("encryptionConfigurations") or [{}]
        if any(configuration.get("encryptionType") != "KMS" for configuration in configurations):
            report("keeps images without the stack's key: set encryptionConfigurations to KMS")


def no_wildcard_iam(args: ResourceValidationArgs, report: ReportViolation) -> None:
    """Refuse permissions that name no action, no resource, or no one."""
    document = args.props.get(DOCUMENTS.get(args.resource_type, ""))
    documents = [document, *(policy.get("policy") for policy in args.props.get("inlinePolicies") or ())]
    for statement in (statement for text in documents if text for statement in _statements(text)):
        if statement["Effect"] != "Allow":
            continue
        if "NotAction" in statement or "NotResource" in statement:
            report("allows all but something: spell out Action and Resource instead of NotAction and NotResource")
        actions = _listed(statement.get("Action"))
        for action in actions:
            if "*" in action:
                report(f"allows {action!r}: spell out the actions that are needed")
        if "*" in _listed(statement.get("Resource")) and not set(actions) <= RESOURCELESS_ACTIONS:
            free = ", ".join(sorted(set(actions) - RESOURCELESS_ACTIONS))
            report(f"allows {free} on every resource: name the ARNs")
        principal = statement.get("Principal")
        everyone = principal == "*" or (isinstance(principal, dict) and "*" in _listed(principal.get("AWS")))
        if everyone and not statement.get("Condition"):
            report("lets anyone in: name a principal, or say under which Condition")
    if args.resource_type == "aws:iam/rolePolicyAttachment:RolePolicyAttachment":
        name = str(args.props["policyArn"]).rpartition("/")[2]
        if name.endswith("FullAccess") or name in {"AdministratorAccess", "PowerUserAccess"}:
            report(f"attaches {name}: write a policy of the actions that are needed")


def required_tags(args: ResourceValidationArgs, report: ReportViolation) -> None:
    """Refuse resources without the tags for owner and cost."""
    if not args.resource_type.startswith("aws:") or args.resource_type in UNTAGGABLE:
        return
    missing = [tag for tag in REQUIRED_TAGS if not (args.props.get("tags") or {}).get(tag)]
    if missing:
        report(f"lacks the tags {', '.join(missing)}: create it with a provider that has defaultTags")


def prod_survives(args: ResourceValidationArgs, report: ReportViolation) -> None:
    """Refuse a production database or cache that the loss of one zone or one mistaken command can destroy."""
    if (args.props.get("tags") or {}).get("environment") != "prod":
        return
    if args.resource_type == "aws:rds/instance:Instance":
        # A replica in its primary's region is not the only copy. One in another region may be.
        source = str(args.props.get("replicateSourceDb") or "")
        if not args.props.get("deletionProtection") and (not source or source.startswith("arn:")):
            report("is in prod without deletionProtection")
        if not args.props.get("multiAz") and not args.props.get("replicateSourceDb"):
            report("is in prod without multiAz")
        if not args.props.get("replicateSourceDb") and int(args.props.get("backupRetentionPeriod") or 0) < 1:
            report("is in prod without backups: set backupRetentionPeriod")
    if args.resource_type == "aws:elasticache/replicationGroup:ReplicationGroup" and not args.props.get(
        "multiAzEnabled"
    ):
        report("is in prod without multiAzEnabled")


POLICIES = tuple(
    ResourceValidationPolicy(name=rule.__name__.replace("_", "-"), description=rule.__doc__ or "", validate=rule)
    for rule in (no_public_database, encrypted_storage, no_wildcard_iam, required_tags, prod_survives)
)


def _refuse_open_ports(rule: Mapping[str, Any], sources: list[str | None], report: ReportViolation) -> None:
    """Refuse a security group's rule that lets anyone reach a port of a database or cache."""
    first, last = (int(rule[key]) if rule.get(key) is not None else default for key, default in _PORT_RANGE)
    for port in DATA_PORTS:
        if set(sources) & set(ANYWHERE) and first <= port <= last:
            report(f"opens port {port} to the internet: let a security group in, not an address range")


_PORT_RANGE = (("fromPort", 0), ("toPort", 65535))


def _statements(text: str) -> Iterator[dict[str, Any]]:
    """The statements of a policy document."""
    document = json.loads(text)
    statements = document["Statement"]
    yield from statements if isinstance(statements, list) else [statements]


def _listed(value: str | list[str] | None) -> list[str]:
    """IAM takes one string where it takes a list of one."""
    return [value] if isinstance(value, str) else list(value or ())
