"""Rules of accounts: policies, quotas, metrics and lost regions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .registry import BALANCER, CHANGES, DATABASE, NODES, judged_elsewhere, rule

if TYPE_CHECKING:
    from ..account import Call


@rule(
    "policy-document",
    "IAM User Guide, JSON policy grammar: Version, Statement, Effect, Action",
    "aws:iam/role:Role",
    "aws:iam/rolePolicy:RolePolicy",
    "aws:sqs/queuePolicy:QueuePolicy",
    "aws:sns/topicPolicy:TopicPolicy",
    "aws:kms/key:Key",
    "aws:s3/bucketPolicy:BucketPolicy",
)
def _(change: Call) -> str:
    text = change.new.get("assumeRolePolicy") or change.new.get("policy") or "{}"
    try:
        statements = json.loads(text)["Statement"]
    except (ValueError, KeyError) as error:
        return f"MalformedPolicyDocument: {error}"
    for statement in statements:
        if not statement.get("Action") or statement.get("Effect") not in {"Allow", "Deny"}:
            return f"MalformedPolicyDocument: {statement}"
        resources = statement.get("Resource", ["*"])
        if not resources or any(not item for item in ([resources] if isinstance(resources, str) else resources)):
            return f"MalformedPolicyDocument: an empty resource in {statement}"
    return ""


QUOTAS = {
    "aws:ec2/vpc:Vpc": "vpcs",
    "aws:ec2/eip:Eip": "elastic addresses",
    BALANCER: "load balancers",
    DATABASE: "DB instances",
}


CORES = {"large": 2, "medium": 2, "xlarge": 4, "2xlarge": 8, "4xlarge": 16}


@rule("quota", "Service Quotas User Guide and each service's quotas page: default values of an account", verbs=CHANGES)
def _(change: Call) -> str:
    account = change.account
    if change.type == NODES:
        scaling, spot = change.new["scalingConfig"], change.new.get("capacityType") == "SPOT"
        wanted = _cores(change.new) * int(scaling["desiredSize"])
        used = sum(
            _cores(group.inputs) * int(group["scalingConfig"]["desiredSize"])
            for group in account.find(NODES, change.region)
            if group is not change.old and (group["capacityType"] == "SPOT") == spot
        )
        limit = account.quotas["spot vCPU" if spot else "on-demand vCPU"]
        return f"VcpuLimitExceeded: {used + wanted} of {limit}" if used + wanted > limit else ""
    if change.type in QUOTAS and change.verb == "create":
        name = QUOTAS[change.type]
        used = sum(1 for _ in account.find(change.type, change.region))
        return f"LimitExceeded: {name}, {used} of {account.quotas[name]}" if used >= account.quotas[name] else ""
    return ""


def _cores(inputs: dict[str, Any]) -> int:
    return CORES[inputs["instanceTypes"][0].partition(".")[2]]


# Route 53 Developer Guide, Monitoring health checks using CloudWatch: "the US East (N. Virginia) Region".
HEALTH_METRICS_REGION = "us-east-1"

DIMENSIONS = {
    ("AWS/ElastiCache", "EngineCPUUtilization"): ("CacheClusterId",),
    ("AWS/ElastiCache", "DatabaseMemoryUsagePercentage"): ("CacheClusterId",),
    ("AWS/RDS", "CPUUtilization"): ("DBInstanceIdentifier",),
    ("AWS/RDS", "FreeStorageSpace"): ("DBInstanceIdentifier",),
    ("AWS/RDS", "DatabaseConnections"): ("DBInstanceIdentifier",),
    ("AWS/RDS", "ReplicaLag"): ("DBInstanceIdentifier",),
    ("AWS/SNS", "NumberOfMessagesPublished"): ("TopicName",),
    ("AWS/SQS", "ApproximateNumberOfMessagesVisible"): ("QueueName",),
    ("AWS/SQS", "ApproximateAgeOfOldestMessage"): ("QueueName",),
    ("AWS/ApplicationELB", "TargetResponseTime"): ("LoadBalancer",),
    ("AWS/ApplicationELB", "HealthyHostCount"): ("LoadBalancer", "TargetGroup"),
    # ACM User Guide, Supported CloudWatch metrics
    ("AWS/CertificateManager", "DaysToExpiry"): ("CertificateArn",),
    # Lambda Developer Guide, Types of metrics for Lambda functions
    ("AWS/Lambda", "Errors"): ("FunctionName",),
    # Route 53 Developer Guide, Monitoring hosted zones and health checks using CloudWatch
    ("AWS/Route53", "HealthCheckStatus"): ("HealthCheckId",),
    # S3 User Guide, Metrics and dimensions: S3 Replication metrics in CloudWatch
    ("AWS/S3", "ReplicationLatency"): ("SourceBucket", "DestinationBucket", "RuleId"),
    ("AWS/S3", "OperationsFailedReplication"): ("SourceBucket", "DestinationBucket", "RuleId"),
}


@rule(
    "alarm-without-data",
    "each service's page of CloudWatch metrics and dimensions",
    "aws:cloudwatch/metricAlarm:MetricAlarm",
)
def _(change: Call) -> str:
    metric = (change.new.get("namespace"), change.new.get("metricName"))
    if not str(metric[0]).startswith("AWS/"):
        return ""
    if metric[0] == "AWS/Route53" and change.region != HEALTH_METRICS_REGION:
        return f"Route 53 publishes {metric[1]} in {HEALTH_METRICS_REGION} only, not in {change.region}"
    given = tuple(sorted(change.new.get("dimensions") or {}))
    wanted = DIMENSIONS.get(metric)  # type: ignore[arg-type]
    if wanted is None:
        return f"no dimensions are known for {metric}: add them with their source"
    return "" if given == tuple(sorted(wanted)) else f"{metric} carries no data for the dimensions {given}"


# Account.reach judges, for data sources too.
judged_elsewhere(
    "region-lost", "AWS Fault Isolation Boundaries: a Region's control and data planes fail together in the worst case"
)


# Account.invoke judges.
judged_elsewhere(
    "invoke-finds-nothing", "each service's API reference: Describe and Get calls fail about what does not exist"
)
