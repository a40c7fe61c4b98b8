"""A scheduled function that publishes the age of the database's last restorable time.

RDS publishes no metric of it, and none of its events reports that the upload of WAL has stopped. See
docs/decisions/0126-alarms-outside-the-clusters.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pulumi
from components.function import Function, FunctionArgs
from components.policy import allow
from pulumi_aws import cloudwatch

if TYPE_CHECKING:
    from components.database import Database

METRIC = "RestorableAgeSeconds"


@dataclass(frozen=True, kw_only=True)
class RestorableTimeArgs:
    """Arguments of :class:`RestorableTime`."""

    database: Database
    namespace: str
    """Namespace of the metric."""
    key_arn: pulumi.Input[str]
    log_days: int


class RestorableTime(pulumi.ComponentResource):
    """A function that EventBridge invokes each minute."""

    def __init__(self, name: str, args: RestorableTimeArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rates:index:RestorableTime", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        function = Function(
            name,
            FunctionArgs(
                folder="restorable",
                timeout=30,
                key_arn=args.key_arn,
                log_days=args.log_days,
                environment={"DATABASE": args.database.identifier, "NAMESPACE": args.namespace, "METRIC": METRIC},
                statements=[
                    allow(["rds:DescribeDBInstances"], [args.database.arn]),
                    # AWS ties this action to a namespace, not to a resource.
                    allow(
                        ["cloudwatch:PutMetricData"],
                        ["*"],
                        conditions={"StringEquals": {"cloudwatch:namespace": args.namespace}},
                    ),
                ],
            ),
            child,
        )
        rule = cloudwatch.EventRule(name, schedule_expression="rate(1 minute)", opts=child)
        permission = function.permit(name, "events.amazonaws.com", rule.arn, child)
        cloudwatch.EventTarget(
            name,
            rule=rule.name,
            arn=function.arn,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[permission]),
        )
        self.register_outputs({})
