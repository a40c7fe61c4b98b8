"""Logs of every connection that the network accepted or refused."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from components.policy import allow, policy_document, trust
from pulumi_aws import cloudwatch, ec2, iam


@dataclass(frozen=True, kw_only=True)
class FlowLogsArgs:
    """Arguments of flow logs."""

    vpc_id: pulumi.Input[str]
    key_arn: pulumi.Input[str]
    log_days: int


class FlowLogs(pulumi.ComponentResource):
    """Flow logs of a VPC in a separate log group."""

    def __init__(self, name: str, args: FlowLogsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rates:index:FlowLogs", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        group = cloudwatch.LogGroup(name, retention_in_days=args.log_days, kms_key_id=args.key_arn, opts=child)
        role = iam.Role(name, assume_role_policy=trust("vpc-flow-logs.amazonaws.com"), opts=child)
        iam.RolePolicy(
            name,
            role=role.name,
            policy=policy_document(
                allow(
                    ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
                    [group.arn, pulumi.Output.concat(group.arn, ":*")],
                )
            ),
            opts=child,
        )
        ec2.FlowLog(
            name,
            vpc_id=args.vpc_id,
            traffic_type="ALL",
            log_destination=group.arn,
            iam_role_arn=role.arn,
            opts=child,
        )
        self.register_outputs({})
