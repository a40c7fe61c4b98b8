"""Deliveries in S3, announced by events in an SQS queue: keys are SUPPLIER/NAME.

SQS hands a message to one dispatcher and hides it from the others for as long as that one renews its visibility
timeout. A message whose dispatcher ends is received again, and after several receives goes to the dead-letter queue.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import structlog
from boto3.exceptions import S3UploadFailedError
from boto3.session import Session
from botocore.exceptions import BotoCoreError, ClientError

from rates_app.batches.content import ContentChanged, ObjectPin, find_object, s3_client
from rates_app.batches.model import DEFAULT_SUPPLIER
from rates_app.batches.sources.manifest import MAX_MANIFEST_BYTES
from rates_app.batches.sources.messages import UnknownMessage, read_message
from rates_app.batches.sources.names import (
    IGNORED,
    MANIFEST_SUFFIX,
    STALE_SECONDS,
    archive_name,
    folder_of,
    ignored,
    printable,
    supplier_of,
)
from rates_app.settings import SettingsError
from rates_app.store.databases import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef, CopySourceTypeDef
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

    from rates_app.batches.sources.delivery import Destination
    from rates_app.batches.sources.messages import Arrived
    from rates_app.batches.sources.names import Ignored
    from rates_app.settings import Settings

log = structlog.get_logger()

#: S3 takes 10,000 parts of at least 5 MiB; this size allows 78 GiB and is held in memory once.
PART_BYTES = 8 * 2**20

#: How long a message stays hidden when its dispatcher dies; a living one renews it three times as often.
VISIBILITY_SECONDS = 300

#: Messages that are received at a time, the most that SQS allows; suppliers take turns among them.
RECEIVED_MESSAGES = 10

#: The longest that SQS waits for a message.
MAX_WAIT_SECONDS = 20

#: Maximum time that SQS hides a message, in addition to the time that it has been hidden.
MAX_HIDDEN_SECONDS = 11 * 60 * 60

#: Objects that this process holds. With more, it receives no messages.
MAX_WAITING = 100

#: A longer delay is left to the queue, where it counts as another receive.
MAX_HELD_SECONDS = 15 * 60.0

#: Delay of an object whose bucket can't be reached.
UNREACHABLE_SECONDS = 60.0

#: Delay of a message that can't be read. With the queue's maximum of receives it is a dead letter within the hour.
UNKNOWN_SECONDS = 60.0

#: Suppliers whose turn is remembered.
MAX_TURNS = 1000

#: The longest key that S3 takes.
MAX_KEY_BYTES = 1024

_CHANGED = {"404", "412", "NoSuchKey", "NoSuchVersion", "PreconditionFailed"}


@contextmanager
def _translating(service: str) -> Iterator[None]:
    """Translate AWS and network errors into Unavailable, and failed preconditions into ContentChanged."""
    try:
        yield
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in _CHANGED:
            raise ContentChanged from error
        raise Unavailable(f"{service} cannot be reached: {error}") from error
    except (BotoCoreError, S3UploadFailedError) as error:
        raise Unavailable(f"{service} cannot be reached: {error}") from error


def _supplier_of_key(key: str) -> str:
    folder, separator, _ = key.partition("/")
    return supplier_of(folder if separator else folder_of(DEFAULT_SUPPLIER))


def _ignore(key: str, reason: Ignored) -> None:
    """Count an object that is not taken, and log a warning."""
    IGNORED.labels(reason).inc()
    log.warning("incoming_entry_ignored", path=printable(key), reason=reason)


class BucketUpload:
    """A multipart upload. S3 shows the object only when it is completed."""

    def __init__(self, s3: S3Client, bucket: str, key: str) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._key = key
        with _translating(bucket):
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
        with _translating(self._bucket):
            answer = self._s3.upload_part(
                Bucket=self._bucket,
                Key=self._key,
                UploadId=self._upload_id,
                PartNumber=number,
                Body=bytes(self._waiting),
            )
        self._parts.append({"PartNumber": number, "ETag": answer["ETag"]})
        self._waiting.clear()

    def commit(self, manifest: bytes | None = None) -> None:
        """Store the manifest, then complete the upload."""
        self._send()  # the last part may have any size
        with _translating(self._bucket):
            if manifest is not None:
                self._s3.put_object(Bucket=self._bucket, Key=self._key + MANIFEST_SUFFIX, Body=manifest)
            self._s3.complete_multipart_upload(
                Bucket=self._bucket, Key=self._key, UploadId=self._upload_id, MultipartUpload={"Parts": self._parts}
            )
        self._open = False

    def abort(self) -> None:
        """Abort the upload.

        The manifest stays: if the response to the completion was lost, its object is there. No other has its name.
        """
        if self._open:
            with _translating(self._bucket):
                self._s3.abort_multipart_upload(Bucket=self._bucket, Key=self._key, UploadId=self._upload_id)


class Message:
    """A received message, hidden from other dispatchers until each of its deliveries is archived or deferred."""

    def __init__(self, sqs: SQSClient, queue: str, message: MessageTypeDef) -> None:
        self._sqs = sqs
        self._queue = queue
        self._handle = message["ReceiptHandle"]
        self._pending = 0
        self._deferred: float | None = None
        self._done = threading.Event()
        threading.Thread(target=self._renew, name="visibility", daemon=True).start()

    def _renew(self) -> None:
        while not self._done.wait(VISIBILITY_SECONDS / 3):
            try:
                self._hide(VISIBILITY_SECONDS)
            except (BotoCoreError, ClientError) as error:
                # If this continues, another dispatcher receives the message: the ledger keeps the two apart.
                log.warning("message_visibility_not_renewed", error=str(error))

    def _hide(self, seconds: float) -> None:
        self._sqs.change_message_visibility(
            QueueUrl=self._queue, ReceiptHandle=self._handle, VisibilityTimeout=int(min(seconds, MAX_HIDDEN_SECONDS))
        )

    def add(self) -> None:
        """Count one more delivery that the message announces."""
        self._pending += 1

    def finish(self, deferred: float | None = None) -> None:
        """Count one delivery less; with the last, delete the message, or return it if a delivery was deferred.

        Args:
            deferred: Seconds after which the delivery should be claimed again.

        Raises:
            Unavailable: The queue can't be reached, so the message becomes visible again.
        """
        self._pending -= 1
        if deferred is not None:
            self._deferred = max(deferred, self._deferred or 0)
        if self._pending <= 0:
            self.end()

    def end(self) -> None:
        """Delete the message, or return it if a delivery was deferred."""
        self._done.set()
        with _translating("the queue"):
            if self._deferred is None:
                self._sqs.delete_message(QueueUrl=self._queue, ReceiptHandle=self._handle)
            else:
                self._hide(self._deferred)


class ObjectDelivery:
    """An object that a message announced.

    Args:
        source: Its source.
        arrived: The object as it was announced.
        content: The object's content.
        message: The message that announced it.

    Raises:
        Unavailable: S3 can't be reached.
    """

    def __init__(self, source: BucketSource, arrived: Arrived, content: ObjectPin, message: Message) -> None:
        self._source = source
        self._arrived = arrived
        self._content = content
        self._message = message
        self.address = content.address
        folder, _, name = content.key.partition("/")
        self.name = printable(name or folder)
        #: As written in keys of the archive.
        self._folder = folder if name else folder_of(DEFAULT_SUPPLIER)
        self.supplier = _supplier_of_key(content.key)
        self.manifest = source.read_small(content.key + MANIFEST_SUFFIX)

    def archive(self, destination: Destination, name: str, reports: Sequence[Path]) -> None:
        """Upload the reports, copy the object and its manifest, remove both and the message."""
        s3, incoming = self._source.s3, self._source.incoming
        bucket = self._source.destinations[destination]
        key, manifest = f"{archive_name(self._folder)}/{name}", self._content.key + MANIFEST_SUFFIX
        with _translating(bucket):
            s3.head_object(**self._content.condition)
            for report in reports:
                s3.upload_file(str(report), bucket, f"{key}.{report.name}")
            if self.manifest is not None:
                s3.put_object(Bucket=bucket, Key=key + MANIFEST_SUFFIX, Body=self.manifest)
            source: CopySourceTypeDef = {"Bucket": incoming, "Key": self._content.key}
            if self._content.version:
                source["VersionId"] = self._content.version
            s3.copy(
                source,
                bucket,
                key,
                ExtraArgs={"CopySourceIfMatch": self._content.etag},
            )
        try:
            with _translating(incoming):
                s3.delete_object(Bucket=incoming, Key=self._content.key, IfMatch=self._content.etag)
                if self.manifest is not None:
                    s3.delete_object(Bucket=incoming, Key=manifest)
        except ContentChanged:
            log.info("incoming_object_replaced", key=self.name, effect="its new content is a separate delivery")
        self._message.finish()

    def defer(self, seconds: float) -> None:
        """Return it to its source, which holds it or returns its message to the queue."""
        self._source.defer(self._arrived, self._message, seconds)


class _Waiting(NamedTuple):
    """An object that was announced, and that this process holds until it is due."""

    #: In seconds of the monotonic clock.
    due: float
    arrived: Arrived
    message: Message

    @property
    def supplier(self) -> str:
        return _supplier_of_key(self.arrived.key)


class BucketSource:
    """The buckets of the settings, and the queue of events if this process claims deliveries."""

    def __init__(self, settings: Settings) -> None:
        assert settings.incoming_bucket and settings.processed_bucket and settings.rejected_bucket  # noqa: S101, PT018 - checked by Settings
        self.s3: S3Client = s3_client()
        self._sqs: SQSClient = Session().client("sqs")  # boto3's shared session is not for several threads
        self.incoming = settings.incoming_bucket
        self.destinations: dict[Destination, str] = {
            "processed": settings.processed_bucket,
            "rejected": settings.rejected_bucket,
        }
        self._queue = settings.incoming_queue_url
        #: Received and not yet handed out, or deferred.
        self._waiting: list[_Waiting] = []
        #: Suppliers, the one that was served last at the end.
        self._turns: list[str] = []

    def upload(self, supplier: str, name: str) -> BucketUpload:
        """Begin a delivery."""
        return BucketUpload(self.s3, self.incoming, f"{folder_of(supplier)}/{name}")

    def claim(self, seconds: float) -> ObjectDelivery | None:
        """Hand out the delivery whose supplier was served longest ago; receive messages if none is due."""
        if not any(waiting.due <= time.monotonic() for waiting in self._waiting):
            self._receive(seconds)
        while due := [waiting for waiting in self._waiting if waiting.due <= time.monotonic()]:
            chosen = min(due, key=lambda each: self._turns.index(each.supplier) if each.supplier in self._turns else -1)
            self._waiting.remove(chosen)
            try:
                delivery = self._open(chosen.arrived, chosen.message)
            except Unavailable as error:
                log.warning("object_not_reachable", path=printable(chosen.arrived.key), error=str(error))
                self.defer(chosen.arrived, chosen.message, UNREACHABLE_SECONDS)
                return None
            except Exception:
                # Returned, so that an object that can't be opened becomes a dead letter and affects no other.
                log.exception("object_not_opened", path=printable(chosen.arrived.key))
                chosen.message.finish(deferred=UNKNOWN_SECONDS)
                return None
            if delivery is not None:
                others = [supplier for supplier in self._turns if supplier != delivery.supplier]
                self._turns = [*others[-MAX_TURNS:], delivery.supplier]
                return delivery
        return None

    def defer(self, arrived: Arrived, message: Message, seconds: float) -> None:
        """Hold an object for a time, or return its message to the queue if the time is long.

        The queue counts every receive, and moves a message to the dead-letter queue after some. So an outage that
        defers a delivery repeatedly must not return its message each time.
        """
        if seconds > MAX_HELD_SECONDS:
            message.finish(deferred=seconds)
        else:
            self._waiting.append(_Waiting(time.monotonic() + seconds, arrived, message))

    def close(self) -> None:
        """Return the messages that were received and not handed out."""
        while self._waiting:
            self._waiting.pop().message.finish(deferred=0)

    def _receive(self, seconds: float) -> None:
        """Receive messages. If too many deliveries are held, or until one is due, wait instead."""
        if self._queue is None:
            raise SettingsError("RATES_INCOMING_QUEUE_URL: the queue of the bucket's events is needed to claim from it")
        seconds = max(0.0, min([seconds, *(waiting.due - time.monotonic() for waiting in self._waiting)]))
        if len(self._waiting) >= MAX_WAITING:
            time.sleep(seconds)
            return
        with _translating("the queue of RATES_INCOMING_QUEUE_URL"):
            answer = self._sqs.receive_message(
                QueueUrl=self._queue,
                MaxNumberOfMessages=RECEIVED_MESSAGES,
                WaitTimeSeconds=min(int(seconds), MAX_WAIT_SECONDS),
                VisibilityTimeout=VISIBILITY_SECONDS,
            )
        for received in answer.get("Messages", []):
            self._read(self._queue, received)
        if not answer.get("Messages"):
            time.sleep(seconds % 1)  # SQS waits for whole seconds

    def _read(self, queue: str, received: MessageTypeDef) -> None:
        """Hold the objects that a message announces. A message that can't be read affects no other."""
        message = Message(self._sqs, queue, received)
        try:
            arrived = read_message(received.get("Body", ""), self.incoming)
        except UnknownMessage as error:
            # Returned until the queue moves it to its dead-letter queue.
            IGNORED.labels("message").inc()
            log.warning("message_not_understood", message=received.get("MessageId"), reason=str(error)[:500])
            message.add()
            message.finish(deferred=UNKNOWN_SECONDS)
            return
        message.add()  # for this method itself
        for each in arrived or ():
            message.add()
            self.defer(each, message, 0)
        message.finish()

    def _open(self, arrived: Arrived, message: Message) -> ObjectDelivery | None:
        """Return the delivery of an object, or None and count it as done if there is none.

        Raises:
            Unavailable: S3 can't be reached.
        """
        key = arrived.key
        reason: Ignored | None = "folder" if key.endswith("/") else ignored(key.rpartition("/")[2])
        if reason is not None:
            _ignore(key, reason)
        elif key.endswith(MANIFEST_SUFFIX):
            message.finish(deferred=self._check_manifest(key))
            return None
        else:
            found = find_object(self.s3, self.incoming, key)
            if found is not None and arrived.version and found.version and arrived.version != found.version:
                found = find_object(self.s3, self.incoming, key, arrived.version)
            if found is not None:
                return ObjectDelivery(self, arrived, found, message)
            log.info("incoming_object_gone", path=printable(key), effect="archived before, or removed by its supplier")
        message.finish()
        return None

    def _check_manifest(self, key: str) -> float | None:
        """Warn of a manifest whose object is missing: it would apply to the next object of that key.

        Returns:
            Seconds until the object has to be there. The queue hides the message until then: held here, the manifests
            of objects that arrive just after them would keep other messages from being received.

        Raises:
            Unavailable: S3 can't be reached.
        """
        try:
            with _translating(self.incoming):
                manifest = self.s3.head_object(Bucket=self.incoming, Key=key)
        except ContentChanged:
            return None
        if find_object(self.s3, self.incoming, key.removesuffix(MANIFEST_SUFFIX)) is not None:
            return None
        age = (datetime.now(UTC) - manifest["LastModified"]).total_seconds()
        if age < STALE_SECONDS:
            return STALE_SECONDS - age
        _ignore(key, "manifest")
        return None

    def read_small(self, key: str) -> bytes | None:
        """Read a manifest, of a larger object its first bytes; None if there is none.

        Raises:
            Unavailable: S3 can't be reached.
        """
        if len(key.encode("utf-8", "surrogatepass")) > MAX_KEY_BYTES:
            return None
        try:
            with _translating(self.incoming):
                return self.s3.get_object(Bucket=self.incoming, Key=key)["Body"].read(MAX_MANIFEST_BYTES + 1)
        except ContentChanged:
            return None
