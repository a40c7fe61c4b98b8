"""A queue with a message for every delivered object, and its dead-letter queue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pulumi
from components.policy import allow, policy_document
from pulumi_aws import s3, sqs

if TYPE_CHECKING:
    from components.storage import Bucket

DAYS = 24 * 60 * 60
# The dispatcher renews this while it works. A message whose dispatcher ends is hidden for this time at most.
VISIBILITY_SECONDS = 300
# The ledger counts failed attempts and outages, and quarantines a delivery first. The dispatcher holds a delivery that
# it defers for minutes, so only its restarts, used quotas and messages that it can't read use up receives.
MAX_RECEIVES = 50


@dataclass(frozen=True, kw_only=True)
class EventsArgs:
    """Arguments of :class:`Events`."""

    bucket: Bucket
    key_arn: pulumi.Input[str]
    account_id: pulumi.Input[str]
    deliver: bool
    """Whether new files send events. A standby region sends none until it is promoted."""


class Events(pulumi.ComponentResource):
    """S3 notifications of created objects in an SQS queue.

    Attributes:
        queue_url: Where the dispatcher receives from.
        queue_arn: The queue's ARN.
        queue_name: The queue's name, as metrics call it.
        dead_letter_queue_arn: ARN of the queue of messages that were received too often.
        dead_letter_queue_name: Name of the queue of messages that were received too often.
    """

    queue_url: pulumi.Output[str]
    queue_arn: pulumi.Output[str]
    queue_name: pulumi.Output[str]
    dead_letter_queue_arn: pulumi.Output[str]
    dead_letter_queue_name: pulumi.Output[str]

    def __init__(self, name: str, args: EventsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rates:index:Events", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        dead = sqs.Queue(
            f"{name}-dead",
            message_retention_seconds=14 * DAYS,
            kms_master_key_id=args.key_arn,
            opts=child,
        )
        queue = sqs.Queue(
            name,
            visibility_timeout_seconds=VISIBILITY_SECONDS,
            message_retention_seconds=14 * DAYS,
            receive_wait_time_seconds=20,
            kms_master_key_id=args.key_arn,
            redrive_policy=pulumi.Output.json_dumps({"deadLetterTargetArn": dead.arn, "maxReceiveCount": MAX_RECEIVES}),
            opts=child,
        )
        sqs.RedriveAllowPolicy(
            f"{name}-dead",
            queue_url=dead.id,
            redrive_allow_policy=pulumi.Output.json_dumps(
                {"redrivePermission": "byQueue", "sourceQueueArns": [queue.arn]}
            ),
            opts=child,
        )
        policy = sqs.QueuePolicy(
            name,
            queue_url=queue.id,
            policy=policy_document(
                allow(
                    ["sqs:SendMessage"],
                    [queue.arn],
                    services=["s3.amazonaws.com"],
                    conditions={
                        "ArnEquals": {"aws:SourceArn": args.bucket.arn},
                        "StringEquals": {"aws:SourceAccount": args.account_id},
                    },
                )
            ),
            opts=child,
        )
        if args.deliver:
            s3.BucketNotification(
                name,
                bucket=args.bucket.name,
                queues=[{"queue_arn": queue.arn, "events": ["s3:ObjectCreated:*"]}],
                # S3 sends a test message before it takes the configuration.
                opts=pulumi.ResourceOptions(parent=self, depends_on=[policy]),
            )
        self.queue_url = queue.url
        self.queue_arn = queue.arn
        self.queue_name = queue.name
        self.dead_letter_queue_arn = dead.arn
        self.dead_letter_queue_name = dead.name
        self.register_outputs({"queue_url": self.queue_url})
