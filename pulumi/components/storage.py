"""The buckets that batches pass through: incoming, then processed or rejected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pulumi
from components.policy import allow, policy_document, trust
from pulumi_aws import iam, s3

if TYPE_CHECKING:
    from collections.abc import Mapping

BUCKETS = ("incoming", "processed", "rejected")
REPLICATION_RULE = "everything"
# The bound that S3 answers for, and the RPO of a batch's file.
REPLICATION_MINUTES = 15


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """One bucket's name and ARN."""

    name: pulumi.Output[str]
    arn: pulumi.Output[str]


@dataclass(frozen=True, kw_only=True)
class StorageArgs:
    """Arguments of the buckets."""

    key_arn: pulumi.Input[str]
    protect: bool
    copies: Storage | None = None
    """Buckets in another region that keep a copy of everything."""


class Storage(pulumi.ComponentResource):
    """Private, encrypted, versioned buckets; nothing that was delivered is ever deleted.

    Attributes:
        buckets: The buckets by purpose.
        key_arn: The key they are encrypted with.
        copies: The buckets that keep a copy of everything, if any.
    """

    buckets: Mapping[str, Bucket]
    key_arn: pulumi.Input[str]
    copies: Storage | None

    def __init__(self, name: str, args: StorageArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rates:index:Storage", name, None, opts)
        self.key_arn = args.key_arn
        self.copies = args.copies
        versionings = {}
        buckets = {}
        for purpose in BUCKETS:
            buckets[purpose], versionings[purpose] = self._bucket(f"{name}-{purpose}", args)
        self.buckets = buckets
        if args.copies:
            self._replicate(name, args.copies, versionings)
        self.register_outputs({"buckets": {purpose: bucket.name for purpose, bucket in buckets.items()}})

    def _bucket(self, name: str, args: StorageArgs) -> tuple[Bucket, s3.BucketVersioning]:
        child = pulumi.ResourceOptions(parent=self)
        bucket = s3.Bucket(
            name,
            # A developer's copy goes with its files; a protected stack's buckets have to be emptied by hand.
            force_destroy=not args.protect,
            opts=pulumi.ResourceOptions(parent=self, protect=args.protect),
        )
        versioning = s3.BucketVersioning(
            name, bucket=bucket.id, versioning_configuration={"status": "Enabled"}, opts=child
        )
        s3.BucketPublicAccessBlock(
            name,
            bucket=bucket.id,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=child,
        )
        s3.BucketServerSideEncryptionConfiguration(
            name,
            bucket=bucket.id,
            rules=[
                {
                    "apply_server_side_encryption_by_default": {
                        "sse_algorithm": "aws:kms",
                        "kms_master_key_id": args.key_arn,
                    },
                    "bucket_key_enabled": True,
                }
            ],
            opts=child,
        )
        s3.BucketLifecycleConfiguration(
            name,
            bucket=bucket.id,
            rules=[
                {
                    "id": "cheaper-with-age",
                    "status": "Enabled",
                    "filter": {"prefix": ""},
                    "transitions": [
                        {"days": 30, "storage_class": "STANDARD_IA"},
                        {"days": 90, "storage_class": "GLACIER_IR"},
                    ],
                    "noncurrent_version_expiration": {"noncurrent_days": 365},
                    "abort_incomplete_multipart_upload": {"days_after_initiation": 7},
                }
            ],
            opts=pulumi.ResourceOptions(parent=self, depends_on=[versioning]),
        )
        s3.BucketPolicy(
            name,
            bucket=bucket.id,
            policy=policy_document(
                {
                    "Effect": "Deny",
                    "Principal": "*",
                    "Action": "s3:*",
                    "Resource": [bucket.arn, pulumi.Output.concat(bucket.arn, "/*")],
                    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
                }
            ),
            opts=child,
        )
        return Bucket(name=bucket.id, arn=bucket.arn), versioning

    def _replicate(self, name: str, copies: Storage, versionings: Mapping[str, s3.BucketVersioning]) -> None:
        child = pulumi.ResourceOptions(parent=self)
        role = iam.Role(f"{name}-replication", assume_role_policy=trust("s3.amazonaws.com"), opts=child)
        iam.RolePolicy(
            f"{name}-replication",
            role=role.name,
            policy=policy_document(
                allow(
                    ["s3:GetReplicationConfiguration", "s3:ListBucket"],
                    [bucket.arn for bucket in self.buckets.values()],
                ),
                allow(
                    [
                        "s3:GetObjectVersionAcl",
                        "s3:GetObjectVersionForReplication",
                        "s3:GetObjectVersionTagging",
                    ],
                    [pulumi.Output.concat(bucket.arn, "/*") for bucket in self.buckets.values()],
                ),
                allow(
                    ["s3:ReplicateDelete", "s3:ReplicateObject", "s3:ReplicateTags"],
                    [pulumi.Output.concat(bucket.arn, "/*") for bucket in copies.buckets.values()],
                ),
                allow(["kms:Decrypt"], [self.key_arn]),
                allow(["kms:Encrypt", "kms:GenerateDataKey"], [copies.key_arn]),
            ),
            opts=child,
        )
        for purpose, bucket in self.buckets.items():
            s3.BucketReplicationConfig(
                f"{name}-{purpose}",
                bucket=bucket.name,
                role=role.arn,
                rules=[
                    {
                        "id": REPLICATION_RULE,
                        "status": "Enabled",
                        "priority": 1,
                        "filter": {"prefix": ""},
                        "delete_marker_replication": {"status": "Disabled"},
                        "source_selection_criteria": {"sse_kms_encrypted_objects": {"status": "Enabled"}},
                        "destination": {
                            "bucket": copies.buckets[purpose].arn,
                            "storage_class": "STANDARD_IA",
                            "encryption_configuration": {"replica_kms_key_id": copies.key_arn},
                            "metrics": {"status": "Enabled", "event_threshold": {"minutes": REPLICATION_MINUTES}},
                            "replication_time": {"status": "Enabled", "time": {"minutes": REPLICATION_MINUTES}},
                        },
                    }
                ],
                # Both ends must keep versions first.
                opts=pulumi.ResourceOptions(parent=self, depends_on=[versionings[purpose], copies]),
            )
