"""The alarms of a region as a table: on load balancers, pods, databases, the cache and the queue."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from rates_app.watch.rules import classify

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pulumi
    from components.alerts import Alerts
    from components.cache import Cache
    from components.cluster import Cluster
    from components.database import Database
    from components.events import Events
    from components.load_balancer import LoadBalancer

# Kubernetes' reasons for a pod's problem. The watcher's rules have the meaning and the runbook of each.
POD_KEYWORDS = ("CrashLoopBackOff", "CreateContainerConfigError", "ErrImagePull", "ImagePullBackOff", "OOMKilled")
GIB = 2**30

AlarmSeverity = Literal["critical", "warning", "none"]

ALB = "AWS/ApplicationELB"


@dataclass(frozen=True, kw_only=True)
class MonitoringArgs:
    """Arguments of the alarms."""

    prefix: str
    """Name of the dashboard, and prefix of the composite alarms."""
    region: str
    alerts: Alerts
    clusters: Mapping[str, Cluster]
    load_balancers: Mapping[str, LoadBalancer]
    database: Database
    storage_gib: int
    cache: Cache
    events: Events


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """One alarm: its metric, threshold and duration, and the meaning for the operator."""

    name: str
    meaning: str
    runbook: str
    """Page under ``runbooks/``."""
    namespace: str
    metric: str
    above: float
    dimensions: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)
    statistic: str = "Maximum"
    minutes: int = 5
    below: bool = False
    missing: str = "notBreaching"
    severity: AlarmSeverity = "warning"
    """Whether it pages, opens a ticket, or is only part of a composite alarm."""


def metric_namespace(args: MonitoringArgs) -> str:
    """Return the namespace of the metrics that are counted in logs."""
    return f"Rates/{args.prefix}"


def alarm_table(args: MonitoringArgs) -> list[Alarm]:
    """Return the table of alarms."""
    balancers = [
        alarm for colour, balancer in args.load_balancers.items() for alarm in _balancer_alarms(colour, balancer)
    ]
    pods = [
        Alarm(
            name=f"pod-{kebab(keyword)}",
            runbook=_runbook(keyword),
            meaning=f"A pod reports {keyword}.",
            namespace=metric_namespace(args),
            metric=keyword,
            above=0,
            statistic="Sum",
            minutes=1,
            severity="none",
        )
        for keyword in POD_KEYWORDS
    ]
    heartbeats = [
        Alarm(
            name=f"heartbeat-{colour}",
            runbook="watchdog",
            meaning=f"Prometheus or Alertmanager of {colour} is silent: its alerts would not be delivered.",
            namespace="AWS/SNS",
            metric="NumberOfMessagesPublished",
            above=1,
            dimensions={"TopicName": topic.name},
            statistic="Sum",
            minutes=15,
            below=True,
            missing="breaching",
            severity="critical",
        )
        for colour, topic in args.alerts.heartbeats.items()
    ]
    primary = {"DBInstanceIdentifier": args.database.identifier}
    rds = "AWS/RDS"
    database = [
        Alarm(
            name="database-cpu",
            runbook="high-latency",
            meaning="The primary's processor is busy.",
            namespace=rds,
            metric="CPUUtilization",
            above=85,
            dimensions=primary,
            statistic="Average",
            minutes=15,
        ),
        Alarm(
            name="database-storage",
            runbook="disk-full",
            meaning="Less than a tenth of the primary's first disk size is free.",
            namespace=rds,
            metric="FreeStorageSpace",
            above=args.storage_gib * GIB / 10,
            dimensions=primary,
            statistic="Minimum",
            below=True,
            severity="critical",
        ),
        Alarm(
            name="database-connections",
            runbook="pool-exhausted",
            meaning="The primary has unusually many connections.",
            namespace=rds,
            metric="DatabaseConnections",
            above=400,
            dimensions=primary,
        ),
    ] + [
        Alarm(
            name=f"replica-lag-{number}",
            runbook="replica-lag",
            meaning="A replica is far behind; reads move to the others.",
            namespace=rds,
            metric="ReplicaLag",
            above=30,
            dimensions={"DBInstanceIdentifier": identifier},
        )
        for number, identifier in enumerate(args.database.replica_identifiers, start=1)
    ]
    cache = [
        alarm for number, member in enumerate(args.cache.member_ids, start=1) for alarm in _cache_alarms(number, member)
    ]
    queue = {"QueueName": args.events.queue_name}
    return [
        *balancers,
        *pods,
        *heartbeats,
        *database,
        *cache,
        Alarm(
            name="messages-dead",
            runbook="dead-letter-queue",
            meaning="A message about a delivered file was received too often and is in the dead-letter queue.",
            namespace="AWS/SQS",
            metric="ApproximateNumberOfMessagesVisible",
            above=0,
            dimensions={"QueueName": args.events.dead_letter_queue_name},
            minutes=1,
        ),
        Alarm(
            name="messages-old",
            runbook="dispatcher-down",
            meaning="A delivered file has waited for half an hour.",
            namespace="AWS/SQS",
            metric="ApproximateAgeOfOldestMessage",
            above=1800,
            dimensions=queue,
        ),
    ]


def _cache_alarms(number: int, member: pulumi.Output[str]) -> list[Alarm]:
    """Watch one node of the cache: ElastiCache publishes these metrics by node, and none by replication group."""
    node = {"CacheClusterId": member}
    return [
        Alarm(
            name=f"cache-cpu-{number}",
            runbook="cache-down",
            meaning="The engine of a cache node is busy; responses get slower.",
            namespace="AWS/ElastiCache",
            metric="EngineCPUUtilization",
            above=80,
            dimensions=node,
            minutes=10,
        ),
        Alarm(
            name=f"cache-memory-{number}",
            runbook="cache-hit-rate-low",
            meaning="A cache node is full and evicts entries that are still in use.",
            namespace="AWS/ElastiCache",
            metric="DatabaseMemoryUsagePercentage",
            above=90,
            dimensions=node,
            minutes=15,
        ),
    ]


def _balancer_alarms(colour: str, balancer: LoadBalancer) -> list[Alarm]:
    """Return the alarms of a colour's load balancer."""
    one = {"LoadBalancer": balancer.arn_suffix}
    both = {**one, "TargetGroup": balancer.target_group_suffix}
    return [
        Alarm(
            name=f"latency-{colour}",
            runbook="high-latency",
            meaning=f"One in twenty answers of {colour} takes over half a second.",
            namespace=ALB,
            metric="TargetResponseTime",
            above=0.5,
            dimensions=one,
            statistic="p95",
            minutes=10,
        ),
        Alarm(
            name=f"no-pods-{colour}",
            runbook="service-down",
            meaning=f"No healthy {colour} pod is registered.",
            namespace=ALB,
            metric="HealthyHostCount",
            above=1,
            dimensions=both,
            statistic="Maximum",
            minutes=2,
            below=True,
            missing="breaching",
        ),
    ]


def _runbook(keyword: str) -> str:
    """The page for a keyword, by the rules that the watcher goes by."""
    rule = classify(keyword)
    if rule is None:
        raise ValueError(f"{keyword} is in no rule of rates_app/watch/rules.py: add it there first")
    return rule.runbook


def kebab(name: str) -> str:
    """``CrashLoopBackOff`` as ``crash-loop-back-off``, ``OOMKilled`` as ``oom-killed``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).lower()
