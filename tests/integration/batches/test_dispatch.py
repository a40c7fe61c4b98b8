"""Whatever arrives is claimed once, ends as a batch or as a refusal, and is archived with its report."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from datetime import UTC, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

import boto3
import orjson
import psycopg
import pytest
import yaml
from kubernetes import client
from moto.server import ThreadedMotoServer

from drills.waiting import wait_until
from rates_app.batches import ledger
from rates_app.batches.formats.source import inspect
from rates_app.batches.model import Terms, Unreadable
from rates_app.batches.pipeline import dispatch, publish
from rates_app.batches.pipeline.dispatch import MAX_ATTEMPTS, MAX_OUTAGES, Dispatcher
from rates_app.batches.pipeline.engine import drive
from rates_app.batches.pipeline.spark import Applications
from rates_app.batches.pipeline.workers import in_process
from rates_app.batches.sources import bucket
from rates_app.batches.sources.folder import FolderSource, FolderUpload
from rates_app.batches.sources.registry import open_source
from rates_app.batches.sources.upload import TooLarge, receive
from rates_app.local.server import free_port
from rates_app.settings import Settings, SettingsError
from rates_app.store.databases import Databases, Unavailable
from tests.serving import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rates_app.batches.model import Batch
    from rates_app.batches.sources.delivery import Delivery, Source, Upload

HEADER = b"orig_code,dest_code,day,price\n"
GOOD = b"CNGGZ,EETLL,2021-01-01,1244\n"
BAD = b"XXXXX,EETLL,2021-01-01,1244\n"
#: Counts the sessions that wait for the lock of a content.
WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "charts" / "golden" / "prod-spark-ingest.yaml"


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


def test_files_are_archived_with_their_reports(settings: Settings) -> None:
    arrive(settings, "acme/good.csv", HEADER + GOOD * 3, age=90)
    arrive(settings, "bad.csv", HEADER + GOOD + BAD + b"a,b\n", age=80)
    arrive(settings, "acme/same-again.csv", HEADER + GOOD * 3, age=70)
    arrive(settings, "utf32.csv", HEADER.decode().encode("utf-32"), age=60)
    dispatch_all(settings)
    assert names(settings, "incoming") == []
    # What was delivered twice is one batch, and one file.
    assert names(settings, "processed") == ["1-good.csv", "1-good.csv.report.json"]
    assert (settings.data_dir / "processed" / "1-good.csv").read_bytes() == HEADER + GOOD * 3
    tag = names(settings, "rejected")[-1].split("-")[1]
    assert names(settings, "rejected") == [
        "2-bad.csv",
        "2-bad.csv.rejects.csv",
        "2-bad.csv.report.json",
        f"unread-{tag}-utf32.csv",
        f"unread-{tag}-utf32.csv.report.json",
    ]
    published = report(settings, "processed/1-good.csv.report.json")
    assert (published["state"], published["rows"], published["supplier"]) == ("published", 3, "acme")
    assert "2 rejected rows" in report(settings, "rejected/2-bad.csv.report.json")["failure"]
    assert (settings.data_dir / "rejected" / "2-bad.csv.rejects.csv").read_text().splitlines() == [
        "line,field,reason,value",
        "3,orig_code,is not a known port,XXXXX",
        '4,row,does not have the 4 values that the header names,"a,b"',
    ]
    assert "UTF-8" in report(settings, f"rejected/unread-{tag}-utf32.csv.report.json")["failure"]


def test_a_file_that_is_still_being_written_is_left_alone(settings: Settings) -> None:
    arrive(settings, ".hidden.csv", HEADER + GOOD)
    arrive(settings, "copy.csv.partial", HEADER + GOOD)
    growing = arrive(settings, "growing.csv", HEADER + GOOD)
    # Python's own process may hold a lease on what it has open itself, so another one writes.
    writer = subprocess.Popen(
        [sys.executable, "-c", f"f = open({str(growing)!r}, 'a'); print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert writer.stdout is not None
    writer.stdout.readline()
    source = folders(settings)
    assert source.claim(0) is None
    writer.communicate(b"\n")
    delivery = source.claim(0)
    assert delivery is not None
    assert delivery.name == "growing.csv"


def test_a_file_counts_as_complete_when_it_was_seen_unchanged(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = arrive(settings, "a.csv", HEADER + GOOD, age=3600)  # a clock of another machine says nothing
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    source = folders(settings, settle_seconds=10)
    assert source.claim(0) is None
    now += 9
    path.write_bytes(HEADER + GOOD * 2)
    assert source.claim(0) is None
    now += 9
    assert source.claim(0) is None, "it changed nine seconds ago"
    now += 1
    assert source.claim(0) is not None


def test_a_file_is_taken_by_one_process_and_after_its_release_by_another(settings: Settings) -> None:
    arrive(settings, "a.csv", HEADER + GOOD)
    first, second = folders(settings), folders(settings)
    delivery = first.claim(0)
    assert delivery is not None
    assert second.claim(0) is None
    delivery.defer(60)
    assert first.claim(0) is None, "it is left alone for a minute"
    assert second.claim(0) is not None


def test_many_dispatchers_share_a_folder_and_stop_cleanly(settings: Settings) -> None:
    environment = os.environ | {
        "RATES_DATABASE_URL": settings.database_url.get_secret_value(),
        "RATES_DATA_DIR": str(settings.data_dir),
        "RATES_HOST": "127.0.0.1",
        "RATES_LOG_LEVEL": "info",
    }
    ports = [free_port() for _ in range(2)]
    for number in range(12):
        arrive(settings, f"s{number % 3}/{number}.csv", HEADER + GOOD * (number + 1))
    dispatchers = [
        subprocess.Popen(
            [Path(sys.executable).with_name("rates"), "dispatch"],
            env=environment | {"RATES_PORT": str(port)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for port in ports
    ]
    wait_until(lambda: not names(settings, "incoming"), seconds=240, pause=0.1)
    for dispatcher in dispatchers:
        dispatcher.send_signal(signal.SIGTERM)
    logs = [[json.loads(line) for line in dispatcher.communicate()[0].splitlines()] for dispatcher in dispatchers]
    assert [dispatcher.returncode for dispatcher in dispatchers] == [0, 0]
    archived = [[line["batch_id"] for line in log if line["event"] == "delivery_archived"] for log in logs]
    assert sorted(archived[0] + archived[1]) == list(range(1, 13)), "each file was archived by exactly one"
    assert [(batch.state, batch.rows) for batch in sorted(batches(settings), key=lambda b: b.rows or 0)] == [
        ("published", number + 1) for number in range(12)
    ]


def test_a_dispatcher_is_ready_while_it_works_on_its_first_delivery(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise its update would wait for a batch that may take an hour."""
    arrive(settings, "a.csv", HEADER + GOOD)
    dispatcher = dispatching(settings, folders(settings), None)
    ready = []

    def handle(_: Delivery) -> None:
        ready.append(dispatcher.ready)
        dispatcher.stop()

    monkeypatch.setattr(dispatcher, "handle", handle)
    dispatcher.run()
    assert ready == [True]


