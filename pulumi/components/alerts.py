"""Recipients of alerts by severity, and a heartbeat of each cluster's alerting.

Critical alerts reach the stack's address by e-mail, and the pager if the stack has one. Warnings reach the address, and
the ticket system if the stack has one. Alertmanager pages by itself, so the pager subscribes to CloudWatch's alarms
alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pulumi
from components.function import Function, FunctionArgs
from components.policy import allow, policy_document
from pulumi_aws import lambda_, secretsmanager, sns, sqs

if TYPE_CHECKING:
    from collections.abc import Sequence

DAYS = 24 * 60 * 60
# CloudWatch alarms, the budget, and nothing outside this account.
PUBLISHERS = ("budgets.amazonaws.com", "cloudwatch.amazonaws.com")


@dataclass(frozen=True, kw_only=True)
class AlertsArgs:
    """Arguments of the topics."""

    email: str
    pager_url: pulumi.Input[str] | None
    """Integration URL of the pager for CloudWatch's alarms."""
    colours: Sequence[str]
    """Clusters whose Alertmanager sends a heartbeat."""
    ticket_url: str | None
    key_arn: pulumi.Input[str]
    account_id: pulumi.Input[str]
    log_days: int


@dataclass(frozen=True, kw_only=True)
class Tickets:
    """The function that opens tickets, and the queue of the messages that it could not handle."""

    function_name: pulumi.Output[str]
    dead_letter_queue_name: pulumi.Output[str]


class Alerts(pulumi.ComponentResource):
    """SNS topics with their subscribers.

    Attributes:
        critical_arn: Topic of alerts that page.
        warning_arn: Topic of alerts that open a ticket.
        heartbeats: Topic to which each cluster's Alertmanager publishes while alerting works, by colour.
        notify_secret_arn: Secret with the keys and tokens of Alertmanager's receivers, one file for each of its keys.
            It exists if there are clusters.
        notify_secret_name: Name of that secret.
        ticket_token_secret: Name of the secret that the operator puts the ticket system's token into, if any.
        tickets: The function that opens tickets, if the stack has a ticket system.
    """

    critical_arn: pulumi.Output[str]
    warning_arn: pulumi.Output[str]
    heartbeats: dict[str, sns.Topic]
    notify_secret_arn: pulumi.Output[str]
    notify_secret_name: pulumi.Output[str]
    ticket_token_secret: pulumi.Output[str] | None = None
    tickets: Tickets | None = None

    def __init__(self, name: str, args: AlertsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rates:index:Alerts", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        self.critical_arn = self._topic(f"{name}-critical", args)
        self.warning_arn = self._topic(f"{name}-warning", args)
        self.heartbeats = {
            colour: sns.Topic(f"{name}-heartbeat-{colour}", kms_master_key_id=args.key_arn, opts=child)
            for colour in args.colours
        }
        if args.pager_url is not None:
            sns.TopicSubscription(
                f"{name}-pager",
                topic=self.critical_arn,
                protocol="https",
                endpoint=pulumi.Output.secret(args.pager_url),
                endpoint_auto_confirms=True,
                # Alertmanager's messages are left out: it pages by itself, and would page twice.
                filter_policy=json.dumps({"AlarmName": [{"exists": True}]}),
                filter_policy_scope="MessageBody",
                opts=child,
            )
        if args.colours:
            self._notify_secret(name, args.key_arn)
        if args.ticket_url:
            self._tickets(f"{name}-ticket", args, args.ticket_url)
        self.register_outputs({"critical_arn": self.critical_arn, "warning_arn": self.warning_arn})

    def _topic(self, name: str, args: AlertsArgs) -> pulumi.Output[str]:
        """Create a topic of CloudWatch's alarms and the budget, with the stack's address as a subscriber."""
        child = pulumi.ResourceOptions(parent=self)
        topic = sns.Topic(name, kms_master_key_id=args.key_arn, opts=child)
        sns.TopicPolicy(
            name,
            arn=topic.arn,
            policy=policy_document(
                allow(
                    ["sns:Publish"],
                    [topic.arn],
                    services=PUBLISHERS,
                    conditions={"StringEquals": {"aws:SourceAccount": args.account_id}},
                )
            ),
            opts=child,
        )
        sns.TopicSubscription(f"{name}-email", topic=topic.arn, protocol="email", endpoint=args.email, opts=child)
        return topic.arn

    def _notify_secret(self, name: str, key_arn: pulumi.Input[str]) -> None:
        """Create the secret of Alertmanager's receivers."""
        notify = secretsmanager.Secret(
            f"{name}-notify",
            kms_key_id=key_arn,
            description="Keys and tokens of Alertmanager's receivers",
            opts=pulumi.ResourceOptions(parent=self),
        )
        secretsmanager.SecretVersion(
            f"{name}-notify",
            secret_id=notify.id,
            secret_string="{}",  # noqa: S106 - none
            # The operator adds keys and tokens. They must not be in a repository.
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["secretString"]),
        )
        self.notify_secret_arn = notify.arn
        self.notify_secret_name = notify.name

    def _tickets(self, name: str, args: AlertsArgs, url: str) -> None:
        child = pulumi.ResourceOptions(parent=self)
        dead = sqs.Queue(
            f"{name}-dead", message_retention_seconds=14 * DAYS, kms_master_key_id=args.key_arn, opts=child
        )
        # The operator sets its value. A token must not be in a repository.
        token = secretsmanager.Secret(
            name, kms_key_id=args.key_arn, description="Token of the ticket system", opts=child
        )
        function = Function(
            name,
            FunctionArgs(
                folder="ticket",
                timeout=30,
                key_arn=args.key_arn,
                log_days=args.log_days,
                environment={"TICKET_URL": url, "TOKEN_SECRET": token.arn},
                statements=[
                    allow(["secretsmanager:GetSecretValue"], [token.arn]),
                    allow(["sqs:SendMessage"], [dead.arn]),
                    allow(["kms:Decrypt", "kms:GenerateDataKey"], [args.key_arn]),
                ],
            ),
            child,
        )
        lambda_.FunctionEventInvokeConfig(
            name,
            function_name=function.name,
            maximum_retry_attempts=2,
            maximum_event_age_in_seconds=6 * 60 * 60,
            destination_config={"on_failure": {"destination": dead.arn}},
            opts=child,
        )
        permission = function.permit(name, "sns.amazonaws.com", self.warning_arn, child)
        sns.TopicSubscription(
            name,
            topic=self.warning_arn,
            protocol="lambda",
            endpoint=function.arn,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[permission]),
        )
        self.ticket_token_secret = token.name
        self.tickets = Tickets(function_name=function.name, dead_letter_queue_name=dead.name)
