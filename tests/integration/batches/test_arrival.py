"""No delivery can harm another: each ends as a batch, as a refusal or in quarantine, and others are unaffected."""

from __future__ import annotations

import gzip
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from prometheus_client import REGISTRY

from rates_app.batches import ledger
from rates_app.batches.content import ContentChanged, open_content, pin
from rates_app.batches.formats.inspection import inspect
from rates_app.batches.ledger import attempts
from rates_app.batches.pipeline import dispatch, engine
from rates_app.batches.pipeline.dispatch import MAX_ATTEMPTS, MAX_OUTAGES, Dispatcher
from rates_app.batches.pipeline.engine import OUTAGE_SECONDS, connect, drive, drive_through_outages, ingest
from rates_app.batches.pipeline.expanded import remove_leftovers
from rates_app.batches.pipeline.workers import in_process
from rates_app.batches.sources.folder import FolderSource
from rates_app.store.databases import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rates_app.batches.formats.inspection import RecognisedFile
    from rates_app.batches.pipeline.workers import Item
    from rates_app.settings import Settings

HEADER = b"orig_code,dest_code,day,price\n"
ROW = b"CNGGZ,EETLL,2021-01-01,1000\n"


class Incoming:
    """A folder with its dispatcher, in which no delay has to elapse."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.restart()

    def restart(self) -> None:
        """Start a new dispatcher, as after the end of the process."""
        self.source = FolderSource(self.settings, settle_seconds=0)
        self.dispatcher = Dispatcher(self.settings, self.source, None, in_process(self.settings))

    def put(self, name: str, content: bytes) -> Path:
        path = self.source.incoming / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def dispatch(self, rounds: int = 1) -> None:
        for _ in range(rounds):
            while delivery := self.source.claim(0):
                self.dispatcher.handle(delivery)
            self.sql("UPDATE delivery_attempts SET next_attempt_at = now()")
            self.source = self.dispatcher._source = FolderSource(self.settings, settle_seconds=0)

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.settings.database_url.get_secret_value()) as connection:
            cursor = connection.execute(query)
            return cursor.fetchall() if cursor.description else []

    def batches(self) -> list[tuple[str, str]]:
        return self.sql("SELECT name, state FROM batches ORDER BY id")

    def files(self, folder: str) -> list[str]:
        found = (self.settings.data_dir / folder).rglob("*")
        return sorted(path.name for path in found if path.is_file())

    def report(self, prefix: str) -> dict[str, Any]:
        (path,) = (self.settings.data_dir / "rejected").glob(f"{prefix}*.report.json")
        report: dict[str, Any] = json.loads(path.read_bytes())
        return report


def terminate_drivers(settings: Settings) -> None:
    """End the sessions that drive batches, as a restart of the database does."""
    with psycopg.connect(settings.database_url.get_secret_value()) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rates-ingest'"
            " AND datname = current_database()"
        )


@pytest.fixture
def incoming(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Incoming:
    # On a busy machine, no second attempt may begin before the test resets the delays.
    monkeypatch.setattr(attempts, "FIRST_DELAY_SECONDS", 600)
    monkeypatch.setattr(dispatch, "WAIT_SECONDS", 600.0)
    return Incoming(settings)


def failing_for(bad: str, error: Exception) -> Callable[[str], RecognisedFile]:
    """Make an inspection that fails for one name."""

    def failing(address: str) -> RecognisedFile:
        if bad in address:
            raise error
        return inspect(address)

    return failing


@pytest.mark.parametrize("error", [ValueError("an internal error"), UnicodeDecodeError("utf-8", b"\xfc", 0, 1, "bad")])
def test_a_delivery_that_fails_is_counted_and_quarantined_while_others_continue(
    incoming: Incoming, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(dispatch, "inspect", failing_for("bad.csv", error))
    incoming.put("acme/bad.csv", HEADER + ROW)
    incoming.put("beta/good.csv", HEADER + ROW * 2)
    incoming.dispatch()
    assert incoming.batches() == [("good.csv", "published")]
    assert incoming.sql("SELECT attempts, outages FROM delivery_attempts") == [(1, 0)]
    incoming.restart()  # the count is not the dispatcher's
    incoming.dispatch(MAX_ATTEMPTS - 1)
    assert incoming.files("incoming") == []
    assert incoming.files("rejected")[0].endswith("-bad.csv")
    report = incoming.report("quarantined-")
    assert (report["state"], report["supplier"]) == ("failed", "acme")
    assert f"given up after {MAX_ATTEMPTS} attempts: {type(error).__name__}" in report["failure"]
    assert incoming.sql("SELECT * FROM delivery_attempts") == []


def test_a_delivery_that_ends_its_dispatcher_is_quarantined(incoming: Incoming) -> None:
    incoming.put("killer.csv", HEADER + ROW)
    incoming.put("good.csv", HEADER + ROW * 2)
    for _ in range(MAX_ATTEMPTS):
        incoming.restart()
        delivery = incoming.source.claim(0)
        while delivery is not None and delivery.name != "killer.csv":
            incoming.dispatcher.handle(delivery)
            delivery = incoming.source.claim(0)
        assert delivery is not None
        with connect(incoming.settings) as connection:  # the attempt begins, and its process ends
            assert attempts.begin(connection, delivery.address).delay == 0
        os.close(delivery._descriptor)
    incoming.restart()
    incoming.dispatch()
    assert incoming.batches() == [("good.csv", "published")]
    assert "every attempt ended its process" in incoming.report("quarantined-")["failure"]


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), Unavailable("the bucket cannot be reached")])
def test_an_outage_is_never_the_suppliers_fault(
    incoming: Incoming, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(dispatch, "inspect", failing_for("good.csv", error))
    incoming.put("good.csv", HEADER + ROW)
    incoming.dispatch(MAX_ATTEMPTS + 2)
    assert incoming.files("rejected") == []
    assert incoming.sql("SELECT attempts, outages FROM delivery_attempts") == [(0, MAX_ATTEMPTS + 2)]
    assert REGISTRY.get_sample_value("rates_delivery_failures") == MAX_ATTEMPTS + 2
    monkeypatch.setattr(dispatch, "inspect", inspect)
    incoming.dispatch()
    assert incoming.batches() == [("good.csv", "published")]
    assert REGISTRY.get_sample_value("rates_delivery_failures") == 0


def test_an_outage_of_one_delivery_ends_after_its_last_attempt(
    incoming: Incoming, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "inspect", failing_for("a.csv", OSError("Input/output error")))
    incoming.put("a.csv", HEADER + ROW)
    incoming.dispatch(MAX_OUTAGES - 1)
    assert incoming.files("rejected") == []
    incoming.dispatch()
    assert f"given up after {MAX_OUTAGES} attempts" in incoming.report("quarantined-")["failure"]
    assert REGISTRY.get_sample_value("rates_delivery_failures") == 0


def test_attempts_are_further_and_further_apart(settings: Settings) -> None:
    with connect(settings) as connection:
        assert attempts.begin(connection, "file:///a").number == 1
        delays = []
        for _ in range(12):
            delays.append(round(attempts.fail(connection, "file:///a", "x")[1]))
            assert attempts.begin(connection, "file:///a").delay > 0
            connection.execute("UPDATE delivery_attempts SET next_attempt_at = now()")
            assert attempts.begin(connection, "file:///a").delay == 0
    assert delays[:4] == [10, 20, 40, 80]
    assert delays[-1] == attempts.MAX_DELAY_SECONDS


def test_a_manifest_is_verified_against_what_arrived(incoming: Incoming) -> None:
    def deliver(name: str, manifest: object, content: bytes) -> None:
        incoming.put(f"{name}.manifest.json", json.dumps(manifest).encode())
        incoming.put(name, content)

    deliver("good.csv", {"rows": 3, "total": "3000.00"}, HEADER + ROW * 3)
    deliver("short.csv", {"rows": 9}, HEADER + ROW * 4)
    deliver("cut.csv", {"rows": 5, "total": 5000}, HEADER + ROW * 4 + ROW[:-3])
    deliver("altered.csv", {"sha256": "0" * 64}, HEADER + ROW * 6)
    deliver("wrong.csv", {"lines": 7}, HEADER + ROW * 7)
    incoming.dispatch()
    assert dict(incoming.batches()) == {"good.csv": "published", "short.csv": "refused", "cut.csv": "refused"}
    failures = dict(incoming.sql("SELECT name, failure FROM batches"))
    assert failures["short.csv"] == "the file has 4 rows, but 9 were announced: deliver the complete file"
    assert "total 4010.00 USD, but 5000.00 were announced" in failures["cut.csv"]
    unread = [path.read_text() for path in (incoming.settings.data_dir / "rejected").glob("unread-*.report.json")]
    assert len(unread) == 2
    assert "sha256 is 000" in "".join(unread)
    assert "lines: Extra inputs are not permitted" in "".join(unread)
    assert len([name for name in incoming.files("processed") if name.endswith(".manifest.json")]) == 1
    assert incoming.files("incoming") == []


def test_names_in_the_archive_never_replace_each_other(incoming: Incoming) -> None:
    incoming.put("acme/prices.csv", b"")
    incoming.put("beta/prices.csv", b"")
    incoming.dispatch()
    incoming.put("acme/prices.csv", b"\xff\xfeo\0")
    incoming.dispatch()
    assert len([name for name in incoming.files("rejected") if name.endswith("-prices.csv")]) == 3


def test_a_report_names_no_path_of_the_server(incoming: Incoming) -> None:
    for name, content in {
        "empty.csv": b"",
        "cut.csv.gz": b"\x1f\x8b\x08\x00abc",
        "cut.parquet": b"PAR1abcPAR1",
        "long.csv": b"x" * 2**21,
        "utf16.csv": b"\xff\xfeo\0",
    }.items():
        incoming.put(name, content)
    incoming.dispatch()
    reports = [path.read_text() for path in (incoming.settings.data_dir / "rejected").glob("*.report.json")]
    assert len(reports) == 5
    failures = [json.loads(report)["failure"] for report in reports]
    assert all(failures)
    assert not [
        failure for failure in failures if str(incoming.settings.data_dir.parent) in failure or "file://" in failure
    ]


def test_a_file_that_changes_while_it_is_staged_publishes_nothing(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(HEADER + ROW * 30_000)
    small = settings.model_copy(update={"ingest_workers": 1, "slice_bytes": 300_000})

    def workers(task: Callable[[Item], object], items: Sequence[Item], done: Callable[[], None]) -> None:
        for number, item in enumerate(items):
            if number == 1:
                path.write_bytes(HEADER + ROW.replace(b"1000", b"9999") * 30_000)
            task(item)
            done()

    changed, _ = ingest(small, str(path), workers=workers)
    assert changed.state == "refused"
    assert "was replaced, modified or removed" in str(changed.failure)
    path.write_bytes(HEADER + ROW * 30_000)
    again, _ = ingest(settings, str(path))
    assert (again.state, again.id != changed.id) == ("published", True), "the first content is no refused batch"


def test_a_pinned_address_is_the_content_and_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "a#b?c d%20.csv"
    path.write_bytes(b"old")
    address = pin(str(path))
    with open_content(address) as file:
        assert file.read() == b"old"
    path.unlink()
    path.write_bytes(b"new")
    with pytest.raises(ContentChanged):
        inspect(address)


def test_a_driver_whose_connection_is_lost_resumes_on_a_new_one(
    settings: Settings, deliver: Callable[[str, bytes], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the database restarts: every session ends at the same time."""
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    path = pin(deliver("a.csv", HEADER + ROW))
    with connect(settings) as connection:
        batch, _ = ledger.accept(connection, inspect(path), name="a.csv", supplier="acme")
    lost = 0

    def workers(task: Callable[[Item], object], items: Sequence[Item], done: Callable[[], None]) -> None:
        nonlocal lost
        for item in items:
            if lost < 2:
                lost += 1
                terminate_drivers(settings)
            task(item)
            done()

    published, _ = drive_through_outages(settings, batch.id, path, workers=workers)
    assert (published.state, lost) == ("published", 2)
    assert waits[0] == 1.0


