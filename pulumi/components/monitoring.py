"""CloudWatch: metrics from the pods' logs, alarms, and a dashboard.

Prometheus pages on the service's objectives; these alarms page on the same ones as the load balancer sees them, for
when the cluster with its Prometheus is lost.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pulumi
from pulumi_aws import cloudwatch

from rates_app.watch.rules import classify

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from components.cache import Cache
    from components.cluster import Cluster
    from components.database import Database
    from components.events import Events
    from components.load_balancer import LoadBalancer

# Kubernetes' reasons for a pod's problem. The watcher's rules have the meaning and the runbook of each.
POD_KEYWORDS = ("CrashLoopBackOff", "CreateContainerConfigError", "ErrImagePull", "ImagePullBackOff", "OOMKilled")
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A share of requests that may be bad, and how a load balancer counts them.

    The numbers are those of ``helm/monitoring/rules/service.yaml``, which Prometheus pages by; a test compares them.
    """

    name: str
    meaning: str
    runbook: str
    budget: float
    """Share of the requests that may be bad over 30 days."""
    ratio: str
    """Bad requests as a share of all, in CloudWatch's metric math over ``metrics``."""
    metrics: Mapping[str, tuple[str, str]]
    """Metrics of the load balancer by their ids in ``ratio``, each with its statistic."""


OBJECTIVES = (
    Objective(
        name="errors",
        meaning="pods answer with server errors, or not at all.",
        runbook="high-error-rate",
        budget=0.001,
        # Responses that the load balancer sends itself, because it has no pod, do not count as requests.
        ratio="(FILL(pods, 0) + FILL(balancer, 0)) / (FILL(requests, 0) + FILL(balancer, 0))",
        metrics={
            "pods": ("HTTPCode_Target_5XX_Count", "Sum"),
            "balancer": ("HTTPCode_ELB_5XX_Count", "Sum"),
            "requests": ("RequestCount", "Sum"),
        },
    ),
    Objective(
        name="slow",
        meaning="pods take more than 250 ms too often.",
        runbook="latency-budget-burn",
        budget=0.01,
        ratio="1 - fast / 100",
        metrics={"fast": ("TargetResponseTime", "PR(:0.25)")},
    ),
)

ALB = "AWS/ApplicationELB"

BURN_RATES = ((14.4, "1h", "5m"), (6, "6h", "30m"))
"""How many times too fast the budget is used up, over a long window and a short one."""


