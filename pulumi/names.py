"""Names of AWS resources, within the length that each service allows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

PROJECT = "rates"
# "dev-" and a name of ten letters, the most that ``settings.STACK_NAME`` allows.
MAX_STACK_LENGTH = 14
# A placeholder for the random part, with the same length.
RANDOM_PART = "abcdef"
DIGEST_LENGTH = 4


@dataclass(frozen=True)
class NameLimit:
    """Return the property that contains the name of a type of resource.

    Attributes:
        key: The property.
        length: Maximum number of characters.
        source: Page of AWS's documentation that states it.
    """

    key: str
    length: int
    source: str


ROLE = "aws:iam/role:Role"
LOAD_BALANCER = "aws:lb/loadBalancer:LoadBalancer"
TARGET_GROUP = "aws:lb/targetGroup:TargetGroup"

LIMITS: Mapping[str, NameLimit] = {
    "aws:budgets/budget:Budget": NameLimit("name", 100, "Budgets API Reference, Budget"),
    "aws:cloudwatch/compositeAlarm:CompositeAlarm": NameLimit(
        "alarmName", 255, "CloudWatch API Reference, PutCompositeAlarm"
    ),
    "aws:cloudwatch/dashboard:Dashboard": NameLimit("dashboardName", 255, "CloudWatch API Reference, PutDashboard"),
    "aws:cloudwatch/eventRule:EventRule": NameLimit("name", 64, "EventBridge API Reference, PutRule"),
    "aws:cloudwatch/logGroup:LogGroup": NameLimit("name", 512, "CloudWatch Logs API Reference, CreateLogGroup"),
    "aws:cloudwatch/logMetricFilter:LogMetricFilter": NameLimit(
        "name", 512, "CloudWatch Logs API Reference, PutMetricFilter"
    ),
    "aws:cloudwatch/metricAlarm:MetricAlarm": NameLimit("name", 255, "CloudWatch API Reference, PutMetricAlarm"),
    "aws:ec2/launchTemplate:LaunchTemplate": NameLimit("name", 128, "EC2 API Reference, CreateLaunchTemplate"),
    "aws:ec2/securityGroup:SecurityGroup": NameLimit("name", 255, "EC2 API Reference, CreateSecurityGroup"),
    "aws:ecr/repository:Repository": NameLimit("name", 256, "ECR API Reference, CreateRepository"),
    "aws:eks/cluster:Cluster": NameLimit("name", 100, "EKS API Reference, CreateCluster"),
    "aws:eks/nodeGroup:NodeGroup": NameLimit("nodeGroupName", 63, "EKS API Reference, CreateNodegroup"),
    "aws:elasticache/parameterGroup:ParameterGroup": NameLimit(
        "name", 255, "ElastiCache API Reference, CreateCacheParameterGroup"
    ),
    "aws:elasticache/replicationGroup:ReplicationGroup": NameLimit(
        "replicationGroupId", 40, "ElastiCache API Reference, CreateReplicationGroup"
    ),
    "aws:elasticache/subnetGroup:SubnetGroup": NameLimit(
        "name", 255, "ElastiCache API Reference, CreateCacheSubnetGroup"
    ),
    "aws:elasticache/user:User": NameLimit("userId", 40, "ElastiCache API Reference, CreateUser"),
    "aws:elasticache/userGroup:UserGroup": NameLimit("userGroupId", 40, "ElastiCache API Reference, CreateUserGroup"),
    ROLE: NameLimit("name", 64, "IAM User Guide, IAM and AWS STS quotas"),
    "aws:iam/rolePolicy:RolePolicy": NameLimit("name", 128, "IAM User Guide, IAM and AWS STS quotas"),
    "aws:kms/alias:Alias": NameLimit("name", 256, "KMS API Reference, CreateAlias"),
    "aws:lambda/function:Function": NameLimit("name", 64, "Lambda API Reference, CreateFunction"),
    LOAD_BALANCER: NameLimit("name", 32, "Elastic Load Balancing API Reference, CreateLoadBalancer"),
    TARGET_GROUP: NameLimit("name", 32, "Elastic Load Balancing API Reference, CreateTargetGroup"),
    "aws:rds/instance:Instance": NameLimit("identifier", 63, "RDS API Reference, CreateDBInstance"),
    "aws:rds/parameterGroup:ParameterGroup": NameLimit("name", 255, "RDS API Reference, CreateDBParameterGroup"),
    "aws:rds/subnetGroup:SubnetGroup": NameLimit("name", 255, "RDS API Reference, CreateDBSubnetGroup"),
    "aws:s3/bucket:Bucket": NameLimit("bucket", 63, "S3 User Guide, General purpose bucket naming rules"),
    "aws:secretsmanager/secret:Secret": NameLimit("name", 512, "Secrets Manager API Reference, CreateSecret"),
    "aws:sns/topic:Topic": NameLimit("name", 256, "SNS API Reference, CreateTopic"),
    "aws:sqs/queue:Queue": NameLimit("name", 80, "SQS API Reference, CreateQueue"),
}


def autonamed(stack: str, name: str) -> str:
    """Return a physical name as Pulumi makes it by the pattern in ``Pulumi.yaml``, with a fixed random part."""
    return f"{PROJECT}-{stack}-{name}-{RANDOM_PART}"


def physical(type_: str, name: str) -> str:
    """Shorten a physical name to the length that AWS allows.

    Args:
        type_: Type of the resource, a key of ``LIMITS``.
        name: The name wanted.

    Returns:
        The name itself, if it is short enough. Otherwise its beginning and a digest of all of it, so that two long
        names with the same beginning stay different.
    """
    return _shortened(name, LIMITS[type_].length)


def logical(type_: str, name: str) -> str:
    """Shorten a logical name so that the physical name that Pulumi derives from it fits in every stack.

    Args:
        type_: Type of the resource, a key of ``LIMITS``.
        name: The name wanted.

    Returns:
        The name itself, or its beginning and a digest. It does not depend on the stack.
    """
    return _shortened(name, LIMITS[type_].length - len(autonamed("x" * MAX_STACK_LENGTH, "")))


def _shortened(name: str, length: int) -> str:
    if len(name) <= length:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:DIGEST_LENGTH]
    return f"{name[: length - DIGEST_LENGTH - 1].rstrip('-')}-{digest}"
