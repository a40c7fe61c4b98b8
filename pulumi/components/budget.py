"""The month's budget of a stack."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_aws import budgets


@dataclass(frozen=True, kw_only=True)
class BudgetArgs:
    """What a budget needs to know."""

    stack: str
    limit_usd: int
    email: str
    topic_arn: pulumi.Input[str]


class Budget(pulumi.ComponentResource):
    """Warns when the forecast passes the limit, and again when the spending does."""

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
