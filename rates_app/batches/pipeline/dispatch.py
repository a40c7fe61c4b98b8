"""The role ``dispatch``: take deliveries as they arrive, have each ingested by the engine that fits, put them away.

A delivery stays where it is until its batch has ended, so nothing depends on this process: whatever it had taken when
it was killed, another takes again and goes on from the ledger.
"""

from __future__ import annotations

import csv
import signal
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
import psycopg
import structlog
from prometheus_client import Counter

from rates_app.batches import ledger
from rates_app.batches.formats.source import estimate_rows, inspect
from rates_app.batches.model import Reject, Unreadable
from rates_app.batches.pipeline import engine, publish
from rates_app.batches.sources.inbox import open_inbox
from rates_app.ops.exporter import start_exporter
from rates_app.ops.text import csv_cell
from rates_app.store.databases import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rates_app.batches.formats.source import Source
    from rates_app.batches.model import Batch
    from rates_app.batches.pipeline.spark import Applications
    from rates_app.batches.sources.delivery import Delivery, Destination, Inbox
    from rates_app.settings import Settings
    from rates_app.store.databases import Connection

log = structlog.get_logger()

DELIVERIES = Counter("rates_deliveries", "Deliveries that this dispatcher has worked on.", ["engine", "result"])

#: States whose files are archived as processed: an operator may still publish a held batch.
KEPT_STATES = {"published", "withdrawn", "held", "checked"}

#: How long to wait for a delivery before looking after those that Spark works on, in seconds.
WAIT_SECONDS = 5.0

#: A fault that is not the supplier's may pass: a batch is failed when it was tried this often by this process.
MOST_ATTEMPTS = 5


class InSpark(NamedTuple):
    """A delivery that Spark works on."""

    delivery: Delivery
    batch_id: int
    application: dict[str, Any]


class Dispatcher:
    """Takes deliveries one after the other; those in Spark are followed meanwhile.

    Args:
        settings: What is big, and the template for Spark.
        inbox: Where deliveries come from.
        applications: The cluster's; None where Spark is not used.
    """

    def __init__(self, settings: Settings, inbox: Inbox, applications: Applications | None) -> None:
        self._settings = settings
        self._inbox = inbox
        self._applications = applications
        self._in_spark: list[InSpark] = []
        self._attempts: dict[int, int] = {}
        self._stopping = threading.Event()
        self._reachable = False

    @property
    def ready(self) -> bool:
        """Whether inbox and ledger could be reached the last time."""
        return self._reachable and not self._stopping.is_set()

    def stop(self) -> None:
        """Take no more deliveries; the one in work is finished."""
        self._stopping.set()

    def run(self) -> None:
        """Work until stopped. What Spark works on then is left to it, and to the next dispatcher to put away."""
        while not self._stopping.is_set():
            try:
                self.follow()
                delivery = self._inbox.take(WAIT_SECONDS)
                self._reachable = True  # also for as long as the delivery takes: an update waits for it
                if delivery:
                    self.handle(delivery)
            except Unavailable as error:
                self._reachable = False
                log.warning("deliveries cannot be taken", error=str(error))
                self._stopping.wait(WAIT_SECONDS)
        for waiting in self._in_spark:
            waiting.delivery.release()

    def handle(self, delivery: Delivery) -> None:
        """Take one delivery to its end, or to Spark; what cannot be done now is released.

        Raises:
            Unavailable: The inbox cannot be reached.
        """
        try:
            self._work_on(delivery)
        except (psycopg.OperationalError, engine.Interrupted, OSError, Unavailable) as error:
            log.warning("delivery will be taken again", name=delivery.name, error=str(error).strip())
            DELIVERIES.labels("none", "released").inc()
            delivery.release()

    def _work_on(self, delivery: Delivery) -> None:
        try:
            source = inspect(delivery.uri)
        except Unreadable as error:
            _reject_unread(delivery, str(error))
            return
        with engine.connect(self._settings) as connection:
            batch, _ = ledger.accept(connection, source, name=delivery.name, supplier=delivery.supplier)
            connection.commit()
            if batch.ended_at is None and self._applications and self._is_big(source):
                self._to_spark(self._applications, delivery, batch)
                return
            try:
                batch, _ = engine.drive(connection, self._settings, batch.id, delivery.uri)
            except psycopg.OperationalError:
                raise
            except (psycopg.Error, engine.Interrupted, publish.VerificationFailed) as error:
                batch = self._fault(connection, batch, error)
            _put_away(connection, delivery, batch)
        DELIVERIES.labels("in-process", batch.state).inc()

    def _is_big(self, source: Source) -> bool:
        """Tell whether Spark should do it; a compressed file has one reader whatever the engine."""
        return source.compression == "none" and estimate_rows(source) > self._settings.spark_above_rows

    def _to_spark(self, applications: Applications, delivery: Delivery, batch: Batch) -> None:
        from rates_app.batches.pipeline.spark import render  # noqa: PLC0415 - the cluster's client is needed in a cluster only

        assert self._settings.spark_template is not None  # noqa: S101 - there are no applications without one
        application = render(self._settings.spark_template, batch.id, delivery.uri)
        applications.submit(application)
        log.info("batch goes to Spark", batch_id=batch.id, application=application["metadata"]["name"])
        self._in_spark.append(InSpark(delivery, batch.id, application))

    def follow(self) -> None:
        """Put away what Spark has finished; release what it has given up."""
        from rates_app.batches.pipeline.spark import SparkFailed  # noqa: PLC0415 - see above

        for waiting in list(self._in_spark):
            try:
                with engine.connect(self._settings) as connection:
                    batch = ledger.find_batch(connection, waiting.batch_id)
                    if batch.ended_at is not None:
                        _put_away(connection, waiting.delivery, batch)
                        DELIVERIES.labels("spark", batch.state).inc()
                        self._in_spark.remove(waiting)
                        continue
                assert self._applications is not None  # noqa: S101 - they submitted it
                self._applications.check(waiting.application)
            except SparkFailed as error:
                log.error("Spark did not finish the batch", batch_id=waiting.batch_id, error=str(error))  # noqa: TRY400
                DELIVERIES.labels("spark", "released").inc()
                self._in_spark.remove(waiting)
                waiting.delivery.release()
            except (psycopg.OperationalError, Unavailable) as error:
                log.warning("cannot look after a batch", batch_id=waiting.batch_id, error=str(error).strip())

    def _fault(self, connection: Connection, batch: Batch, error: Exception) -> Batch:
        """Count a fault of ours; the last attempt fails the batch.

        Raises:
            Interrupted: It may be tried again.
        """
        attempts = self._attempts[batch.id] = self._attempts.get(batch.id, 0) + 1
        log.error("batch met a fault", batch_id=batch.id, attempt=attempts, error=str(error).strip())
        if attempts < MOST_ATTEMPTS:
            raise engine.Interrupted(str(error)) from error
        with connection.transaction():
            return publish.fail(connection, batch.id, f"given up after {attempts} attempts: {str(error).strip()}")


