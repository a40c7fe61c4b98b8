"""One CloudWatch alarm, which notifies the topic of its severity and names its runbook."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pulumi_aws import cloudwatch

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pulumi
    from components.alerts import Alerts

AlarmSeverity = Literal["critical", "warning", "none"]


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
    period_minutes: int = 1
    """How often the metric has a value."""
    below: bool = False
    missing: str = "notBreaching"
    severity: AlarmSeverity = "warning"
    """Whether it pages, opens a ticket, or is only part of a composite alarm."""


def function_errors(name: str, meaning: str, runbook: str, function_name: pulumi.Input[str]) -> Alarm:
    """Return the alarm on failed invocations of a function.

    Args:
        name: The alarm's name.
        meaning: What a failure means for the operator.
        runbook: Page under ``runbooks/``.
        function_name: The function.

    Returns:
        An alarm that begins with one failure in five minutes.
    """
    return Alarm(
        name=name,
        meaning=meaning,
        runbook=runbook,
        namespace="AWS/Lambda",
        metric="Errors",
        above=0,
        dimensions={"FunctionName": function_name},
        statistic="Sum",
        minutes=5,
        period_minutes=5,
    )


def actions(alerts: Alerts, severity: AlarmSeverity) -> list[pulumi.Output[str]]:
    """Return the topics that an alarm notifies.

    Args:
        alerts: The topics of the alarm's region.
        severity: The alarm's severity.

    Returns:
        The topic of the severity, or none.
    """
    return {"critical": [alerts.critical_arn], "warning": [alerts.warning_arn], "none": []}[severity]


def create_alarm(prefix: str, alarm: Alarm, alerts: Alerts, opts: pulumi.ResourceOptions) -> cloudwatch.MetricAlarm:
    """Create an alarm.

    Args:
        prefix: Beginning of the resource's name.
        alarm: The alarm.
        alerts: Topics in the alarm's region.
        opts: Options of the resource.

    Returns:
        The alarm's resource.
    """
    percentile = alarm.statistic.startswith("p")
    return cloudwatch.MetricAlarm(
        f"{prefix}-{alarm.name}",
        alarm_description=f"{alarm.meaning} Runbook: runbooks/{alarm.runbook}.md",
        namespace=alarm.namespace,
        metric_name=alarm.metric,
        dimensions=dict(alarm.dimensions),
        statistic=None if percentile else alarm.statistic,
        extended_statistic=alarm.statistic if percentile else None,
        period=60 * alarm.period_minutes,
        evaluation_periods=alarm.minutes // alarm.period_minutes,
        threshold=alarm.above,
        comparison_operator="LessThanThreshold" if alarm.below else "GreaterThanThreshold",
        treat_missing_data=alarm.missing,
        alarm_actions=actions(alerts, alarm.severity),
        ok_actions=actions(alerts, alarm.severity),
        opts=opts,
    )
