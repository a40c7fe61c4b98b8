"""The dispatcher takes objects from a bucket by a queue, and uploads go through the same bucket."""

from __future__ import annotations

import io
import json
import threading
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

import boto3
import psycopg
import pytest

from drills.waiting import wait_until
from rates_app.batches.formats.inspection import inspect
from rates_app.batches.model import Terms, Unreadable
from rates_app.batches.pipeline import dispatch
from rates_app.batches.pipeline.dispatch import MAX_ATTEMPTS, MAX_OUTAGES
from rates_app.batches.sources import bucket
from rates_app.batches.sources.folder import FolderUpload
from rates_app.batches.sources.registry import open_source
from rates_app.batches.sources.upload import TooLarge, receive
from rates_app.local.server import free_port
from rates_app.store.databases import Databases, Unavailable
from tests.integration.batches.dispatching import (
    BAD,
    GOOD,
    HEADER,
    batches,
    dispatch_all,
    dispatching,
    hidden_messages,
    objects,
    retry_now,
)

if TYPE_CHECKING:
    from rates_app.batches.sources.delivery import Upload
    from rates_app.settings import Settings

#: Counts the sessions that wait for the lock of a content.
WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


def test_objects_are_taken_from_the_queue_and_archived(aws: Settings) -> None:
    s3 = boto3.Session().client("s3")
    s3.put_object(Bucket="incoming", Key="acme/März 1+2.csv", Body=HEADER + GOOD * 3)
    s3.put_object(Bucket="incoming", Key="bad.csv", Body=HEADER + BAD)
    s3.put_object(Bucket="incoming", Key="withdrawn-by-the-supplier.csv", Body=HEADER + GOOD)
    s3.delete_object(Bucket="incoming", Key="withdrawn-by-the-supplier.csv")
    source = open_source(aws)
    dispatcher = dispatching(aws, source, None)
    while sum(hidden_messages(aws)):
        if delivery := source.claim(1):
            dispatcher.handle(delivery)
    assert objects("incoming") == []
    assert objects("processed") == ["acme/1-März 1+2.csv", "acme/1-März 1+2.csv.report.json"]
    assert objects("rejected") == ["local/2-bad.csv", "local/2-bad.csv.rejects.csv", "local/2-bad.csv.report.json"]
    assert [(batch.state, batch.supplier) for batch in batches(aws)] == [("published", "acme"), ("refused", "local")]


def test_a_message_is_with_one_dispatcher_and_comes_back_when_released(aws: Settings) -> None:
    boto3.Session().client("s3").put_object(Bucket="incoming", Key="a.csv", Body=HEADER + GOOD)
    source = open_source(aws)
    delivery = source.claim(1)
    while delivery is None:  # S3's test message comes first
        delivery = source.claim(1)
    assert source.claim(0) is None
    assert hidden_messages(aws) == (0, 1)
    delivery.defer(60)
    assert hidden_messages(aws) == (0, 1), "it stays hidden for a while"
    assert objects("incoming") == ["a.csv"]


def test_a_message_is_hidden_long_enough_whatever_the_queue_does_by_default(aws: Settings) -> None:
    queue = str(aws.incoming_queue_url)
    boto3.Session().client("sqs").set_queue_attributes(QueueUrl=queue, Attributes={"VisibilityTimeout": "0"})
    boto3.Session().client("s3").put_object(Bucket="incoming", Key="a.csv", Body=HEADER + GOOD)
    source = open_source(aws)
    while source.claim(1) is None:  # S3's test message comes first
        pass
    assert source.claim(0) is None
    assert hidden_messages(aws) == (0, 1)


def test_a_manifest_in_the_bucket_replaces_a_published_batch(aws: Settings) -> None:
    s3 = boto3.Session().client("s3")
    source = open_source(aws)
    dispatcher = dispatching(aws, source, None)
    for name, rows, manifest in (("a.csv", 1, b"{}"), ("b.csv", 2, b'{"replaces": 1, "rows": 2}')):
        s3.put_object(Bucket="incoming", Key=f"acme/{name}.manifest.json", Body=manifest)
        s3.put_object(Bucket="incoming", Key=f"acme/{name}", Body=HEADER + GOOD * rows)
        while sum(hidden_messages(aws)):
            if delivery := source.claim(1):
                dispatcher.handle(delivery)
    assert [(batch.state, batch.replaces) for batch in batches(aws)] == [("withdrawn", None), ("published", 1)]
    assert objects("incoming") == []
    assert "acme/2-b.csv.manifest.json" in objects("processed")


