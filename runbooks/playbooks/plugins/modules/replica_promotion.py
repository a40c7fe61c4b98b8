"""Promotes a read replica of RDS, and waits until it follows no other instance."""

from __future__ import annotations

import time
from typing import Any

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule
from botocore.exceptions import BotoCoreError, ClientError

DOCUMENTATION = """
module: replica_promotion
short_description: Promotes a read replica of RDS, and waits until it follows no other instance
description:
  - Promotes the instance. Replication ends permanently.
  - Does nothing if the instance follows no other one.
options:
  instance: {description: Identifier of the replica., type: str, required: true}
  backup_days: {description: Days that its backups are kept from now on., type: int, required: true}
  wait_timeout: {description: Seconds to wait for the end of the promotion., type: int, default: 1800}
extends_documentation_fragment: [amazon.aws.common.modules, amazon.aws.region.modules, amazon.aws.boto3]
"""

RETURN = ""

EXAMPLES = """
- replica_promotion: {instance: rates-prod-standby-database, backup_days: 35}
"""

POLL_SECONDS = 5


class PromotionTimeout(Exception):
    """The instance still follows another one; the message names it."""


def follows(rds: Any, instance: str) -> bool:
    """Return whether an instance is a replica, or is not available yet after its promotion."""
    (found,) = rds.describe_db_instances(DBInstanceIdentifier=instance)["DBInstances"]
    return bool(found.get("ReadReplicaSourceDBInstanceIdentifier")) or found["DBInstanceStatus"] != "available"


def promote(rds: Any, instance: str, backup_days: int, seconds: int) -> None:
    """Promote an instance and wait for the end of the promotion.

    Args:
        rds: A client of RDS.
        instance: Identifier of the replica.
        backup_days: Days that its backups are kept from now on.
        seconds: Seconds to wait.

    Raises:
        PromotionTimeout: It still follows another instance.
    """
    rds.promote_read_replica(DBInstanceIdentifier=instance, BackupRetentionPeriod=backup_days)
    deadline = time.monotonic() + seconds
    while follows(rds, instance):
        if time.monotonic() > deadline:
            raise PromotionTimeout(f"{instance} still follows another instance after {seconds} seconds")
        time.sleep(POLL_SECONDS)


def main() -> None:
    """Run the module."""
    module = AnsibleAWSModule(
        argument_spec={
            "instance": {"type": "str", "required": True},
            "backup_days": {"type": "int", "required": True},
            "wait_timeout": {"type": "int", "default": 1800},
        },
        supports_check_mode=True,
    )
    rds, instance, seconds = module.client("rds"), module.params["instance"], module.params["wait_timeout"]
    try:
        changed = follows(rds, instance)
        if changed and not module.check_mode:
            promote(rds, instance, module.params["backup_days"], seconds)
    except (BotoCoreError, ClientError, PromotionTimeout) as error:
        module.fail_json_aws(error, msg=f"{instance} could not be promoted")
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