def test_a_fault_that_does_not_pass_fails_the_batch_and_keeps_the_file(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise publish.VerificationFailed("rows differ")

    monkeypatch.setattr(publish, "verify", broken)
    arrive(settings, "a.csv", HEADER + GOOD)
    source = folders(settings)
    dispatcher = dispatching(settings, source, None)
    for _ in range(MAX_ATTEMPTS):
        assert names(settings, "rejected") == []
        retry_now(settings)
        source = folders(settings)
        delivery = source.claim(0)
        assert delivery is not None
        dispatcher.handle(delivery)
    assert names(settings, "rejected") == ["1-a.csv", "1-a.csv.report.json"]
    (batch,) = batches(settings)
    assert batch.state == "failed"
    assert "rows differ" in str(batch.failure)


def test_an_uploaded_check_is_checked_and_publishes_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    databases = Databases(settings)
    databases.open()

    def upload(terms: Terms, rows: int, supplier: str = "acme") -> Batch:
        body = io.BytesIO(HEADER + GOOD * rows)
        return receive(settings, databases, body, name="a.csv", supplier=supplier, terms=terms)[0]

    check = upload(Terms(check=True), 3)
    dispatch_all(settings)
    assert [(batch.id, batch.state) for batch in batches(settings)] == [(check.id, "checked")]
    assert names(settings, "processed")[0] == f"{check.id}-a.csv"

    # A dispatcher ends before it has archived the file: the next one finds the check again.
    interrupted = upload(Terms(check=True), 4)
    with monkeypatch.context() as patch:
        patch.setattr("rates_app.batches.pipeline.dispatch._archive", lambda *_: (_ for _ in ()).throw(SystemExit))
        source = folders(settings)
        delivery = source.claim(0)
        assert delivery is not None
        with pytest.raises(SystemExit):
            dispatching(settings, source, None).handle(delivery)
        delivery.defer(0)  # as the system unlocks the files of a process that has ended
    assert batches(settings)[-1].state == "checked"
    dispatch_all(settings)
    assert names(settings, "incoming") == []
    assert [(batch.id, batch.state) for batch in batches(settings)[1:]] == [(interrupted.id, "checked")]

    # Equal content of another supplier, or delivered meanwhile, is a separate batch.
    upload(Terms(check=True), 5)
    upload(Terms(), 5, supplier="other")
    dispatch_all(settings)
    assert sorted((batch.supplier, batch.state) for batch in batches(settings)[2:]) == [
        ("acme", "checked"),
        ("other", "published"),
    ]
    databases.close()


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


def objects(bucket: str) -> list[str]:
    found = boto3.Session().client("s3").list_objects_v2(Bucket=bucket)
    return [str(item["Key"]) for item in found.get("Contents", [])]


def hidden_messages(settings: Settings) -> tuple[int, int]:
    """Return the number of visible messages and that of messages which a dispatcher has received."""
    assert settings.incoming_queue_url is not None
    sqs = boto3.Session().client("sqs")
    counts = sqs.get_queue_attributes(QueueUrl=settings.incoming_queue_url, AttributeNames=["All"])["Attributes"]
    return int(counts["ApproximateNumberOfMessages"]), int(counts["ApproximateNumberOfMessagesNotVisible"])


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
    monkeypatch.syspath_prepend(str(ROOT / "pulumi"))
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


@pytest.mark.parametrize("name", ["a.part", "a.manifest.json", "a.sha256", "a.csv~", "a.csv"])
def test_an_upload_of_any_name_is_taken_by_the_dispatcher(settings: Settings, name: str) -> None:
    databases = Databases(settings)
    databases.open()
    receive(settings, databases, io.BytesIO(HEADER + GOOD), name=name, supplier="acme")
    databases.close()
    dispatch_all(settings)
    assert [(batch.name, batch.state) for batch in batches(settings)] == [(name, "published")]


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


class Operator:
    """A Kubernetes API server that knows SparkApplications and nothing else."""

    def __init__(self) -> None:
        self.applications: dict[str, dict[str, Any]] = {}
        self.refusal = 0

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        prefix = "/apis/sparkoperator.k8s.io/v1beta2/namespaces/rates/sparkapplications"
        assert path.startswith(prefix), path
        name = path.removeprefix(prefix).lstrip("/")
        name = name.partition("?")[0]
        if self.refusal:
            return self.refusal, {"kind": "Status", "code": self.refusal}
        if method == "POST":
            application = json.loads(body)
            name = application["metadata"]["name"]
            if name in self.applications:
                return 409, {"kind": "Status", "reason": "AlreadyExists"}
            self.applications[name] = application
            return 201, application
        if not name:
            return 200, {"items": list(self.applications.values())}
        if name in self.applications:
            return 200, self.applications.pop(name) if method == "DELETE" else self.applications[name]
        return 404, {"kind": "Status", "reason": "NotFound"}


@pytest.fixture
def operator() -> Iterator[tuple[Operator, Applications]]:
    served = Operator()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            status, answer = served.answer(self.command, self.path, self.rfile.read(length))
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_DELETE = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Suppress the request log."""

    with serving(Handler) as url:
        yield served, Applications(client.ApiClient(client.Configuration(host=url)))


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """What the chart gives the dispatcher."""
    maps = [part for part in yaml.safe_load_all(GOLDEN.read_text()) if part and part["kind"] == "ConfigMap"]
    (text,) = (
        part["data"]["sparkapplication.yaml"] for part in maps if part["metadata"]["name"] == "rates-batch-template"
    )
    path = tmp_path / "sparkapplication.yaml"
    path.write_text(text)
    return path


@pytest.fixture
def big(settings: Settings, template: Path) -> Settings:
    return settings.model_copy(update={"spark_template": template, "spark_above_rows": 10})


def test_a_large_batch_is_submitted_once_and_archived_at_its_end(
    big: Settings, operator: tuple[Operator, Applications]
) -> None:
    served, applications = operator
    path = arrive(big, 'odd "name".csv', HEADER + GOOD * 500)
    arrive(big, "small.csv", HEADER + GOOD * 5, age=50)
    source = folders(big)
    dispatcher = dispatching(big, source, applications)
    for _ in range(2):
        delivery = source.claim(0)
        assert delivery is not None
        dispatcher.handle(delivery)
    assert names(big, "processed") == ["2-small.csv", "2-small.csv.report.json"], "small ones do not wait for Spark"
    (application,) = served.applications.values()
    *arguments, address = application["spec"]["arguments"]
    assert arguments == ["--batch", "1", "--source"]
    assert application["metadata"]["name"] == "batch-1"
    dispatcher.follow()
    assert names(big, "incoming") == [path.name]

    # The same after a restart of the dispatcher: the application is there, and is followed.
    twin = dispatching(big, source := folders(big), applications)
    assert source.claim(0) is None, "the file is still locked"
    dispatcher.stop()
    dispatcher.run()
    delivery = source.claim(0)
    assert delivery is not None
    twin.handle(delivery)
    assert len(served.applications) == 1

    with psycopg.connect(big.database_url.get_secret_value()) as connection:  # as the driver in the cluster does
        drive(connection, big, 1, address)
    twin.follow()
    assert names(big, "incoming") == []
    assert '1-odd "name".csv' in names(big, "processed")


def test_a_batch_in_spark_whose_message_comes_twice_is_archived_once(
    aws: Settings, template: Path, operator: tuple[Operator, Applications]
) -> None:
    settings = aws.model_copy(update={"spark_template": template, "spark_above_rows": 10})
    s3, sqs = boto3.Session().client("s3"), boto3.Session().client("sqs")
    s3.put_object(Bucket="incoming", Key="acme/a.csv", Body=HEADER + GOOD * 500)
    event = {"Records": [{"s3": {"object": {"key": "acme/a.csv"}}}]}
    sqs.send_message(QueueUrl=str(settings.incoming_queue_url), MessageBody=json.dumps(event))
    source = open_source(settings)
    dispatcher = dispatching(settings, source, operator[1])
    while sum(hidden_messages(settings)) > hidden_messages(settings)[1]:
        if delivery := source.claim(1):
            dispatcher.handle(delivery)
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        drive(connection, settings, 1, operator[0].applications["batch-1"]["spec"]["arguments"][-1])
    dispatcher.follow()
    while sum(hidden_messages(settings)):
        if delivery := source.claim(1):
            dispatcher.handle(delivery)
    assert objects("processed") == ["acme/1-a.csv", "acme/1-a.csv.report.json"]
    assert hidden_messages(settings) == (0, 0)


@pytest.mark.parametrize("state", ["SUBMITTED", "SUBMISSION_FAILED", "FAILING", "PENDING_RERUN", "UNKNOWN"])
def test_an_application_that_the_operator_retries_is_followed(
    big: Settings, operator: tuple[Operator, Applications], state: str
) -> None:
    served, applications = operator
    arrive(big, "a.csv", HEADER + GOOD * 500)
    source = folders(big)
    dispatcher = dispatching(big, source, applications)
    delivery = source.claim(0)
    assert delivery is not None
    dispatcher.handle(delivery)
    served.applications["batch-1"]["status"] = {"applicationState": {"state": state, "errorMessage": "for now"}}
    dispatcher.follow()
    assert folders(big).claim(0) is None, "the file is still locked"


@pytest.mark.parametrize("what", ["failed", "deleted"])
def test_a_delivery_is_released_when_spark_gives_up(
    big: Settings, operator: tuple[Operator, Applications], what: str
) -> None:
    served, applications = operator
    path = arrive(big, "a.csv", HEADER + GOOD * 500)
    source = folders(big)
    dispatcher = dispatching(big, source, applications)
    delivery = source.claim(0)
    assert delivery is not None
    dispatcher.handle(delivery)
    if what == "failed":
        served.applications["batch-1"]["status"] = {"applicationState": {"state": "FAILED", "errorMessage": "OOM"}}
    else:
        served.applications.clear()
    dispatcher.follow()
    assert names(big, "incoming") == [path.name]
    assert folders(big).claim(0) is not None


def test_a_cluster_that_refuses_leaves_the_delivery_for_later(
    big: Settings, operator: tuple[Operator, Applications]
) -> None:
    served, applications = operator
    served.refusal = 403
    path = arrive(big, "a.csv", HEADER + GOOD * 500)
    source = folders(big)
    delivery = source.claim(0)
    assert delivery is not None
    dispatching(big, source, applications).handle(delivery)
    assert names(big, "incoming") == [path.name]
    assert folders(big).claim(0) is not None


@pytest.mark.parametrize(
    "change", [("$batch_id", "$batch"), ("kind: SparkApplication", "kind: Pod"), ("spec:", "spec")]
)
def test_a_template_that_is_none_is_an_error(template: Path, change: tuple[str, str]) -> None:
    from rates_app.batches.pipeline.spark import render  # noqa: PLC0415

    template.write_text(template.read_text().replace(*change))
    with pytest.raises(SettingsError, match="RATES_SPARK_TEMPLATE"):
        render(template, 1, "s3://incoming/a.csv")
