"""A function outside the clusters that asks the public address questions with known answers, and its alarms.

A test batch occupies the dispatcher and adds a row to the ledger, so it comes less often than the questions. See
docs/decisions/0136-questions-with-known-answers.md.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pulumi
from components.alarm import Alarm, create_alarm
from components.function import Function, FunctionArgs
from components.policy import allow
from pulumi_aws import cloudwatch

if TYPE_CHECKING:
    from components.alerts import Alerts
    from optional_settings import ProbeSettings

METRIC = "ProbeFailed"
QUESTION_MINUTES = 1
BATCH_MINUTES = 15

SERVICE = Path(__file__).resolve().parents[2] / "rates_app"
FILES = {
    f"rates_app/{name}": SERVICE / name for name in ("__init__.py", "ops/__init__.py", "ops/check.py", "ops/probe.py")
}


@dataclass(frozen=True, kw_only=True)
class ProbeArgs:
    """Arguments of :class:`Probe`."""

    settings: ProbeSettings
    url: pulumi.Input[str]
    """Public address of the stack."""
    token_secret_arn: str | None
    """Secret with the token of the test supplier; None for questions alone."""
    namespace: str
    """Namespace of the metric."""
    alerts: Alerts
    key_arn: pulumi.Input[str]
    log_days: int


class Probe(pulumi.ComponentResource):
    """A function that EventBridge invokes each minute, and every 15 minutes for a test batch."""

    def __init__(self, name: str, args: ProbeArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rates:index:Probe", name, None, opts)
        known = args.settings
        environment: dict[str, pulumi.Input[str]] = {
            "URL": args.url,
            "KNOWN_ANSWER": json.dumps(
                {
                    "origin": known.origin,
                    "destination": known.destination,
                    "day": str(known.day),
                    "average": known.average,
                }
            ),
            "NAMESPACE": args.namespace,
            "METRIC": METRIC,
        }
        statements = [
            # AWS ties this action to a namespace, not to a resource.
            allow(
                ["cloudwatch:PutMetricData"],
                ["*"],
                conditions={"StringEquals": {"cloudwatch:namespace": args.namespace}},
            )
        ]
        if args.token_secret_arn:
            environment["TOKEN_SECRET"] = str(known.token_secret)
            statements.append(allow(["secretsmanager:GetSecretValue"], [args.token_secret_arn]))
        child = pulumi.ResourceOptions(parent=self)
        self._function = Function(
            name,
            FunctionArgs(
                folder="probe",
                # A test batch has two minutes.
                timeout=180,
                key_arn=args.key_arn,
                log_days=args.log_days,
                environment=environment,
                files=FILES,
                statements=statements,
            ),
            child,
        )
        self._schedule(f"{name}-questions", QUESTION_MINUTES, {})
        alarms = [
            _alarm(args.namespace, "page", "The page does not show a known rate.", QUESTION_MINUTES),
            _alarm(args.namespace, "api", "The API does not return a known rate.", QUESTION_MINUTES),
        ]
        if args.token_secret_arn:
            self._schedule(f"{name}-batch", BATCH_MINUTES, {"batch": True})
            alarms.append(_alarm(args.namespace, "batch", "A test batch is not processed correctly.", BATCH_MINUTES))
        for alarm in alarms:
            create_alarm(name, alarm, args.alerts, child)
        self.register_outputs({})

    def _schedule(self, name: str, minutes: int, event: dict[str, bool]) -> None:
        child = pulumi.ResourceOptions(parent=self)
        unit = "minute" if minutes == 1 else "minutes"
        rule = cloudwatch.EventRule(name, schedule_expression=f"rate({minutes} {unit})", opts=child)
        permission = self._function.permit(name, "events.amazonaws.com", rule.arn, child)
        cloudwatch.EventTarget(
            name,
            rule=rule.name,
            arn=self._function.arn,
            input=json.dumps(event),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[permission]),
        )


def _alarm(namespace: str, question: str, meaning: str, period_minutes: int) -> Alarm:
    """Return the alarm on one question: three failures in a row for page and API, two for the batch."""
    return Alarm(
        name=question,
        runbook="probe-failed",
        meaning=f"{meaning} Or nothing asks.",
        namespace=namespace,
        metric=METRIC,
        above=0,
        dimensions={"Question": question},
        minutes=3 if period_minutes == QUESTION_MINUTES else 2 * period_minutes,
        period_minutes=period_minutes,
        # Each minute's result counts: a failure is a data point, and so is a function that does not run.
        missing="breaching",
        severity="critical",
    )
