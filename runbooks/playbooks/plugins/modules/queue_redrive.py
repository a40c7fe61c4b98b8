"""Sends messages of a dead-letter queue back to the queue that they come from."""

from __future__ import annotations

from typing import Any

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule
from botocore.exceptions import BotoCoreError, ClientError

DOCUMENTATION = """
module: queue_redrive
short_description: Sends messages of a dead-letter queue back to the queue that they come from
description:
  - Moves messages of S3's events one by one, and leaves out those of certain objects.
  - A message is sent before it is deleted, so that one is never lost; broken off, run it again.
options:
  queue: {description: Name of the queue that messages come from., type: str, required: true}
  dead_letter_queue: {description: Name of the queue that they ended in., type: str, required: true}
  max_messages: {description: Maximum number of messages to move., type: int, default: 10}
  leave: {description: Keys of objects whose messages stay., type: list, elements: str, default: []}
extends_documentation_fragment: [amazon.aws.common.modules, amazon.aws.region.modules, amazon.aws.boto3]
"""

RETURN = """
moved: {description: Bodies of the messages that were moved., type: list, returned: always}
waiting: {description: How many messages were in the dead-letter queue., type: int, returned: always}
"""

EXAMPLES = """
- queue_redrive: {queue: rates-prod, dead_letter_queue: rates-prod-dead, leave: [acme/poison.csv]}
"""

#: How long a message is hidden while it is moved; those that stay are seen again after it.
HIDDEN_SECONDS = 30
SQS_MAX_MESSAGES = 10


def redrive(sqs: Any, queue: str, dead: str, max_messages: int, leave: list[str]) -> list[str]:
    """Move messages.

    Args:
        sqs: A client of SQS.
        queue: Address of the queue to send to.
        dead: Address of the dead-letter queue.
        max_messages: Maximum number to move.
        leave: Messages that name one of these keys stay.

    Returns:
        The bodies of the messages that were moved.
    """
    moved: list[str] = []
    while len(moved) < max_messages:
        answer = sqs.receive_message(
            QueueUrl=dead,
            MaxNumberOfMessages=min(max_messages - len(moved), SQS_MAX_MESSAGES),
            VisibilityTimeout=HIDDEN_SECONDS,
        )
        if not (messages := answer.get("Messages", [])):
            break
        for message in messages:
            if any(f'"key":"{key}"' in message["Body"].replace(": ", ":") for key in leave):
                continue
            sqs.send_message(QueueUrl=queue, MessageBody=message["Body"])
            sqs.delete_message(QueueUrl=dead, ReceiptHandle=message["ReceiptHandle"])
            moved.append(message["Body"])
    return moved


def main() -> None:
    """Run the module."""
    module = AnsibleAWSModule(
        argument_spec={
            "queue": {"type": "str", "required": True},
            "dead_letter_queue": {"type": "str", "required": True},
            "max_messages": {"type": "int", "default": 10},
            "leave": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    sqs = module.client("sqs")
    try:
        queue, dead = (
            sqs.get_queue_url(QueueName=module.params[name])["QueueUrl"] for name in ("queue", "dead_letter_queue")
        )
        waiting = int(
            sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["ApproximateNumberOfMessages"])["Attributes"][
                "ApproximateNumberOfMessages"
            ]
        )
        moved = (
            []
            if module.check_mode
            else redrive(sqs, queue, dead, module.params["max_messages"], module.params["leave"])
        )
    except (BotoCoreError, ClientError) as error:
        module.fail_json_aws(error, msg="Cannot move the messages. Run the playbook again to continue.")
    changed = bool(waiting) if module.check_mode else bool(moved)
    module.exit_json(changed=changed, moved=moved, waiting=waiting)


if __name__ == "__main__":
    main()
