"""A database with the sample's tree, and files that suppliers might deliver."""

from __future__ import annotations

import urllib.request
from typing import TYPE_CHECKING

import boto3
import psycopg
import pytest
from moto.server import ThreadedMotoServer

from drills.sample import store_sample_locations
from rates_app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.fixtures.stores import MigratedDatabase

    #: Writes a file into the folder of deliveries and returns its path.
    Deliver = Callable[[str, bytes], str]


@pytest.fixture
def settings(database: MigratedDatabase, tmp_path: Path) -> Settings:
    with psycopg.connect(database.url) as connection:
        store_sample_locations(connection)
    return Settings.model_validate(
        {
            "database_url": database.url,
            "replica_urls": database.replica_urls,
            "data_dir": tmp_path / "data",
            "slice_bytes": 256 * 1024,
        }
    )


@pytest.fixture
def deliver(tmp_path: Path) -> Deliver:
    """Write a file as a supplier would, and return its path."""

    def write(name: str, content: bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content)
        return str(path)

    return write


@pytest.fixture
def aws(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Three buckets, and a queue that hears of what arrives in the first."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    urllib.request.urlopen(f"http://{host}:{port}/moto-api/reset", data=b"").close()  # its state is the process's
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "eu-central-1")
    s3, sqs = boto3.Session().client("s3"), boto3.Session().client("sqs")
    for each in ("incoming", "processed", "rejected"):
        s3.create_bucket(Bucket=each, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    queue = sqs.create_queue(QueueName="incoming")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    s3.put_bucket_notification_configuration(
        Bucket="incoming",
        NotificationConfiguration={"QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]},
    )
    yield settings.model_copy(
        update={
            "incoming_queue_url": queue,
            "incoming_bucket": "incoming",
            "processed_bucket": "processed",
            "rejected_bucket": "rejected",
        }
    )
    server.stop()