@dataclass(frozen=True, kw_only=True)
class MonitoringArgs:
    """Arguments of the alarms."""

    prefix: str
    """Name of the dashboard, and prefix of the composite alarms."""
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
        burning = {
            objective.name: [
                self._burning(objective, colour, balancer) for colour, balancer in args.load_balancers.items()
            ]
            for objective in OBJECTIVES
        }
        empty = [alarms[f"no-pods-{colour}"] for colour in args.load_balancers]
        # One colour without pods is a colour that cannot take over; all without are an outage.
        self._composite(
            "service-down",
            "Customers get errors or no answer.",
            pulumi.Output.concat(_any_of(burning["errors"]), " OR (", _all_of(empty), ")"),
        )
        self._composite(
            "batch-stuck",
            "Delivered batches are not being published.",
            _any_of([alarms["messages-dead"], alarms["messages-old"]]),
        )
        cloudwatch.Dashboard(
            name,
            dashboard_name=args.prefix,
            dashboard_body=pulumi.Output.json_dumps({"widgets": _widgets(table, args.load_balancers, args.region)}),
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
        return cloudwatch.MetricAlarm(
            f"{self._name}-{alarm.name}",
            alarm_description=f"{alarm.meaning} Runbook: runbooks/{alarm.runbook}.md",
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

    def _burning(self, objective: Objective, colour: str, balancer: LoadBalancer) -> cloudwatch.CompositeAlarm:
        """Alarm when an objective's budget is used up too fast over both windows of a pair."""
        pairs = [
            _all_of([self._burn_rate(objective, colour, balancer, rate, window) for window in windows])
            for rate, *windows in BURN_RATES
        ]
        return self._composite(
            f"{objective.name}-{colour}",
            f"The {colour} {objective.meaning}",
            pulumi.Output.concat("(", pairs[0], ") OR (", pairs[1], ")"),
            runbook=objective.runbook,
        )

    def _burn_rate(
        self, objective: Objective, colour: str, balancer: LoadBalancer, rate: float, window: str
    ) -> cloudwatch.MetricAlarm:
        """Create the alarm of one window, without actions, because the composite of two windows notifies."""
        measured: list[cloudwatch.MetricAlarmMetricQueryArgsDict] = [
            {
                "id": name,
                "metric": {
                    "namespace": ALB,
                    "metric_name": metric,
                    "dimensions": {"LoadBalancer": balancer.arn_suffix},
                    "stat": statistic,
                    "period": _seconds(window),
                },
            }
            for name, (metric, statistic) in objective.metrics.items()
        ]
        return cloudwatch.MetricAlarm(
            f"{self._name}-{objective.name}-{colour}-{window}",
            alarm_description=f"Part of {objective.name}-{colour}. Runbook: runbooks/{objective.runbook}.md",
            metric_queries=[
                *measured,
                {"id": "ratio", "expression": objective.ratio, "label": objective.name, "return_data": True},
            ],
            evaluation_periods=1,
            threshold=rate * objective.budget,
            comparison_operator="GreaterThanThreshold",
            treat_missing_data="notBreaching",
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _composite(
        self, name: str, meaning: str, rule: pulumi.Output[str], *, runbook: str | None = None
    ) -> cloudwatch.CompositeAlarm:
        return cloudwatch.CompositeAlarm(
            f"{self._name}-{name}",
            alarm_name=f"{self._args.prefix}-{name}",
            alarm_description=f"{meaning} Runbook: runbooks/{runbook or name}.md",
            alarm_rule=rule,
            alarm_actions=[self._args.topic_arn],
            ok_actions=[self._args.topic_arn],
            opts=pulumi.ResourceOptions(parent=self),
        )


def _any_of(
    alarms: Sequence[cloudwatch.MetricAlarm | cloudwatch.CompositeAlarm], joint: str = " OR "
) -> pulumi.Output[str]:
    """A composite alarm's rule: one of these."""
    names = (alarm.name if isinstance(alarm, cloudwatch.MetricAlarm) else alarm.alarm_name for alarm in alarms)
    return pulumi.Output.all(*names).apply(lambda names: joint.join(f'ALARM("{name}")' for name in names))


def _seconds(window: str) -> int:
    """A window as Prometheus writes it, in seconds: ``5m``, ``6h``."""
    return int(window[:-1]) * {"m": 60, "h": 3600}[window[-1]]


def _all_of(alarms: Sequence[cloudwatch.MetricAlarm]) -> pulumi.Output[str]:
    """A composite alarm's rule: each of these."""
    return _any_of(alarms, " AND ")


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
            runbook=_runbook(keyword),
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
    """Metrics of a colour from its load balancer."""
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


def _widgets(table: list[Alarm], load_balancers: Mapping[str, LoadBalancer], region: str) -> list[dict[str, object]]:
    """One graph an objective and an alarm, with the line that matters in it, three in a row."""
    graphs: list[dict[str, object]] = [
        {
            "title": f"{objective.name}-{colour}",
            "period": 300,
            "metrics": [
                *(
                    [
                        ALB,
                        metric,
                        "LoadBalancer",
                        balancer.arn_suffix,
                        {"id": name, "stat": statistic, "visible": False},
                    ]
                    for name, (metric, statistic) in objective.metrics.items()
                ),
                [{"id": "ratio", "expression": objective.ratio, "label": objective.name}],
            ],
            "annotations": {"horizontal": [{"label": "budget", "value": objective.budget}]},
        }
        for objective in OBJECTIVES
        for colour, balancer in load_balancers.items()
    ]
    graphs += [
        {
            "title": alarm.name,
            "stat": alarm.statistic,
            "period": 60,
            "metrics": [[alarm.namespace, alarm.metric, *(part for pair in alarm.dimensions.items() for part in pair)]],
            "annotations": {"horizontal": [{"label": "alarm", "value": alarm.above}]},
        }
        for alarm in table
    ]
    return [
        {
            "type": "metric",
            "x": number % 3 * 8,
            "y": number // 3 * 6,
            "width": 8,
            "height": 6,
            "properties": {**graph, "region": region},
        }
        for number, graph in enumerate(graphs)
    ]


def _runbook(keyword: str) -> str:
    """The page for a keyword, by the rules that the watcher goes by."""
    rule = classify(keyword)
    if rule is None:
        raise ValueError(f"{keyword} is in no rule of rates_app/watch/rules.py: add it there first")
    return rule.runbook


def _kebab(name: str) -> str:
    """``CrashLoopBackOff`` as ``crash-loop-back-off``, ``OOMKilled`` as ``oom-killed``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).lower()
