"""Rotates a secret in Secrets Manager, and waits until the new version is current."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule
from botocore.exceptions import BotoCoreError, ClientError

DOCUMENTATION = """
module: secret_rotation
short_description: Has Secrets Manager rotate a secret, and waits until the new version is current
description:
  - Starts the rotation that the secret is configured with.
  - Does nothing when the secret was rotated a moment ago, so that a run that was broken off can be started again.
options:
  secret: {description: Name or ARN of the secret., type: str, required: true}
  not_within: {description: Seconds since the last rotation within which none is started., type: int, default: 3600}
  wait_timeout: {description: Seconds to wait for the new version., type: int, default: 900}
extends_documentation_fragment: [amazon.aws.common.modules, amazon.aws.region.modules, amazon.aws.boto3]
"""

RETURN = """
version: {description: The version that is current., type: str, returned: always}
"""

EXAMPLES = """
- secret_rotation: {secret: rates-prod-database}
"""

POLL_SECONDS = 5


class RotationTimeout(Exception):
    """A rotation did not end in time; the message names the log."""


def stages(secret: dict[str, Any]) -> dict[str, str]:
    """Return the version of each stage, such as ``AWSCURRENT``."""
    return {stage: version for version, names in secret["VersionIdsToStages"].items() for stage in names}


def pending(secret: dict[str, Any]) -> bool:
    """Return whether a rotation is in progress."""
    found = stages(secret)
    return found.get("AWSPENDING", found["AWSCURRENT"]) != found["AWSCURRENT"]


def wait_for_end(secrets: Any, name: str, before: str, seconds: int) -> str:
    """Wait until another version than before is current.

    Args:
        secrets: A client of Secrets Manager.
        name: The secret.
        before: The version that was current.
        seconds: Seconds to wait.

    Returns:
        The version that is current now.

    Raises:
        RotationTimeout: No other version became current in time.
    """
    deadline = time.monotonic() + seconds
    while (current := stages(secrets.describe_secret(SecretId=name))["AWSCURRENT"]) == before:
        if time.monotonic() > deadline:
            raise RotationTimeout(f"no new version of {name} after {seconds} seconds: see the rotation function's log")
        time.sleep(POLL_SECONDS)
    return current


def main() -> None:
    """Run the module."""
    module = AnsibleAWSModule(
        argument_spec={
            "secret": {"type": "str", "required": True},
            "not_within": {"type": "int", "default": 3600},
            "wait_timeout": {"type": "int", "default": 900},
        },
        supports_check_mode=True,
    )
    secrets, name = module.client("secretsmanager"), module.params["secret"]
    try:
        secret = secrets.describe_secret(SecretId=name)
        current = stages(secret)["AWSCURRENT"]
        if not secret.get("RotationEnabled"):
            module.fail_json(msg=f"{name} has no rotation: 'pulumi up' sets it up")
        if pending(secret):
            module.fail_json(msg=f"an earlier rotation of {name} hangs: see the rotation function's log")
        rotated = secret.get("LastRotatedDate")
        if rotated and datetime.now(UTC) - rotated < timedelta(seconds=module.params["not_within"]):
            module.exit_json(changed=False, version=current, msg=f"rotated at {rotated:%Y-%m-%d %H:%M}")
        if not module.check_mode:
            secrets.rotate_secret(SecretId=name)
            current = wait_for_end(secrets, name, current, module.params["wait_timeout"])
    except (BotoCoreError, ClientError, RotationTimeout) as error:
        module.fail_json_aws(error, msg=f"{name} could not be rotated")
    module.exit_json(changed=True, version=current)


if __name__ == "__main__":
    main()
