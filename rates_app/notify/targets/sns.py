"""An SNS topic; its subscriptions turn a notice into e-mails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from rates_app.notify.notice import Severity
from rates_app.notify.target import NotDelivered, Refused

if TYPE_CHECKING:
    from mypy_boto3_sns.type_defs import PublishInputTypeDef

    from rates_app.notify.notice import Notice
    from rates_app.notify.settings import NotifySettings

#: What SNS takes as a subject and as a message (Publish, Amazon SNS API reference).
SUBJECT_CHARACTERS, MESSAGE_BYTES = 99, 256 * 1024


class Sns:
    """A topic of Amazon SNS.

    Args:
        topic_arn: The topic; a FIFO topic also deduplicates.
        timeout: Seconds it may take to answer.
    """

    name = "sns"
    least = Severity.INFO

    def __init__(self, *, topic_arn: str, timeout: float) -> None:
        self._topic_arn = topic_arn
        region = topic_arn.split(":")[3]
        config = Config(connect_timeout=timeout, read_timeout=timeout, retries={"total_max_attempts": 1})
        self._sns = boto3.client("sns", region_name=region, config=config)

    @classmethod
    def configured(cls, settings: NotifySettings) -> Sns | None:
        """Make the target when the settings name a topic."""
        if settings.sns_topic_arn is None:
            return None
        return cls(topic_arn=settings.sns_topic_arn, timeout=settings.timeout_seconds)

    def send(self, notice: Notice) -> None:
        """Publish the notice."""
        # A subject is ASCII on one line; where that loses a character, the message still has it.
        subject = " ".join(notice.subject.encode("ascii", "replace").decode().split())[:SUBJECT_CHARACTERS]
        request: PublishInputTypeDef = {
            "TopicArn": self._topic_arn,
            "Subject": subject,
            "Message": notice.text().encode()[:MESSAGE_BYTES].decode(errors="ignore"),
            "MessageAttributes": {
                "state": {"DataType": "String", "StringValue": notice.state},
                "severity": {"DataType": "String", "StringValue": notice.severity},
            },
        }
        if self._topic_arn.endswith(".fifo"):
            request["MessageGroupId"] = notice.label
            request["MessageDeduplicationId"] = f"{notice.label}-{notice.state}-{int(notice.started_at.timestamp())}"
        try:
            self._sns.publish(**request)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            kind = Refused if code in {"InvalidParameter", "ParameterValueInvalid"} else NotDelivered
            raise kind(f"{code}: {error.response['Error'].get('Message', '')}") from error
        except BotoCoreError as error:
            raise NotDelivered(f"{type(error).__name__}: {error}") from error
