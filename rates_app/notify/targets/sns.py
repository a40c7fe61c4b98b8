"""An Amazon SNS topic whose subscriptions send e-mails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from rates_app.notify.notification import Severity
from rates_app.notify.target import NotDelivered, NotificationRefused

if TYPE_CHECKING:
    from mypy_boto3_sns.type_defs import PublishInputTypeDef

    from rates_app.notify.notification import Notification
    from rates_app.notify.settings import NotifySettings

#: Limits of the subject and the message (Publish, Amazon SNS API reference).
MAX_SUBJECT_CHARACTERS, MAX_MESSAGE_BYTES = 99, 256 * 1024


class Sns:
    """A topic of Amazon SNS.

    Args:
        topic_arn: ARN of the topic; a FIFO topic also deduplicates.
        timeout: Timeout of a request, in seconds.
    """

    name = "sns"
    min_severity = Severity.INFO

    def __init__(self, *, topic_arn: str, timeout: float) -> None:
        self._topic_arn = topic_arn
        region = topic_arn.split(":")[3]
        config = Config(connect_timeout=timeout, read_timeout=timeout, retries={"total_max_attempts": 1})
        self._sns = boto3.client("sns", region_name=region, config=config)

    @classmethod
    def configured(cls, settings: NotifySettings) -> Sns | None:
        """Create the target if the settings contain a topic."""
        if settings.sns_topic_arn is None:
            return None
        return cls(topic_arn=settings.sns_topic_arn, timeout=settings.timeout_seconds)

    def send(self, notification: Notification) -> None:
        """Publish the notification."""
        # A subject must be one line of ASCII; the message keeps all characters.
        subject = " ".join(notification.subject.encode("ascii", "replace").decode().split())[:MAX_SUBJECT_CHARACTERS]
        request: PublishInputTypeDef = {
            "TopicArn": self._topic_arn,
            "Subject": subject,
            "Message": notification.text().encode()[:MAX_MESSAGE_BYTES].decode(errors="ignore"),
            "MessageAttributes": {
                "key": {"DataType": "String", "StringValue": notification.label},
                "state": {"DataType": "String", "StringValue": notification.state},
                "severity": {"DataType": "String", "StringValue": notification.severity},
            },
        }
        if self._topic_arn.endswith(".fifo"):
            request["MessageGroupId"] = notification.label
            request["MessageDeduplicationId"] = (
                f"{notification.label}-{notification.state}-{int(notification.started_at.timestamp())}"
            )
        try:
            self._sns.publish(**request)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            kind = NotificationRefused if code in {"InvalidParameter", "ParameterValueInvalid"} else NotDelivered
            raise kind(f"{code}: {error.response['Error'].get('Message', '')}") from error
        except BotoCoreError as error:
            raise NotDelivered(f"{type(error).__name__}: {error}") from error
