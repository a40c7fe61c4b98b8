"""Deliveries in S3, announced by events in an SQS queue: keys are SUPPLIER/NAME.

SQS hands a message to one dispatcher and hides it from the others for as long as that one keeps saying that it works
on it. A message that nobody finishes comes back, and after some times goes to the queue's dead letters.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_plus

import orjson
import structlog
from boto3.exceptions import S3UploadFailedError
from boto3.session import Session
from botocore.exceptions import BotoCoreError, ClientError

from rates_app.batches.sources.delivery import LOCAL_SUPPLIER
from rates_app.settings import SettingsError
from rates_app.store.databases import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

    from rates_app.batches.sources.delivery import Destination
    from rates_app.settings import Settings

log = structlog.get_logger()

#: S3 takes 10,000 parts of at least 5 MiB; this size allows 78 GiB and is held in memory once.
PART_BYTES = 8 * 2**20

#: How long a message stays hidden when its dispatcher dies; a living one renews it three times as often.
VISIBILITY_SECONDS = 300

#: A delivery that was released is left alone for this long.
RETRY_SECONDS = 60

#: The longest that SQS waits for a message.
LONGEST_WAIT_SECONDS = 20


@contextmanager
def _reaching(what: str) -> Iterator[None]:
    """Tell a failure of AWS or of the way there as what it means to who waits."""
    try:
        yield
    except (BotoCoreError, ClientError, S3UploadFailedError) as error:
        raise Unavailable(f"{what} cannot be reached: {error}") from error


class BucketUpload:
    """A multipart upload: S3 shows the object when it is completed, and not before."""

    def __init__(self, s3: S3Client, bucket: str, key: str) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._key = key
        with _reaching(bucket):
            self._upload_id = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
        self._waiting = bytearray()
        self._parts: list[CompletedPartTypeDef] = []
        self._open = True

    def write(self, chunk: bytes) -> None:
        """Collect bytes and send them part by part."""
        self._waiting += chunk
        if len(self._waiting) >= PART_BYTES:
            self._send()

    def _send(self) -> None:
        number = len(self._parts) + 1
        with _reaching(self._bucket):
            answer = self._s3.upload_part(
                Bucket=self._bucket,
                Key=self._key,
                UploadId=self._upload_id,
                PartNumber=number,
                Body=bytes(self._waiting),
            )
        self._parts.append({"PartNumber": number, "ETag": answer["ETag"]})
        self._waiting.clear()

    def appear(self) -> None:
        """Complete the upload."""
        self._send()  # the last part may have any size
        with _reaching(self._bucket):
            self._s3.complete_multipart_upload(
                Bucket=self._bucket, Key=self._key, UploadId=self._upload_id, MultipartUpload={"Parts": self._parts}
            )
        self._open = False

    def discard(self) -> None:
        """Abort the upload."""
        if self._open:
            with _reaching(self._bucket):
                self._s3.abort_multipart_upload(Bucket=self._bucket, Key=self._key, UploadId=self._upload_id)


class Message:
    """A message of the queue that this process works on, and keeps hidden from others as long as it does."""

    def __init__(self, sqs: SQSClient, queue: str, message: MessageTypeDef) -> None:
        self._sqs = sqs
        self._queue = queue
        self._handle = message["ReceiptHandle"]
        self._done = threading.Event()
        threading.Thread(target=self._keep, name="visibility", daemon=True).start()

    def _keep(self) -> None:
        while not self._done.wait(VISIBILITY_SECONDS / 3):
            try:
                self._hide(VISIBILITY_SECONDS)
            except (BotoCoreError, ClientError) as error:
                # If this goes on, another dispatcher takes the message: the ledger keeps the two apart.
                log.warning("a message could not be kept hidden", error=str(error))

    def _hide(self, seconds: int) -> None:
        self._sqs.change_message_visibility(QueueUrl=self._queue, ReceiptHandle=self._handle, VisibilityTimeout=seconds)

    def delete(self) -> None:
        """Have done with it."""
        self._done.set()
        self._sqs.delete_message(QueueUrl=self._queue, ReceiptHandle=self._handle)

    def release(self) -> None:
        """Give it back, for later."""
        self._done.set()
        self._hide(RETRY_SECONDS)


class ObjectDelivery:
    """An object that a message announced."""

    def __init__(self, buckets: Buckets, key: str, message: Message) -> None:
        self._buckets = buckets
        self._key = key
        self._message = message
        self.uri = f"s3://{buckets.incoming}/{quote(key)}"
        supplier, _, self.name = key.rpartition("/")
        self.supplier = supplier or LOCAL_SUPPLIER

    def put_away(self, destination: Destination, name: str, reports: Sequence[Path]) -> None:
        """Upload the reports, copy the object, remove it and its message."""
        s3, bucket = self._buckets.s3, self._buckets.destinations[destination]
        key = f"{self.supplier}/{name}"
        with _reaching(bucket):
            # The queue may hand a message out twice, and the other one may have been first.
            if self._buckets.holds(self._key):
                for report in reports:
                    s3.upload_file(str(report), bucket, f"{key}.{report.name}")
                s3.copy({"Bucket": self._buckets.incoming, "Key": self._key}, bucket, key)
                s3.delete_object(Bucket=self._buckets.incoming, Key=self._key)
            self._message.delete()

    def release(self) -> None:
        """Let the queue hand the message out again."""
        with _reaching("the queue"):
            self._message.release()


class Buckets:
    """The buckets of the settings, and the queue of events if this process takes deliveries."""

    def __init__(self, settings: Settings) -> None:
        assert settings.incoming_bucket and settings.processed_bucket and settings.rejected_bucket  # noqa: S101, PT018 - checked by Settings
        session = Session()  # boto3's shared one is not for several threads
        self.s3: S3Client = session.client("s3")
        self._sqs: SQSClient = session.client("sqs")
        self.incoming = settings.incoming_bucket
        self.destinations: dict[Destination, str] = {
            "processed": settings.processed_bucket,
            "rejected": settings.rejected_bucket,
        }
        self._queue = settings.incoming_queue_url

    def upload(self, supplier: str, name: str) -> BucketUpload:
        """Begin a delivery."""
        return BucketUpload(self.s3, self.incoming, f"{supplier}/{name}")

    def take(self, seconds: float) -> ObjectDelivery | None:
        """Receive a message; one whose object another dispatcher has put away is done with."""
        if self._queue is None:
            raise SettingsError("RATES_INCOMING_QUEUE_URL: the queue of the bucket's events is needed to take from it")
        with _reaching("the queue of RATES_INCOMING_QUEUE_URL"):
            answer = self._sqs.receive_message(
                QueueUrl=self._queue,
                MaxNumberOfMessages=1,
                WaitTimeSeconds=min(int(seconds), LONGEST_WAIT_SECONDS),
                VisibilityTimeout=VISIBILITY_SECONDS,
            )
            for received in answer.get("Messages", []):
                key = _key(received["Body"])
                known = key is not None and self.holds(key)
                message = Message(self._sqs, self._queue, received)
                if key is not None and known:
                    return ObjectDelivery(self, key, message)
                message.delete()
        return None

    def holds(self, key: str) -> bool:
        """Tell whether an object is among the incoming."""
        try:
            self.s3.head_object(Bucket=self.incoming, Key=key)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == HTTPStatus.NOT_FOUND:
                return False
            raise
        return True


def _key(body: str) -> str | None:
    """Read the object's key from an event; None for S3's test message. An event of S3 has one record."""
    records: list[dict[str, Any]] = orjson.loads(body).get("Records", [])
    return unquote_plus(records[0]["s3"]["object"]["key"]) if records else None
