"""Rules of stores: databases, caches, buckets and repositories of images."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from .registry import BUCKET, CACHE, DATABASE, REPOSITORY, rule

if TYPE_CHECKING:
    from ..account import Call


@rule(
    "protected-database",
    "Amazon RDS API Reference, DeleteDBInstance: InvalidParameterCombination with DeletionProtection",
    DATABASE,
    verbs=("delete",),
)
def _(change: Call) -> str:
    assert change.old is not None
    return "InvalidParameterCombination: deletion protection is on" if change.old["deletionProtection"] else ""


@rule(
    "final-snapshot",
    "Amazon RDS API Reference, DeleteDBInstance: FinalDBSnapshotIdentifier and SkipFinalSnapshot",
    DATABASE,
    verbs=("delete",),
)
def _(change: Call) -> str:
    assert change.old is not None
    inputs = change.old.inputs
    if inputs.get("skipFinalSnapshot"):
        return ""
    name = inputs.get("finalSnapshotIdentifier")
    if not name:
        return "final_snapshot_identifier is required when skip_final_snapshot is false"
    if inputs.get("replicateSourceDb"):
        return "InvalidParameterCombination: a final snapshot of a read replica"
    taken = [entry.split()[0] for entry in change.account.kept.get("snapshots", [])]
    return f"DBSnapshotAlreadyExists: {name}" if name in taken else ""


@rule(
    "replica-source",
    "Amazon RDS API Reference, CreateDBInstanceReadReplica: source, backups and Region",
    DATABASE,
    verbs=("create",),
)
def _(change: Call) -> str:
    source = change.new.get("replicateSourceDb")
    if not source:
        return ""
    found = next((db for db in change.account.find(DATABASE) if source in (db.id, db["arn"])), None)
    if found is None:
        return f"DBInstanceNotFound: {source}"
    if found.region != change.region and not str(source).startswith("arn:"):
        return "InvalidParameterValue: a source in another Region is named by its ARN"
    if found.region != change.region and not change.new.get("kmsKeyId"):
        return "InvalidParameterCombination: an encrypted replica in another Region needs a key there"
    if found["manageMasterUserPassword"]:
        return "InvalidParameterCombination: the source's password is managed in Secrets Manager by RDS"
    return "" if int(found["backupRetentionPeriod"] or 0) else "InvalidDBInstanceState: automated backups are off"


@rule(
    "promotion-has-no-way-back",
    "Amazon RDS User Guide, Promoting a read replica to be a standalone DB instance",
    DATABASE,
    verbs=("update",),
)
def _(change: Call) -> str:
    assert change.old is not None
    if change.new.get("replicateSourceDb") and not change.old["replicateSourceDb"]:
        return "a promoted instance cannot follow a source again: create it again"
    return ""


@rule("database-password", "Amazon RDS API Reference, CreateDBInstance: MasterUserPassword", DATABASE)
def _(change: Call) -> str:
    word = change.new.get("password")
    if word is None:
        if change.verb == "create" and not any(
            change.new.get(key) for key in ("replicateSourceDb", "manageMasterUserPassword", "snapshotIdentifier")
        ):
            return "InvalidParameterValue: MasterUserPassword is required"
        return ""
    bad = set(word) & set('/@" ')
    return f"InvalidParameterValue: the password has {sorted(bad)}" if bad or not 8 <= len(word) <= 128 else ""


@rule(
    "database-logs",
    "Amazon RDS User Guide, Publishing to CloudWatch Logs: RDS makes a missing log group, which never expires",
    DATABASE,
    verbs=("create",),
)
def _(change: Call) -> str:
    groups = {group.id for group in change.account.find("aws:cloudwatch/logGroup:LogGroup", change.region)}
    wanted = [
        f"/aws/rds/instance/{change.new['identifier']}/{log}"
        for log in change.new.get("enabledCloudwatchLogsExports") or []
    ]
    missing = [name for name in wanted if name not in groups]
    return f"RDS would make {', '.join(missing)} without key and retention" if missing else ""


@rule(
    "insights-mode",
    "Amazon CloudWatch User Guide, Database Insights: a mode, and 465 days for the advanced one",
    DATABASE,
)
def _(change: Call) -> str:
    mode = change.new.get("databaseInsightsMode")
    if not mode:
        return "Performance Insights alone has left standard support: say which mode of Database Insights"
    days = int(change.new.get("performanceInsightsRetentionPeriod") or 7)
    return "InvalidParameterCombination: advanced needs 465 days" if mode == "advanced" and days < 465 else ""


@rule(
    "cache-failover",
    "Amazon ElastiCache API Reference, CreateReplicationGroup: AutomaticFailoverEnabled and MultiAZEnabled",
    CACHE,
)
def _(change: Call) -> str:
    several = int(change.new.get("numCacheClusters") or 1) > 1
    if change.new.get("automaticFailoverEnabled") and not several:
        return "InvalidParameterValue: automatic failover needs a replica"
    if change.new.get("multiAzEnabled") and not change.new.get("automaticFailoverEnabled"):
        return "InvalidParameterCombination: Multi-AZ needs automatic failover"
    token = str(change.new.get("authToken") or "x" * 16)
    return "" if 16 <= len(token) <= 128 else "InvalidParameterValue: the token has 16 to 128 characters"


@rule(
    "cache-users",
    "Amazon ElastiCache API Reference, CreateUserGroup: UserNotFound, DuplicateUserName, DefaultUserRequired",
    "aws:elasticache/userGroup:UserGroup",
)
def _(change: Call) -> str:
    users = [change.account.get("aws:elasticache/user:User", id_) for id_ in change.new.get("userIds") or []]
    names = [user["userName"] for user in users if user]
    if len(names) < len(users):
        return "UserNotFound: a user of the group does not exist"
    if len(set(names)) < len(names):
        return "DuplicateUserName: each user of a group has another name"
    return "" if "default" in names else "DefaultUserRequired: a group needs a user named default"


@rule(
    "cache-user-group",
    "Amazon ElastiCache User Guide, Role-Based Access Control: encryption in transit, and no token",
    CACHE,
)
def _(change: Call) -> str:
    groups = change.new.get("userGroupIds") or []
    if not all(change.account.get("aws:elasticache/userGroup:UserGroup", group) for group in groups):
        return "UserGroupNotFound"
    if groups and not change.new.get("transitEncryptionEnabled"):
        return "InvalidParameterCombination: user groups need encryption in transit"
    return "InvalidParameterCombination: a token and a user group" if groups and change.new.get("authToken") else ""


@rule(
    "rotation-permission",
    "AWS Secrets Manager User Guide, Rotation function execution: RotateSecret needs lambda:InvokeFunction and a value",
    "aws:secretsmanager/secretRotation:SecretRotation",
)
def _(change: Call) -> str:
    secret = change.new["secretId"]
    find = change.account.find
    if not any(one["sourceArn"] == secret for one in find("aws:lambda/permission:Permission", change.region)):
        return "AccessDeniedException: Secrets Manager cannot invoke the specified Lambda function"
    versions = find("aws:secretsmanager/secretVersion:SecretVersion", change.region)
    return "" if any(one["secretId"] == secret for one in versions) else "InvalidRequestException: no current version"


@rule(
    "repository-not-empty",
    "Amazon ECR API Reference, DeleteRepository: RepositoryNotEmptyException",
    REPOSITORY,
    verbs=("delete",),
)
def _(change: Call) -> str:
    assert change.old is not None
    full = change.account.images.get(change.old.id) and not change.old["forceDelete"]
    return f"RepositoryNotEmptyException: {change.old.id}" if full else ""


@rule("bucket-not-empty", "Amazon S3 API Reference, DeleteBucket: BucketNotEmpty", BUCKET, verbs=("delete",))
def _(change: Call) -> str:
    assert change.old is not None
    full = change.account.objects.get(change.old.id) and not change.old["forceDestroy"]
    return f"BucketNotEmpty: {change.old.id}" if full else ""


@rule(
    "notification-destination",
    "Amazon S3 User Guide, Event notifications: S3 tests whether it may send",
    "aws:s3/bucketNotification:BucketNotification",
)
def _(change: Call) -> str:
    allowed = {
        json_text.get("Resource", [""])[0]
        for policy in change.account.find("aws:sqs/queuePolicy:QueuePolicy", change.region)
        for json_text in json.loads(policy["policy"])["Statement"]
    }
    wanted = {queue["queueArn"] for queue in change.new.get("queues") or []}
    return f"InvalidArgument: cannot send to {sorted(wanted - allowed)}" if wanted - allowed else ""


@rule(
    "replication-needs-versions",
    "Amazon S3 User Guide, Replication requirements: versioning on both buckets",
    "aws:s3/bucketReplicationConfig:BucketReplicationConfig",
)
def _(change: Call) -> str:
    versioned = {entry["bucket"] for entry in change.account.find("aws:s3/bucketVersioning:BucketVersioning")}
    wanted = {change.new["bucket"], *(r["destination"]["bucket"].rpartition(":")[2] for r in change.new["rules"])}
    return f"InvalidRequest: versioning is off in {sorted(wanted - versioned)}" if wanted - versioned else ""