def test_an_outage_makes_no_dead_letter(aws: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue has the limit of the deployed one; the outage has as many attempts as the ledger allows."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "pulumi"))
    from components.events import MAX_RECEIVES  # noqa: PLC0415

    assert MAX_RECEIVES > MAX_ATTEMPTS, "a delivery that ends its dispatcher is quarantined first"
    sqs, queue = boto3.Session().client("sqs"), str(aws.incoming_queue_url)
    dead = sqs.create_queue(QueueName="dead")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": MAX_RECEIVES})
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"RedrivePolicy": policy})
    boto3.Session().client("s3").put_object(Bucket="incoming", Key="acme/a.csv", Body=HEADER + GOOD)
    now = [0.0]
    monkeypatch.setattr(bucket, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=lambda _: None))
    source = open_source(aws)
    dispatcher = dispatching(aws, source, None)
    monkeypatch.setattr(dispatch, "inspect", _unavailable)
    failures = 0
    while failures < MAX_OUTAGES - 1:
        now[0] += bucket.MAX_HELD_SECONDS + 1
        retry_now(aws)
        if delivery := source.claim(0):
            dispatcher.handle(delivery)
            failures += 1
    assert hidden_messages(aws) == (0, 1), "the dispatcher has held it all the time"
    monkeypatch.setattr(dispatch, "inspect", inspect)
    while sum(hidden_messages(aws)):
        now[0] += bucket.MAX_HELD_SECONDS + 1
        retry_now(aws)
        if delivery := source.claim(0):
            dispatcher.handle(delivery)
    assert [batch.state for batch in batches(aws)] == ["published"]
    assert sqs.receive_message(QueueUrl=dead, WaitTimeSeconds=0).get("Messages") is None


def _unavailable(_address: str) -> NoReturn:
    raise Unavailable("S3 can't be reached")


def test_a_bucket_that_cannot_be_reached_makes_no_dead_letter(aws: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    boto3.Session().client("s3").put_object(Bucket="incoming", Key="acme/a.csv", Body=HEADER + GOOD)
    now = [0.0]
    monkeypatch.setattr(bucket, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=lambda _: None))
    source = open_source(aws)
    with monkeypatch.context() as patch:
        patch.setattr(bucket, "find_object", _unavailable_object)
        for _ in range(10):
            now[0] += bucket.UNREACHABLE_SECONDS + 1
            assert source.claim(0) is None
    assert hidden_messages(aws) == (0, 1)
    now[0] += bucket.UNREACHABLE_SECONDS + 1
    delivery = source.claim(0)
    assert delivery is not None
    delivery.defer(0)
    source.close()
    assert hidden_messages(aws) == (1, 0), "the next dispatcher receives it immediately"


def _unavailable_object(*_: object) -> NoReturn:
    raise Unavailable("S3 can't be reached")


class Endless:
    """A body that fails the test if it is read beyond a limit."""

    def __init__(self, limit: int) -> None:
        self.left = limit

    def read(self, size: int, /) -> bytes:
        assert self.left > 0
        self.left -= size
        return b"x" * size


def test_an_upload_to_the_bucket_appears_when_it_is_in_the_ledger(aws: Settings) -> None:
    databases = Databases(aws)
    databases.open()
    content = HEADER + GOOD * 700_000  # three parts
    batch, new = receive(
        aws, databases, io.BytesIO(content), name="a.csv", supplier="acme", terms=Terms(max_rejected_rows=7)
    )
    assert (new, batch.state, batch.max_rejected_rows, batch.size_bytes) == (True, "received", 7, len(content))
    stored = objects("incoming")
    key, manifest = stored
    assert key.startswith("acme/")
    assert manifest == f"{key}.manifest.json"
    assert boto3.Session().client("s3").get_object(Bucket="incoming", Key=key)["Body"].read() == content

    again, new = receive(aws, databases, io.BytesIO(content), name="a.csv", supplier="acme")
    assert (again, new) == (batch, False)
    with pytest.raises(Unreadable):
        receive(aws, databases, io.BytesIO(b""), name="empty.csv", supplier="acme")
    small = aws.model_copy(update={"max_upload_bytes": 2**24})
    with pytest.raises(TooLarge):
        receive(small, databases, Endless(2**25), name="endless.csv", supplier="acme")
    assert objects("incoming") == stored
    uploads = boto3.Session().client("s3").list_multipart_uploads(Bucket="incoming")
    assert uploads.get("Uploads", []) == []
    databases.close()


