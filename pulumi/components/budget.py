"""The monthly budget of a stack."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_aws import budgets


@dataclass(frozen=True, kw_only=True)
class BudgetArgs:
    """Arguments of a budget."""

    stack: str
    limit_usd: int
    email: str
    topic_arn: pulumi.Input[str]


class Budget(pulumi.ComponentResource):
    """Warns when the forecast exceeds the limit, and again when the costs do."""

    def __init__(self, name: str, args: BudgetArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rates:index:Budget", name, None, opts)
        budgets.Budget(
            name,
            budget_type="COST",
            time_unit="MONTHLY",
            limit_amount=str(args.limit_usd),
            limit_unit="USD",
            cost_filters=[{"name": "TagKeyValue", "values": [f"user:stack${args.stack}"]}],
            notifications=[
                {
                    "notification_type": kind,
                    "comparison_operator": "GREATER_THAN",
                    "threshold": 100,
                    "threshold_type": "PERCENTAGE",
                    "subscriber_email_addresses": [args.email],
                    "subscriber_sns_topic_arns": [args.topic_arn],
                }
                for kind in ("FORECASTED", "ACTUAL")
            ],
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})