def _put_away(connection: Connection, delivery: Delivery, batch: Batch) -> None:
    """Write the reports of a batch that has ended, and move its file."""
    with TemporaryDirectory() as folder:
        reports = [Path(folder) / "report.json"]
        progress = ledger.progress(connection, batch.id)
        report = {name: getattr(batch, name) for name in batch.__slots__} | {
            "content_hash": batch.content_hash.hex(),
            "total_cents": None if batch.total_cents is None else int(batch.total_cents),
            "rows_per_second": progress.rows_per_second,
        }
        reports[0].write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
        if batch.rejected:
            reports.append(Path(folder) / "rejects.csv")
            _write_rejects(reports[1], ledger.iter_rejects(connection, batch.id))
        destination: Destination = "processed" if batch.state in KEPT_STATES else "rejected"
        # A cursor that is read to its end leaves a transaction open: end it before a move that may take long.
        connection.commit()
        delivery.put_away(destination, f"{batch.id}-{batch.name}", reports)
    log.info("delivery put away", batch_id=batch.id, state=batch.state, place=destination)


def _write_rejects(path: Path, rejects: Iterator[Reject]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Reject._fields)
        writer.writerows((line, csv_cell(field), reason, csv_cell(value)) for line, field, reason, value in rejects)


def _reject_unread(delivery: Delivery, reason: str) -> None:
    """Put away a file that is no batch at all, so that the ledger knows nothing of it."""
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        report.write_bytes(orjson.dumps({"state": "refused", "failure": reason}, option=orjson.OPT_INDENT_2))
        delivery.put_away("rejected", f"unread-{delivery.name}", [report])
    log.warning("delivery is no batch", name=delivery.name, reason=reason)
    DELIVERIES.labels("none", "refused").inc()


def run(settings: Settings) -> None:
    """Dispatch until SIGTERM.

    Args:
        settings: Everything.

    Raises:
        SettingsError: A template for Spark is given, but it or a cluster is not there.
    """
    applications = None
    if settings.spark_template is not None:
        from rates_app.batches.pipeline.spark import Applications, connect, render  # noqa: PLC0415 - needed in a cluster only

        applications = Applications(connect())
        render(settings.spark_template, 0, "")  # a wrong one stops the start, not the first big batch
    dispatcher = Dispatcher(settings, open_inbox(settings), applications)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: dispatcher.stop())
    exporter = start_exporter(settings.host, settings.port, lambda: dispatcher.ready)
    log.info("waiting for deliveries", port=exporter.server_port)
    dispatcher.run()
    exporter.shutdown()