def test_a_driver_whose_connections_never_last_gives_up(
    settings: Settings, deliver: Callable[[str, bytes], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the batch itself ends every session: connecting works again each time."""
    elapsed = [0.0]

    def sleep(seconds: float) -> None:
        elapsed[0] += seconds

    monkeypatch.setattr(engine, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: elapsed[0]))
    path = pin(deliver("a.csv", HEADER + ROW))
    with connect(settings) as connection:
        batch, _ = ledger.accept(connection, inspect(path), name="a.csv", supplier="acme")

    def workers(task: Callable[[Item], object], items: Sequence[Item], done: Callable[[], None]) -> None:
        terminate_drivers(settings)

    with pytest.raises(psycopg.OperationalError):
        drive_through_outages(settings, batch.id, path, workers=workers)
    assert OUTAGE_SECONDS < elapsed[0] < 2 * OUTAGE_SECONDS


def test_a_delivery_that_loses_the_database_counts_an_outage_and_backs_off(
    settings: Settings, incoming: Incoming, monkeypatch: pytest.MonkeyPatch
) -> None:
    incoming.put("a.csv", HEADER + ROW)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "stage_slice", lambda *_, **__: terminate_drivers(settings))
        incoming.dispatch()
    incoming.put("b.csv", HEADER + ROW * 2)
    again = incoming.source.claim(0)
    assert again is not None
    incoming.dispatcher.handle(again)
    (recorded,) = incoming.sql("SELECT attempts, outages, next_attempt_at > now() FROM delivery_attempts")
    assert recorded == (0, 1, True)
    incoming.dispatch(2)
    assert {state for _, state in incoming.batches()} == {"published"}


def test_the_dispatcher_does_not_wait_for_a_batch_that_another_process_drives(
    settings: Settings, incoming: Incoming
) -> None:
    incoming.put("a.csv", HEADER + ROW)
    delivery = incoming.source.claim(0)
    assert delivery is not None
    with connect(settings) as other:
        batch, _ = ledger.accept(other, inspect(delivery.address), name="a.csv", supplier="local")
        other.commit()
        other.execute("SELECT pg_advisory_lock(%s, %s)", (ledger.DRIVER_LOCK, batch.id))
        other.commit()
        incoming.dispatcher.handle(delivery)
        assert incoming.batches() == [("a.csv", "received")]
    incoming.restart()
    incoming.dispatch()
    assert incoming.batches() == [("a.csv", "published")]


def test_sessions_of_jobs_notice_when_the_other_end_is_gone(settings: Settings) -> None:
    with connect(settings) as connection:
        shown = {
            name: connection.execute(f"SHOW {name}").fetchone()
            for name in (
                "lock_timeout",
                "idle_in_transaction_session_timeout",
                "tcp_keepalives_idle",
                "tcp_user_timeout",
            )
        }
    assert shown["lock_timeout"] == ("30s",)
    assert shown["idle_in_transaction_session_timeout"] == ("5min",)
    assert shown["tcp_keepalives_idle"] in {("5",), ("0",)}, "sessions over Unix sockets have none"


def test_a_worker_that_ends_its_process_fails_its_delivery_only(
    settings: Settings, incoming: Incoming, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "MAX_ATTEMPTS", 1)
    monkeypatch.setattr(engine, "stage_slice", _die)
    incoming.dispatcher = Dispatcher(settings, incoming.source, None)
    incoming.put("a.csv", HEADER + ROW)
    incoming.dispatch()
    ((count, error),) = incoming.sql("SELECT attempts, error FROM delivery_attempts")
    assert count == 1
    assert "1 tasks could not be done: a worker process ended with status 9" in error
    monkeypatch.undo()
    incoming.dispatch()
    assert incoming.batches() == [("a.csv", "published")]


def _die(*_: object, **__: object) -> None:
    os._exit(9)


def _crash(*_: object) -> None:
    os.abort()


def _take_memory(*_: object, **__: object) -> None:
    bytearray(2**33)


def test_a_file_that_crashes_its_reader_is_refused_and_the_next_is_published(
    settings: Settings, incoming: Incoming, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "MAX_ATTEMPTS", 1)
    incoming.dispatcher = Dispatcher(settings, incoming.source, None)
    for number, (task, fault, reason) in enumerate(
        (
            ("stage_slice", _take_memory, "the file takes more memory to read than a worker may use"),
            ("examine.examine", _crash, "a worker process crashed (SIGABRT) each time it read the file"),
        ),
        start=1,
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"rates_app.batches.pipeline.engine.{task}", fault)
            incoming.put(f"{number}.csv", HEADER + ROW * number)
            incoming.dispatch()
        ((failure,),) = incoming.sql(f"SELECT failure FROM batches WHERE id = {number} AND state = 'refused'")
        assert reason in failure
    incoming.put("3.csv", HEADER + ROW * 3)
    incoming.dispatch()
    assert incoming.batches() == [("1.csv", "refused"), ("2.csv", "refused"), ("3.csv", "published")]


def test_drive_refuses_a_file_that_is_not_there(settings: Settings, deliver: Callable[[str, bytes], str]) -> None:
    path = deliver("a.csv", HEADER + ROW)
    with connect(settings) as connection:
        batch, _ = ledger.accept(connection, inspect(pin(path)), name="a.csv", supplier="acme")
        connection.commit()
        Path(path).unlink()
        refused, _ = drive(connection, settings, batch.id, path)
    assert refused.state == "refused"
    assert "does not exist" in str(refused.failure)


def test_the_plain_copy_of_a_compressed_file_is_removed_on_every_end(
    settings: Settings, incoming: Incoming, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(engine, "stage_slice", failing_task)
        incoming.put("given-up.csv.gz", gzip.compress(HEADER + ROW))
        incoming.dispatch(MAX_ATTEMPTS)
    incoming.put("good.csv.gz", gzip.compress(HEADER + ROW * 2))
    incoming.put("bad.csv.gz", gzip.compress(HEADER + b"CNGGZ,NOWHR,2021-01-01,1\n"))
    incoming.put("cut.csv.gz", gzip.compress(HEADER + ROW * 9)[:-9])
    incoming.dispatch(MAX_ATTEMPTS)
    assert incoming.batches() == [
        ("given-up.csv.gz", "failed"),
        ("good.csv.gz", "published"),
        ("bad.csv.gz", "refused"),
        ("cut.csv.gz", "refused"),
    ]
    assert incoming.files("expanded") == []


def test_a_dispatcher_removes_what_its_predecessor_left(settings: Settings, incoming: Incoming) -> None:
    incoming.put("a.csv", HEADER + ROW)
    incoming.dispatch()
    for name in ("1", "2"):  # batch 2 may be in work elsewhere
        path = settings.data_dir / "expanded" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    with connect(settings) as connection:
        assert remove_leftovers(connection, settings) == 1
    assert incoming.files("expanded") == ["2"]


def failing_task(*_: object, **__: object) -> None:
    raise ValueError("an internal error")


def test_a_supplier_that_has_used_its_quota_waits_and_others_do_not(settings: Settings) -> None:
    incoming = Incoming(settings.model_copy(update={"daily_deliveries": 2}))
    for number in range(3):
        incoming.put(f"flood/{number}.csv", HEADER + ROW * (number + 1))
    incoming.put("acme/a.csv", HEADER + ROW)
    incoming.dispatch()
    assert sorted(incoming.batches()) == [("0.csv", "published"), ("1.csv", "published"), ("a.csv", "published")]
    assert incoming.sql("SELECT attempts, outages FROM delivery_attempts") == [(0, 0)], "waiting is no failure"
    incoming.sql("UPDATE batches SET received_at = received_at - interval '1 day' WHERE name = '0.csv'")
    incoming.dispatch()
    assert incoming.batches()[-1] == ("2.csv", "published")


def test_a_manifest_in_the_folder_replaces_a_published_batch(incoming: Incoming) -> None:
    incoming.put("acme/a.csv", HEADER + ROW)
    incoming.dispatch()
    incoming.put("acme/b.csv.manifest.json", b'{"replaces": 1}')
    incoming.put("acme/b.csv", HEADER + ROW * 2)
    incoming.put("beta/c.csv.manifest.json", b'{"replaces": 2}')  # another supplier's
    incoming.put("beta/c.csv", HEADER + ROW)
    incoming.dispatch()
    assert incoming.batches() == [("a.csv", "withdrawn"), ("b.csv", "published")]
    assert "supplier beta has no batch 2" in incoming.report("unread-")["failure"]


def test_the_report_lists_what_was_assumed_about_the_file(incoming: Incoming) -> None:
    incoming.put("a.csv", (HEADER + ROW).replace(b",", b";"))
    incoming.dispatch()
    report = json.loads((incoming.settings.data_dir / "processed" / "1-a.csv.report.json").read_bytes())
    assert any("semicolon" in assumption for assumption in report["assumptions"])
    assert report["unlisted_rows"] == 0
