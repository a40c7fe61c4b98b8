"""CloudWatch: what is counted in the pods' logs, the alarms, and one dashboard."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pulumi
from pulumi_aws import cloudwatch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.cache import Cache
    from components.cluster import Cluster
    from components.database import Database
    from components.events import Events
    from components.load_balancer import LoadBalancer

POD_KEYWORDS = ("CrashLoopBackOff", "ImagePullBackOff", "ErrImagePull", "OOMKilled", "CreateContainerConfigError")
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class MonitoringArgs:
    """What the alarms need to know."""

    prefix: str
    """What the dashboard and the composite alarms are called by."""
    region: str
    topic_arn: pulumi.Input[str]
    clusters: Mapping[str, Cluster]
    load_balancers: Mapping[str, LoadBalancer]
    database: Database
    storage_gib: int
    cache: Cache
    events: Events


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """One rule: when which metric is beyond what, for how long, and what that means to a person."""

    name: str
    meaning: str
    namespace: str
    metric: str
    above: float
    dimensions: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)
    statistic: str = "Maximum"
    minutes: int = 5
    below: bool = False
    missing: str = "notBreaching"


class Monitoring(pulumi.ComponentResource):
    """Metric filters, alarms that reach the topic, and a dashboard of the same metrics."""

    def __init__(self, name: str, args: MonitoringArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rates:index:Monitoring", name, None, opts)
        self._name = name
        self._args = args
        for colour, cluster in args.clusters.items():
            self._count_keywords(colour, cluster)
        table = _alarms(args)
        alarms = {alarm.name: self._alarm(alarm) for alarm in table}
        self._composite(
            "service-down",
            "Customers get errors or no answer: the runbook of service-down comes before any other.",
            [alarms[f"{kind}-{colour}"] for kind in ("errors", "no-pods") for colour in args.load_balancers],
        )
        self._composite(
            "batches-stuck",
            "Delivered batches are not being published.",
            [alarms["messages-dead"], alarms["messages-old"]],
        )
        cloudwatch.Dashboard(
            name,
            dashboard_name=args.prefix,
            dashboard_body=pulumi.Output.json_dumps({"widgets": _widgets(table, args.region)}),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})

    def _count_keywords(self, colour: str, cluster: Cluster) -> None:
        """Count every keyword in the output of a cluster's pods; the pod watcher is one of them."""
        for keyword in POD_KEYWORDS:
            cloudwatch.LogMetricFilter(
                f"{self._name}-{colour}-{_kebab(keyword)}",
                log_group_name=cluster.application_log_group,
                pattern=f'"{keyword}"',
                metric_transformation={
                    "namespace": _namespace(self._args),
                    "name": keyword,
                    "value": "1",
                    "default_value": "0",
                },
                opts=pulumi.ResourceOptions(parent=self),
            )

    def _alarm(self, alarm: Alarm) -> cloudwatch.MetricAlarm:
        percentile = alarm.statistic.startswith("p")
        runbook = alarm.name.removesuffix("-blue").removesuffix("-green")
        return cloudwatch.MetricAlarm(
            f"{self._name}-{alarm.name}",
            alarm_description=f"{alarm.meaning} Runbook: runbooks/{runbook}.md",
            namespace=alarm.namespace,
            metric_name=alarm.metric,
            dimensions=dict(alarm.dimensions),
            statistic=None if percentile else alarm.statistic,
            extended_statistic=alarm.statistic if percentile else None,
            period=60,
            evaluation_periods=alarm.minutes,
            threshold=alarm.above,
            comparison_operator="LessThanThreshold" if alarm.below else "GreaterThanThreshold",
            treat_missing_data=alarm.missing,
            alarm_actions=[self._args.topic_arn],
            ok_actions=[self._args.topic_arn],
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _composite(self, name: str, meaning: str, alarms: list[cloudwatch.MetricAlarm]) -> None:
        cloudwatch.CompositeAlarm(
            f"{self._name}-{name}",
            alarm_name=f"{self._args.prefix}-{name}",
            alarm_description=f"{meaning} Runbook: runbooks/{name}.md",
            alarm_rule=pulumi.Output.all(*(alarm.name for alarm in alarms)).apply(
                lambda names: " OR ".join(f'ALARM("{alarm}")' for alarm in names)
            ),
            alarm_actions=[self._args.topic_arn],
            ok_actions=[self._args.topic_arn],
            opts=pulumi.ResourceOptions(parent=self),
        )


def _namespace(args: MonitoringArgs) -> str:
    """The namespace of the metrics that are counted in logs."""
    return f"Rates/{args.prefix}"


def _alarms(args: MonitoringArgs) -> list[Alarm]:
    """The table of alarms."""
    balancers = [
        alarm for colour, balancer in args.load_balancers.items() for alarm in _balancer_alarms(colour, balancer)
    ]
    pods = [
        Alarm(
            name=f"pod-{_kebab(keyword)}",
            meaning=f"A pod reports {keyword}.",
            namespace=_namespace(args),
            metric=keyword,
            above=0,
            statistic="Sum",
            minutes=1,
        )
        for keyword in POD_KEYWORDS
    ]
    primary = {"DBInstanceIdentifier": args.database.identifier}
    rds = "AWS/RDS"
    database = [
        Alarm(
            name="database-cpu",
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
            meaning="Less than a tenth of the primary's first disk size is free.",
            namespace=rds,
            metric="FreeStorageSpace",
            above=args.storage_gib * GIB / 10,
            dimensions=primary,
            statistic="Minimum",
            below=True,
        ),
        Alarm(
            name="database-connections",
            meaning="The primary has unusually many connections.",
            namespace=rds,
            metric="DatabaseConnections",
            above=400,
            dimensions=primary,
        ),
    ] + [
        Alarm(
            name=f"replica-lag-{number}",
            meaning="A replica is far behind; reads move to the others.",
            namespace=rds,
            metric="ReplicaLag",
            above=30,
            dimensions={"DBInstanceIdentifier": identifier},
        )
        for number, identifier in enumerate(args.database.replica_identifiers, start=1)
    ]
    group = {"ReplicationGroupId": args.cache.group_id}
    queue = {"QueueName": args.events.queue_name}
    return [
        *balancers,
        *pods,
        *database,
        Alarm(
            name="cache-cpu",
            meaning="The cache's engine is busy; answers get slower.",
            namespace="AWS/ElastiCache",
            metric="EngineCPUUtilization",
            above=80,
            dimensions=group,
            minutes=10,
        ),
        Alarm(
            name="cache-memory",
            meaning="The cache is full and drops what it should keep.",
            namespace="AWS/ElastiCache",
            metric="DatabaseMemoryUsagePercentage",
            above=90,
            dimensions=group,
            minutes=15,
        ),
        Alarm(
            name="messages-dead",
            meaning="A delivered file failed five times and waits in the dead-letter queue.",
            namespace="AWS/SQS",
            metric="ApproximateNumberOfMessagesVisible",
            above=0,
            dimensions={"QueueName": args.events.dead_letter_queue_name},
            minutes=1,
        ),
        Alarm(
            name="messages-old",
            meaning="A delivered file has waited for half an hour.",
            namespace="AWS/SQS",
            metric="ApproximateAgeOfOldestMessage",
            above=1800,
            dimensions=queue,
        ),
    ]


def _balancer_alarms(colour: str, balancer: LoadBalancer) -> list[Alarm]:
    """What can be seen of a colour from its load balancer."""
    one = {"LoadBalancer": balancer.arn_suffix}
    both = {**one, "TargetGroup": balancer.target_group_suffix}
    alb = "AWS/ApplicationELB"
    return [
        Alarm(
            name=f"errors-{colour}",
            meaning=f"The {colour} pods answer with server errors.",
            namespace=alb,
            metric="HTTPCode_Target_5XX_Count",
            above=20,
            dimensions=one,
            statistic="Sum",
            minutes=3,
        ),
        Alarm(
            name=f"latency-{colour}",
            meaning=f"One in twenty answers of {colour} takes over half a second.",
            namespace=alb,
            metric="TargetResponseTime",
            above=0.5,
            dimensions=one,
            statistic="p95",
        ),
        Alarm(
            name=f"no-pods-{colour}",
            meaning=f"No healthy {colour} pod is registered.",
            namespace=alb,
            metric="HealthyHostCount",
            above=1,
            dimensions=both,
            statistic="Maximum",
            minutes=2,
            below=True,
            missing="breaching",
        ),
    ]


def _widgets(table: list[Alarm], region: str) -> list[dict[str, object]]:
    """One graph an alarm, with the line that it alarms at, three in a row."""
    return [
        {
            "type": "metric",
            "x": number % 3 * 8,
            "y": number // 3 * 6,
            "width": 8,
            "height": 6,
            "properties": {
                "title": alarm.name,
                "region": region,
                "stat": alarm.statistic,
                "period": 60,
                "metrics": [
                    [alarm.namespace, alarm.metric, *(part for pair in alarm.dimensions.items() for part in pair)]
                ],
                "annotations": {"horizontal": [{"label": "alarm", "value": alarm.above}]},
            },
        }
        for number, alarm in enumerate(table)
    ]


def _kebab(name: str) -> str:
    """``CrashLoopBackOff`` as ``crash-loop-back-off``, ``OOMKilled`` as ``oom-killed``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).lower()
