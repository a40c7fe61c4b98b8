"""The key that encrypts all data at rest in a region."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from components.policy import allow, policy_document
from pulumi_aws import kms

# Services that encrypt on their own behalf, to deliver something to an encrypted queue, topic or bucket.
DELIVERING = ("budgets.amazonaws.com", "cloudwatch.amazonaws.com", "s3.amazonaws.com", "sns.amazonaws.com")


@dataclass(frozen=True, kw_only=True)
class EncryptionArgs:
    """Arguments of a key."""

    region: str
    account_id: str
    protect: bool
    keep: bool
    """Keep the key when the stack is destroyed, because the remaining snapshots are unreadable without it."""


class Encryption(pulumi.ComponentResource):
    """A customer managed key that AWS rotates each year.

    Attributes:
        key_arn: The key's ARN.
        account_id: The account that the stack lives in.
    """

    key_arn: pulumi.Output[str]
    account_id: str

    def __init__(self, name: str, args: EncryptionArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rates:index:Encryption", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        self.account_id = args.account_id
        root = f"arn:aws:iam::{self.account_id}:root"
        key = kms.Key(
            name,
            description=f"Encrypts what {name} keeps",
            enable_key_rotation=True,
            deletion_window_in_days=30,
            policy=policy_document(
                # A key's own policy names no other resource than the key, and leaves the rest to IAM.
                {"Effect": "Allow", "Principal": {"AWS": root}, "Action": "kms:*", "Resource": "*"},
                allow(
                    ["kms:Decrypt", "kms:GenerateDataKey"],
                    ["*"],
                    services=DELIVERING,
                    conditions={"StringEquals": {"aws:SourceAccount": self.account_id}},
                ),
                allow(
                    [
                        "kms:Decrypt",
                        "kms:DescribeKey",
                        "kms:Encrypt",
                        "kms:GenerateDataKey",
                        "kms:ReEncryptFrom",
                        "kms:ReEncryptTo",
                    ],
                    ["*"],
                    services=[f"logs.{args.region}.amazonaws.com"],
                    conditions={
                        "ArnLike": {
                            "kms:EncryptionContext:aws:logs:arn": (
                                f"arn:aws:logs:{args.region}:{self.account_id}:log-group:*"
                            )
                        }
                    },
                ),
            ),
            opts=pulumi.ResourceOptions(parent=self, protect=args.protect, retain_on_delete=args.keep),
        )
        kms.Alias(name, target_key_id=key.key_id, opts=child)
        self.key_arn = key.arn
        self.register_outputs({"key_arn": self.key_arn})
