"""Checks of places outside the stores: the folder or queue of deliveries, the public address."""

from __future__ import annotations

import socket
import ssl
import time
from shutil import disk_usage
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import orjson
import requests
from boto3 import Session
from botocore.config import Config

from rates_app.batches.sources.bucket import MAX_WAITING
from rates_app.batches.sources.names import MANIFEST_SUFFIX, ignored
from rates_app.ops.check import CheckResult, Fault
from rates_app.ops.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mypy_boto3_sqs import SQSClient

#: Share of a disk that should be free, as in the alert DiskFull.
MIN_FREE_SHARE = 0.1

#: A file that waits longer, in minutes, has no dispatcher that takes it, as in the alarm messages-old.
MAX_WAIT_MINUTES = 30

#: Messages in the dead-letter queue above which the alarm messages-dead fires.
MAX_DEAD_LETTERS = 0

#: The alarm certificate-expiry fires this many days before their end.
MIN_CERTIFICATE_DAYS = 30

#: A dispatcher that has nothing to do receives a message immediately. One that still waits after this long has none.
RECEIVE_SECONDS = 2.0

_SECONDS = 5.0


def check_deliveries(folder: Path) -> CheckResult:
    """Check that the disk has room, and that a dispatcher takes the files that arrive.

    Args:
        folder: ``RATES_DATA_DIR``.

    Raises:
        OSError: The folder can't be read.
    """
    disk = disk_usage(folder)
    problems = []
    if disk.free < MIN_FREE_SHARE * disk.total:
        problems.append(Fault(f"{disk.free / 2**30:.1f} GiB of the disk are free", "disk-full"))
    waiting = sorted(_waiting(folder / "incoming"))
    if waiting and (minutes := (time.time() - waiting[0]) / 60) > MAX_WAIT_MINUTES:
        text = f"{counted(len(waiting), 'file')} in incoming, one for {minutes:.0f} minutes"
        problems.append(Fault(text, "dispatcher-down"))
    return CheckResult(f"{disk.free / 2**30:.0f} GiB free, files in incoming: {len(waiting)}", problems)


def _waiting(incoming: Path) -> Iterator[float]:
    """Yield the time of change of each file that a dispatcher should take."""
    for path in (*incoming.glob("*"), *incoming.glob("*/*")):
        if path.is_file() and ignored(path.name) is None and not path.name.endswith(MANIFEST_SUFFIX):
            yield path.stat().st_mtime


def check_queue(url: str) -> CheckResult:
    """Check that a dispatcher receives the deliveries in SQS, and that its dead-letter queue is empty.

    Too many deliveries wait when one dispatcher cannot hold them: it holds :data:`MAX_WAITING`.

    Args:
        url: ``RATES_INCOMING_QUEUE_URL``.

    Raises:
        botocore.exceptions.BotoCoreError: SQS is unreachable.
        botocore.exceptions.ClientError: SQS refuses.
    """
    config = Config(connect_timeout=_SECONDS, read_timeout=_SECONDS, retries={"total_max_attempts": 1})
    sqs = Session().client("sqs", config=config)  # boto3's shared session is not for several threads
    policy, waiting, received = _messages(sqs, url)
    problems = []
    text = f"{waiting} waiting, {received} received"
    if waiting > MAX_WAITING:
        more = f"{waiting} deliveries wait, and a dispatcher holds at most {MAX_WAITING}"
        problems.append(Fault(more, "dispatcher-down"))
    elif waiting and not received:
        time.sleep(RECEIVE_SECONDS)
        _, waiting, received = _messages(sqs, url)
        if waiting and not received:
            text = f"no dispatcher receives the {counted(waiting, 'message')} in the queue"
            problems.append(Fault(text, "dispatcher-down"))
    if policy is not None:
        name = orjson.loads(policy)["deadLetterTargetArn"].rpartition(":")[2]
        # Both queues are in the same account and region.
        _, dead, _ = _messages(sqs, f"{url.rpartition('/')[0]}/{name}")
        text += f", {dead} in the dead-letter queue"
        if dead > MAX_DEAD_LETTERS:
            problems.append(Fault(f"{counted(dead, 'message')} in the dead-letter queue", "dead-letter-queue"))
    return CheckResult(text, problems)


def _messages(sqs: SQSClient, url: str) -> tuple[str | None, int, int]:
    """Return a queue's redrive policy, and how many messages wait and are received."""
    found = sqs.get_queue_attributes(
        QueueUrl=url,
        AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible", "RedrivePolicy"],
    )["Attributes"]
    counts = (found["ApproximateNumberOfMessages"], found["ApproximateNumberOfMessagesNotVisible"])
    return found.get("RedrivePolicy"), int(counts[0]), int(counts[1])


def check_address(url: str) -> CheckResult:
    """Check that the public address is ready, and that its certificate does not end soon.

    Args:
        url: The address without a path, such as ``https://rates.example.com``.

    Raises:
        OSError: It is unreachable, or its certificate is not valid.
    """
    problems = []
    text = "ready"
    response = requests.get(f"{url.rstrip('/')}/readyz", timeout=_SECONDS)
    if response.status_code != requests.codes.ok:
        problems.append(Fault(f"/readyz responds {response.status_code}: {response.text[:200]}", "service-down"))
    parts = urlsplit(url)
    if parts.scheme == "https":
        days = _certificate_days(str(parts.hostname), parts.port or 443)
        text = f"ready, certificate valid for {days:.0f} days"
        if days < MIN_CERTIFICATE_DAYS:
            problems.append(Fault(f"the certificate ends in {days:.0f} days", "certificate-expiry"))
    return CheckResult(text, problems)


def _certificate_days(host: str, port: int) -> float:
    context = ssl.create_default_context()
    with (
        socket.create_connection((host, port), timeout=_SECONDS) as connection,
        context.wrap_socket(connection, server_hostname=host) as secured,
    ):
        certificate = secured.getpeercert()
    assert certificate is not None  # noqa: S101 - the context demands one
    return (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()) / 86400
