"""CloudWatch: metrics from the pods' logs, alarms, and a dashboard.

Prometheus pages on the service's objectives; these alarms page on the same ones as the load balancer sees them, for
when the cluster with its Prometheus is lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pulumi
from components.alarm import actions, create_alarm
from components.alarms import ALB, POD_KEYWORDS, alarm_table, kebab, metric_namespace
from pulumi_aws import cloudwatch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from components.alarm import Alarm
    from components.alarms import MonitoringArgs
    from components.cluster import Cluster
    from components.load_balancer import LoadBalancer


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

BURN_RATES = ((14.4, "1h", "5m"), (6, "6h", "30m"))
"""How many times too fast the budget is used up, over a long window and a short one."""


class Monitoring(pulumi.ComponentResource):
    """Metric filters, alarms that reach the topic of their severity, and a dashboard of the same metrics."""

    def __init__(self, name: str, args: MonitoringArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rates:index:Monitoring", name, None, opts)
        self._name = name
        self._args = args
        for colour, cluster in args.clusters.items():
            self._count_keywords(colour, cluster)
        table = alarm_table(args)
        child = pulumi.ResourceOptions(parent=self)
        alarms = {alarm.name: create_alarm(name, alarm, args.alerts, child) for alarm in table}
        burning = {
            objective.name: [
                self._burning(objective, colour, balancer) for colour, balancer in args.load_balancers.items()
            ]
            for objective in OBJECTIVES
        }
        empty = [alarms[f"no-pods-{colour}"] for colour in args.load_balancers]
        # A colour without pods cannot take over; if no colour has pods, the service is down.
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
        # While Prometheus and Alertmanager work, they report these with their pod.
        self._composite(
            "pods-unwatched",
            "Pods report problems, and a cluster's alerting is silent.",
            pulumi.Output.concat(
                "(",
                _any_of([alarms[f"pod-{kebab(keyword)}"] for keyword in POD_KEYWORDS]),
                ") AND (",
                _any_of([alarms[f"heartbeat-{colour}"] for colour in args.clusters]),
                ")",
            ),
            runbook="watchdog",
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
                f"{self._name}-{colour}-{kebab(keyword)}",
                log_group_name=cluster.application_log_group,
                pattern=f'"{keyword}"',
                metric_transformation={
                    "namespace": metric_namespace(self._args.prefix),
                    "name": keyword,
                    "value": "1",
                    "default_value": "0",
                },
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
            alarm_actions=actions(self._args.alerts, "critical"),
            ok_actions=actions(self._args.alerts, "critical"),
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


def _widgets(table: list[Alarm], load_balancers: Mapping[str, LoadBalancer], region: str) -> list[dict[str, object]]:
    """One graph per objective and per alarm, with its threshold; three graphs per row."""
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
            "period": 60 * alarm.period_minutes,
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
