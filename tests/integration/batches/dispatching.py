"""Deliveries for the tests of the dispatcher, and a dispatcher that runs within the test."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import boto3
import orjson
import psycopg

from rates_app.batches import ledger
from rates_app.batches.pipeline.dispatch import Dispatcher
from rates_app.batches.pipeline.workers import in_process
from rates_app.batches.sources.folder import FolderSource
from rates_app.batches.sources.registry import open_source

if TYPE_CHECKING:
    from pathlib import Path

    from rates_app.batches.model import Batch
    from rates_app.batches.pipeline.spark import Applications
    from rates_app.batches.sources.delivery import Source
    from rates_app.settings import Settings

HEADER = b"orig_code,dest_code,day,price\n"
GOOD = b"CNGGZ,EETLL,2021-01-01,1244\n"
BAD = b"XXXXX,EETLL,2021-01-01,1244\n"


def batches(settings: Settings) -> list[Batch]:
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        return ledger.list_batches(connection, limit=1000)[::-1]


def arrive(settings: Settings, name: str, content: bytes, age: float = 60) -> Path:
    """Write a file to the incoming folder with a modification time some seconds ago."""
    path = settings.data_dir / "incoming" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (time.time() - age,) * 2)
    return path


def folders(settings: Settings, settle_seconds: float = 0) -> FolderSource:
    """Watch the folders as the dispatcher does, for files that have settled."""
    return FolderSource(settings, settle_seconds=settle_seconds)


def dispatching(settings: Settings, source: Source, applications: Applications | None) -> Dispatcher:
    """Make a dispatcher that stages within this process."""
    return Dispatcher(settings, source, applications, in_process(settings))


def retry_now(settings: Settings) -> None:
    """Make the next attempt at every delivery due now."""
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        connection.execute("UPDATE delivery_attempts SET next_attempt_at = now()")


def attempts_and_outages(settings: Settings) -> tuple[int, int]:
    """Return the counts of the only delivery that has been attempted."""
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        ((attempts, outages),) = connection.execute("SELECT attempts, outages FROM delivery_attempts").fetchall()
    return attempts, outages


def names(settings: Settings, folder: str) -> list[str]:
    # Unlike Path.rglob, os.walk ignores a folder that a dispatcher removes meanwhile.
    return sorted(name for _, _, found in os.walk(settings.data_dir / folder) for name in found)


def report(settings: Settings, name: str) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads((settings.data_dir / name).read_bytes())
    return found


def dispatch_all(settings: Settings) -> None:
    source = open_source(settings) if settings.incoming_bucket else folders(settings)
    dispatcher = dispatching(settings, source, None)
    # A message of the queue may announce an object that is archived already.
    while (delivery := source.claim(0)) or (settings.incoming_bucket and objects("incoming")):
        if delivery:
            dispatcher.handle(delivery)


def objects(bucket: str) -> list[str]:
    found = boto3.Session().client("s3").list_objects_v2(Bucket=bucket)
    return [str(item["Key"]) for item in found.get("Contents", [])]


def hidden_messages(settings: Settings) -> tuple[int, int]:
    """Return the number of visible messages and that of messages which a dispatcher has received."""
    assert settings.incoming_queue_url is not None
    sqs = boto3.Session().client("sqs")
    counts = sqs.get_queue_attributes(QueueUrl=settings.incoming_queue_url, AttributeNames=["All"])["Attributes"]
    return int(counts["ApproximateNumberOfMessages"]), int(counts["ApproximateNumberOfMessagesNotVisible"])