@pytest.mark.parametrize("source", ["folder", "bucket"])
def test_an_upload_that_ends_before_the_ledger_is_written_keeps_its_terms(
    settings: Settings, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    if source == "bucket":
        settings = request.getfixturevalue("aws")
    databases = Databases(settings)
    databases.open()
    published, _ = receive(settings, databases, io.BytesIO(HEADER + GOOD), name="a.csv", supplier="acme")
    dispatch_all(settings)
    upload: Any = {"folder": FolderUpload, "bucket": bucket.BucketUpload}[source]
    commit = upload.commit

    def commit_and_end(self: Upload, manifest: bytes | None = None) -> NoReturn:
        commit(self, manifest)
        raise SystemExit

    deadline = datetime(2100, 1, 1, tzinfo=UTC)
    monkeypatch.setattr(upload, "commit", commit_and_end)
    for rows, terms in enumerate(
        (
            Terms(1, check=True),
            Terms(1, expected_rows=99),
            Terms(1, expected_total=Decimal("0.05")),
            Terms(1, replaces=published.id, deadline=deadline),
            Terms(1),
        ),
        start=2,
    ):
        body = io.BytesIO(HEADER + GOOD * rows + BAD)
        with pytest.raises(SystemExit):
            receive(settings, databases, body, name="a.csv", supplier="acme", terms=terms)
    assert len(batches(settings)) == 1
    dispatch_all(settings)
    old, check, short, other_total, replacement, tolerant = batches(settings)
    assert (old.state, old.replaced_by) == ("withdrawn", replacement.id)
    assert (check.state, check.check_only) == ("checked", True)
    assert (short.state, short.failure) == (
        "refused",
        "the file has 4 rows, but 99 were announced: deliver the complete file",
    )
    assert (other_total.state, "0.05 were announced" in str(other_total.failure)) == ("refused", True)
    assert (replacement.state, replacement.deadline) == ("published", deadline)
    assert (tolerant.state, tolerant.rejected) == ("published", 1)

    # The client, which has no response, repeats the delivery.
    monkeypatch.setattr(upload, "commit", commit)
    body = io.BytesIO(HEADER + GOOD * 6 + BAD)
    again, new = receive(settings, databases, body, name="a.csv", supplier="acme", terms=Terms(1, resubmit=True))
    assert (again.id, new) == (tolerant.id, False)
    databases.close()


def test_a_dispatcher_that_claims_a_check_before_it_is_committed_waits_for_it(
    aws: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    databases = Databases(aws)
    databases.open()
    commit = bucket.BucketUpload.commit
    dispatcher = threading.Thread(target=dispatch_all, args=(aws,))

    def commit_and_dispatch(self: bucket.BucketUpload, manifest: bytes | None = None) -> None:
        commit(self, manifest)
        dispatcher.start()
        with psycopg.connect(aws.database_url.get_secret_value(), autocommit=True) as connection:
            wait_until(lambda: connection.execute(WAITING).fetchone() == (1,))

    monkeypatch.setattr(bucket.BucketUpload, "commit", commit_and_dispatch)
    body = io.BytesIO(HEADER + GOOD)
    check, _ = receive(aws, databases, body, name="a.csv", supplier="acme", terms=Terms(check=True))
    dispatcher.join()
    assert [(batch.id, batch.state) for batch in batches(aws)] == [(check.id, "checked")]
    databases.close()


def test_a_bucket_that_cannot_be_reached_is_reported_as_unavailable(
    aws: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    elsewhere = open_source(aws.model_copy(update={"incoming_bucket": "elsewhere"}))
    with pytest.raises(Unavailable, match="elsewhere"):
        elsewhere.upload("acme", "a.csv")
    with pytest.raises(Unavailable, match="RATES_INCOMING_QUEUE_URL"):
        elsewhere.claim(0)


def test_a_manifest_without_its_object_is_warned_about_once(
    aws: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    s3 = boto3.Session().client("s3")
    source = open_source(aws)
    s3.put_object(Bucket="incoming", Key="acme/early.csv.manifest.json", Body=b'{"rows": 1}')
    while hidden_messages(aws) != (0, 1):  # S3's test message comes first
        assert source.claim(1) is None
    assert "incoming_entry_ignored" not in capsys.readouterr().out, "its object may still arrive"
    monkeypatch.setattr(bucket, "STALE_SECONDS", 0)
    s3.put_object(Bucket="incoming", Key="acme/late.csv.manifest.json", Body=b'{"rows": 1}')
    while hidden_messages(aws)[0]:
        assert source.claim(1) is None
    assert hidden_messages(aws) == (0, 1), "only the first is expected back"
    warning = capsys.readouterr().out
    assert warning.count("incoming_entry_ignored") == 1
    assert "acme/late.csv.manifest.json" in warning
    assert objects("incoming") == ["acme/early.csv.manifest.json", "acme/late.csv.manifest.json"]
