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
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from drills.waiting import wait_until
from rates_app.batches.model import Terms
from rates_app.batches.pipeline import publish
from rates_app.batches.pipeline.dispatch import MAX_ATTEMPTS
from rates_app.batches.sources.upload import receive
from rates_app.local.server import free_port
from rates_app.store.databases import Databases
from tests.integration.batches.dispatching import (
    BAD,
    GOOD,
    HEADER,
    arrive,
    batches,
    dispatch_all,
    dispatching,
    folders,
    names,
    report,
    retry_now,
)

if TYPE_CHECKING:
    from rates_app.batches.model import Batch
    from rates_app.batches.sources.delivery import Delivery
    from rates_app.settings import Settings


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
        raise publish.VerificationFailed("rows differ\0")  # which PostgreSQL does not store

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
    assert "rows differ\\x00" in str(batch.failure)


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


@pytest.mark.parametrize("name", ["a.part", "a.manifest.json", "a.sha256", "a.csv~", "a.csv"])
def test_an_upload_of_any_name_is_taken_by_the_dispatcher(settings: Settings, name: str) -> None:
    databases = Databases(settings)
    databases.open()
    receive(settings, databases, io.BytesIO(HEADER + GOOD), name=name, supplier="acme")
    databases.close()
    dispatch_all(settings)
    assert [(batch.name, batch.state) for batch in batches(settings)] == [(name, "published")]


@pytest.mark.parametrize("name", ["odd\n\x1b[2J.csv", "bidi\u202etxt.csv", "x" * 251 + ".csv"])
def test_an_odd_name_is_escaped_in_ledger_and_log(
    name: str, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    arrive(settings, name, HEADER + GOOD)
    dispatch_all(settings)
    (batch,) = batches(settings)
    assert batch.state == "published"
    assert batch.name.isprintable()
    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())
    assert len(names(settings, "processed")) == 2


def test_a_dispatcher_removes_leftovers_when_it_starts(settings: Settings) -> None:
    leftover = arrive(settings, ".killed.partial", b"", age=3 * 24 * 60 * 60)
    dispatcher = dispatching(settings, folders(settings), None)
    running = threading.Thread(target=dispatcher.run)
    running.start()
    try:
        wait_until(lambda: not leftover.exists())
    finally:
        dispatcher.stop()
        running.join()
