"""The alarms of a region as a table: on load balancers, pods, databases, the cache and the queue."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from components.alarm import Alarm, function_errors
from components.storage import REPLICATION_MINUTES, REPLICATION_RULE

from rates_app.watch.rules import classify

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pulumi
    from components.alerts import Alerts
    from components.cache import Cache
    from components.cluster import Cluster
    from components.database import Database
    from components.events import Events
    from components.load_balancer import LoadBalancer
    from components.storage import Storage

# Kubernetes' reasons for a pod's problem. The watcher's rules have the meaning and the runbook of each.
POD_KEYWORDS = ("CrashLoopBackOff", "CreateContainerConfigError", "ErrImagePull", "ImagePullBackOff", "OOMKilled")
GIB = 2**30
DAY_MINUTES = 24 * 60

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
    follows: bool
    """Whether the region's database follows a primary in another region."""
    restorable_metric: str | None
    """Metric in the stack's namespace with the age of the database's last restorable time; None for a follower."""
    certificate_arn: pulumi.Input[str] | None
    """Certificate of the load balancers; None while the stack serves over HTTP."""
    replicated: Storage | None
    """Buckets that are copied between the stack's regions, if it has two."""
    is_source: bool
    """Whether ``replicated`` is in this region, and its copies are in the other one."""


def metric_namespace(prefix: str) -> str:
    """Return the namespace of a region's own metrics.

    Args:
        prefix: The region's prefix of names.
    """
    return f"Rates/{prefix}"


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
            namespace=metric_namespace(args.prefix),
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
            meaning="The database is far behind the other region's primary: a failover loses more than planned."
            if args.follows
            else "A replica is far behind; reads move to the others.",
            namespace=rds,
            metric="ReplicaLag",
            above=30,
            dimensions={"DBInstanceIdentifier": identifier},
            # RDS publishes no lag while a replica has no connection to a primary in another region.
            missing="breaching" if args.follows else "notBreaching",
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
        *_certificate_alarms(args),
        *_restore_alarms(args),
        *_replication_alarms(args),
        *_ticket_alarms(args),
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


def _certificate_alarms(args: MonitoringArgs) -> Iterator[Alarm]:
    """Watch the certificate. ACM renews it 45 days before its end at the latest."""
    if args.certificate_arn is not None:
        yield Alarm(
            name="certificate-expiry",
            runbook="certificate-expiry",
            meaning="The load balancers' certificate expires within 30 days and was not renewed.",
            namespace="AWS/CertificateManager",
            metric="DaysToExpiry",
            above=30,
            dimensions={"CertificateArn": args.certificate_arn},
            statistic="Minimum",
            # ACM publishes twice a day, and not at all after the certificate has expired.
            minutes=DAY_MINUTES,
            period_minutes=DAY_MINUTES,
            below=True,
            missing="ignore",
        )


def _restore_alarms(args: MonitoringArgs) -> Iterator[Alarm]:
    """Watch the time up to which the database can be restored."""
    if args.restorable_metric is not None:
        yield Alarm(
            name="restorable-time",
            runbook="restorable-time",
            meaning="The database can't be restored to a time of the last 15 minutes, or nothing checks that.",
            namespace=metric_namespace(args.prefix),
            metric=args.restorable_metric,
            above=15 * 60,
            # A missing value is a failed check.
            minutes=15,
            missing="breaching",
        )


def _replication_alarms(args: MonitoringArgs) -> Iterator[Alarm]:
    """Watch the copies of the buckets.

    S3 publishes the latency in the destination's region, and failed operations in the source's:
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/repl-metrics.html
    """
    if args.replicated is None or args.replicated.copies is None:
        return
    copies = args.replicated.copies.buckets
    for purpose, bucket in args.replicated.buckets.items():
        rule: dict[str, pulumi.Input[str]] = {
            "SourceBucket": bucket.name,
            "DestinationBucket": copies[purpose].name,
            "RuleId": REPLICATION_RULE,
        }
        if args.is_source:
            yield Alarm(
                name=f"replication-failed-{purpose}",
                runbook="replication",
                meaning=f"Files in the bucket {purpose} could not be copied to the other region.",
                namespace="AWS/S3",
                metric="OperationsFailedReplication",
                above=0,
                dimensions=rule,
                statistic="Sum",
                minutes=5,
                period_minutes=5,
            )
        else:
            yield Alarm(
                name=f"replication-late-{purpose}",
                runbook="replication",
                meaning=f"Files in the bucket {purpose} are copied late to this region.",
                namespace="AWS/S3",
                metric="ReplicationLatency",
                above=REPLICATION_MINUTES * 60,
                dimensions=rule,
                statistic="Maximum",
                minutes=5,
                period_minutes=5,
            )


def _ticket_alarms(args: MonitoringArgs) -> Iterator[Alarm]:
    """Watch the function that opens tickets. It can't report itself, so lost messages page."""
    tickets = args.alerts.tickets
    if tickets is not None:
        yield function_errors("ticket-errors", "No ticket could be opened, for now.", "tickets", tickets.function_name)
        yield Alarm(
            name="tickets-dead",
            runbook="tickets",
            meaning="Warnings have no ticket: the ticket system refused them for hours.",
            namespace="AWS/SQS",
            metric="ApproximateNumberOfMessagesVisible",
            above=0,
            dimensions={"QueueName": tickets.dead_letter_queue_name},
            minutes=1,
            severity="critical",
        )


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
