"""The role ``dispatch``: claim deliveries as they arrive, ingest each with the suitable engine, archive them.

A delivery stays claimable until its batch has ended. If this process is killed, another one claims its deliveries again
and resumes from the ledger. No delivery can end this process or stop the others: each failure is counted in the ledger
and retried with back-off, and after the last attempt the delivery is quarantined.
"""

from __future__ import annotations

import csv
import hashlib
import signal
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
import psycopg
import structlog
from prometheus_client import Counter, Gauge

from rates_app.batches import ledger
from rates_app.batches.content import ContentChanged
from rates_app.batches.formats.inspection import estimate_rows, inspect
from rates_app.batches.ledger import attempts
from rates_app.batches.model import DEFAULT_TERMS, BatchError, NoSuchBatch, Reject, Terms, Unreadable, WrongState
from rates_app.batches.pipeline import engine, publish
from rates_app.batches.pipeline.expanded import remove_expanded, remove_leftovers
from rates_app.batches.pipeline.workers import in_process
from rates_app.batches.sources.leftovers import remove_leftover_files
from rates_app.batches.sources.manifest import parse_manifest
from rates_app.batches.sources.names import archive_name
from rates_app.batches.sources.registry import open_source
from rates_app.ops.exporter import start_exporter
from rates_app.ops.periodic import Periodic
from rates_app.ops.text import csv_cell, printable
from rates_app.store.databases import Unavailable
from rates_app.store.kept import keep_connections

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rates_app.batches.formats.inspection import RecognisedFile
    from rates_app.batches.model import Batch
    from rates_app.batches.pipeline.spark import Applications
    from rates_app.batches.pipeline.workers import Workers
    from rates_app.batches.sources.delivery import Delivery, Destination, Source
    from rates_app.settings import Settings
    from rates_app.store.databases import Connection

log = structlog.get_logger()

DELIVERIES = Counter("rates_deliveries", "Deliveries that this dispatcher has worked on.", ["engine", "result"])
DELIVERIES.labels("none", "quarantined")  # from the start: the alert needs the increase from 0 to 1
FAILURES = Gauge(
    "rates_delivery_failures",
    "Failed attempts at the unfinished delivery that has failed most often.",
)

#: States whose files are archived as processed: an operator may still publish a held batch.
KEPT_STATES = {"published", "withdrawn", "held", "checked"}

#: Seconds to wait for a delivery before checking the batches in Spark.
WAIT_SECONDS = 5.0

#: Attempts at a delivery before it is quarantined.
MAX_ATTEMPTS = 5

#: Attempts that failed because a service or the system failed, before the delivery is quarantined: half a day of them.
MAX_OUTAGES = 50

#: Characters of an error in the ledger and in a report.
MAX_ERROR_CHARACTERS = 500

#: How soon to claim again a delivery whose batch another process drives.
DRIVEN_ELSEWHERE_SECONDS = 30.0


#: Minimum delay of a delivery beyond its supplier's quota. The source returns it to the queue, so that many of them
#: neither fill this process nor use up the queue's receives.
MIN_QUOTA_DELAY_SECONDS = 60 * 60.0


class InSpark(NamedTuple):
    """A delivery that Spark works on."""

    delivery: Delivery
    batch_id: int
    application: dict[str, Any]


class Dispatcher:
    """Process deliveries one after the other, and follow those that run in Spark.

    Args:
        settings: Which batches are big, and the template for Spark.
        source: Where deliveries come from.
        applications: The cluster's; None where Spark is not used.
        workers: What stages small batches; isolated processes of this machine if not given.
    """

    def __init__(
        self,
        settings: Settings,
        source: Source,
        applications: Applications | None,
        workers: Workers | None = None,
    ) -> None:
        self._settings = settings
        self._source = source
        self._applications = applications
        self._workers = workers or in_process(settings, isolated=True)
        self._in_spark: list[InSpark] = []
        self._stopping = threading.Event()
        self._reachable = False
        #: Attempts during which the database was lost, so that they are not recorded yet: addresses with the reasons.
        self._lost: dict[str, str] = {}
        #: Failed attempts at unfinished deliveries, by their addresses.
        self._failures: dict[str, int] = {}

    @property
    def ready(self) -> bool:
        """Whether source and ledger could be reached the last time."""
        return self._reachable and not self._stopping.is_set()

    def stop(self) -> None:
        """Claim no more deliveries; the one in work is finished."""
        self._stopping.set()

    def run(self) -> None:
        """Work until stopped. Batches in Spark are then left to the next dispatcher."""
        swept = False
        while not self._stopping.is_set():
            try:
                self.follow()
                with engine.connect(self._settings) as connection:  # without it, deliveries should stay in their queue
                    if not swept:
                        remove_leftovers(connection, self._settings)
                        remove_leftover_files(self._settings.data_dir)
                        swept = True
                delivery = self._source.claim(WAIT_SECONDS)
                self._reachable = True  # also for as long as the delivery takes: an update waits for it
                if delivery:
                    self.handle(delivery)
            except (Unavailable, psycopg.OperationalError) as error:
                self._reachable = False
                log.warning("deliveries_not_claimable", error=str(error).strip())
                self._stopping.wait(WAIT_SECONDS)
            except Exception:
                # An error that belongs to no delivery must not stop the work on the others.
                log.exception("dispatcher_fault")
                self._stopping.wait(WAIT_SECONDS)
        for waiting in self._in_spark:
            self._defer(waiting.delivery, 0)
        self._source.close()

    def handle(self, delivery: Delivery) -> None:
        """Process one delivery, or submit it to Spark. A failure is counted, and the delivery deferred."""
        structlog.contextvars.bind_contextvars(delivery=delivery.name, supplier=delivery.supplier)
        begun = False
        try:
            with engine.connect(self._settings) as connection:
                self._record_losses(connection)
                attempt = attempts.begin(connection, delivery.address)
                if attempt.delay:
                    self._defer(delivery, attempt.delay)
                elif attempt.number > MAX_ATTEMPTS or attempt.outages >= MAX_OUTAGES:
                    count = attempt.outages if attempt.number <= MAX_ATTEMPTS else attempt.number - 1
                    self._quarantine(connection, delivery, count, attempt.error or "every attempt ended its process")
                else:
                    begun = True
                    self._attempt(connection, delivery)
        except (psycopg.Error, Unavailable) as error:
            reason = _describe(error)[:MAX_ERROR_CHARACTERS]
            log.warning("delivery_deferred", error=reason)
            if begun:
                self._lost[delivery.address] = reason
            self._defer(delivery, WAIT_SECONDS)
        finally:
            structlog.contextvars.unbind_contextvars("delivery", "supplier")

    def _record_losses(self, connection: Connection) -> None:
        """Record the attempts during which the database was lost.

        Each counts as an outage, with its back-off: a delivery whose statements end the server must not repeat them
        every few seconds.
        """
        for address, reason in list(self._lost.items()):
            failures, _ = attempts.fail(connection, address, reason, outage=True)
            self._count_failures(address, failures)
            del self._lost[address]

    def _attempt(self, connection: Connection, delivery: Delivery) -> None:
        """Work on a delivery: the boundary that no fault in one passes.

        Raises:
            psycopg.Error: The database was lost or refuses, so nothing can be counted.
        """
        try:
            self._work_on(connection, delivery)
            self._count_failures(delivery.address, 0)
        except ContentChanged as error:
            self._changed(connection, delivery, error)
        except ledger.QuotaExceeded as error:
            _end_transaction(connection)
            attempts.suspend(connection, delivery.address)
            log.warning("delivery_over_quota", reason=str(error), retry_seconds=error.retry_seconds)
            DELIVERIES.labels("none", "over_quota").inc()
            self._defer(delivery, max(error.retry_seconds, MIN_QUOTA_DELAY_SECONDS))
        except engine.DrivenElsewhere:
            _end_transaction(connection)
            attempts.suspend(connection, delivery.address)
            self._defer(delivery, DRIVEN_ELSEWHERE_SECONDS)
        except Exception as error:
            if isinstance(error, psycopg.OperationalError) and (connection.broken or connection.closed):
                raise
            # It is counted, logged, and in the end reported with the delivery.
            self._fail(connection, delivery, error, outage=engine.is_outage(error))

    def _fail(self, connection: Connection, delivery: Delivery, error: Exception, *, outage: bool) -> None:
        """Count a failure; the last one quarantines the delivery."""
        _end_transaction(connection)
        expected = isinstance(error, (BatchError, Unavailable, OSError, psycopg.Error))
        reason = _describe(error)
        failures, delay = attempts.fail(connection, delivery.address, reason[:MAX_ERROR_CHARACTERS], outage=outage)
        self._count_failures(delivery.address, failures)
        log.error("delivery_failed", attempt=failures, outage=outage, error=reason, exc_info=not expected)
        if failures >= (MAX_OUTAGES if outage else MAX_ATTEMPTS):
            self._quarantine(connection, delivery, failures, reason)
        else:
            DELIVERIES.labels("none", "deferred").inc()
            self._defer(delivery, delay)

    def _count_failures(self, address: str, failures: int) -> None:
        """Export how often a delivery has failed; 0 when it has ended."""
        self._failures[address] = failures
        self._failures = {each: count for each, count in self._failures.items() if count}
        FAILURES.set(max(self._failures.values(), default=0))

    def _changed(self, connection: Connection, delivery: Delivery, error: ContentChanged) -> None:
        """Return a delivery whose content is gone. Content that has replaced it is claimed as another delivery."""
        log.info("delivery_changed", effect="its new content is a separate delivery", reason=str(error))
        _end_transaction(connection)
        attempts.forget(connection, delivery.address)
        self._count_failures(delivery.address, 0)
        self._defer(delivery, 0)

    def _defer(self, delivery: Delivery, seconds: float) -> None:
        try:
            delivery.defer(seconds)
        except Exception as error:  # noqa: BLE001 - a lock ends with its file, a message returns by itself
            log.warning("delivery_not_deferred", error=str(error))

    def _work_on(self, connection: Connection, delivery: Delivery) -> None:
        try:
            manifest = parse_manifest(delivery.manifest) if delivery.manifest is not None else None
            recognised = inspect(delivery.address)
            if manifest is not None:
                manifest.verify(recognised)
        except Unreadable as error:
            self._archive_unread(connection, delivery, str(error))
            return
        try:
            terms = manifest.terms() if manifest is not None else DEFAULT_TERMS
            batch = self._find_or_accept(connection, delivery, recognised, terms)
        except (NoSuchBatch, WrongState) as error:  # the batch named by the manifest's `replaces` can't be replaced
            connection.rollback()
            self._archive_unread(connection, delivery, str(error))
            return
        attempts.begin_batch(connection, delivery.address, batch.id)
        connection.commit()
        if batch.ended_at is None and self._applications and self._is_big(recognised):
            self._to_spark(connection, self._applications, delivery, batch)
            return
        batch, _ = engine.drive(
            connection, self._settings, batch.id, delivery.address, workers=self._workers, wait=False
        )
        _archive(connection, delivery, batch, recognised.content_hash)
        attempts.forget(connection, delivery.address)
        DELIVERIES.labels("in-process", batch.state).inc()

    def _find_or_accept(
        self, connection: Connection, delivery: Delivery, recognised: RecognisedFile, terms: Terms
    ) -> Batch:
        """Return the batch that an earlier attempt or the upload has entered in the ledger, or enter a new one."""
        if (begun := attempts.batch_of(connection, delivery.address)) is not None:
            return ledger.find_batch(connection, begun)
        if terms.check and (check := ledger.find_check(connection, recognised, delivery.supplier)) is not None:
            return check
        batch, _ = ledger.accept(
            connection,
            recognised,
            name=delivery.name,
            supplier=delivery.supplier,
            terms=terms,
            quota=ledger.Quota.of(self._settings),
        )
        return batch

    def _is_big(self, recognised: RecognisedFile) -> bool:
        """Return whether to use Spark. A compressed file has one reader with either engine."""
        return recognised.compression == "none" and estimate_rows(recognised) > self._settings.spark_above_rows

    def _to_spark(self, connection: Connection, applications: Applications, delivery: Delivery, batch: Batch) -> None:
        assert self._settings.spark_template is not None  # noqa: S101 - there are no applications without one
        application = applications.ensure(self._settings.spark_template, batch.id, delivery.address)
        log.info("batch_submitted_to_spark", batch_id=batch.id, application=application["metadata"]["name"])
        self._in_spark.append(InSpark(delivery, batch.id, application))
        attempts.suspend(connection, delivery.address)  # counted again if the application fails

    def follow(self) -> None:
        """Archive deliveries that Spark has finished, and count failed attempts."""
        for waiting in list(self._in_spark):
            try:
                with engine.connect(self._settings) as connection:
                    self._follow(connection, waiting)
            except (psycopg.Error, Unavailable) as error:
                log.warning("batch_in_spark_not_checked", batch_id=waiting.batch_id, error=str(error).strip())
                if waiting not in self._in_spark:  # its end was seen but not completed: claim it again
                    self._defer(waiting.delivery, WAIT_SECONDS)

    def _follow(self, connection: Connection, waiting: InSpark) -> None:
        # The cluster's client is needed in a cluster only.
        from rates_app.batches.pipeline.spark import SparkFailed, SparkOutage  # noqa: PLC0415

        batch = ledger.find_batch(connection, waiting.batch_id)
        connection.commit()
        try:
            if batch.ended_at is None:
                assert self._applications is not None  # noqa: S101 - they submitted it
                self._applications.check(waiting.application)
                return
            self._in_spark.remove(waiting)
            _archive(connection, waiting.delivery, batch, batch.content_hash)
            attempts.forget(connection, waiting.delivery.address)
            DELIVERIES.labels("spark", batch.state).inc()
        except ContentChanged as error:
            self._changed(connection, waiting.delivery, error)
        except SparkFailed as error:
            self._fail_in_spark(connection, waiting, error, outage=isinstance(error, SparkOutage))
        except OSError as error:
            self._fail_in_spark(connection, waiting, error, outage=True)

    def _fail_in_spark(self, connection: Connection, waiting: InSpark, error: Exception, *, outage: bool) -> None:
        """Count the attempt that has just failed.

        Raises:
            psycopg.Error: The database refuses. If the attempt has been begun, it is recorded later.
        """
        address = waiting.delivery.address
        attempts.begin(connection, address)  # until this succeeds, the application is checked again
        if waiting in self._in_spark:
            self._in_spark.remove(waiting)
        self._lost[address] = _describe(error)[:MAX_ERROR_CHARACTERS]
        self._fail(connection, waiting.delivery, error, outage=outage)
        del self._lost[address]

    def _quarantine(self, connection: Connection, delivery: Delivery, count: int, reason: str) -> None:
        """End a delivery that can't be worked on: fail its batch, archive the file with the reason, and report it."""
        failure = f"given up after {count} attempts: {reason}"
        log.error("delivery_quarantined", attempts=count, reason=reason)
        try:
            batch = self._fail_batch(connection, delivery, failure)
            if batch is not None:
                _archive(connection, delivery, batch, batch.content_hash)
            else:
                _archive_alone(delivery, "quarantined", "failed", failure)
            attempts.forget(connection, delivery.address)
            self._count_failures(delivery.address, 0)
            DELIVERIES.labels("none", "quarantined").inc()
        except ContentChanged as error:
            self._changed(connection, delivery, error)
        except (psycopg.OperationalError, Unavailable):
            raise
        except Exception:
            log.exception("delivery_not_archived", effect="it stays where it is")
            self._defer(delivery, attempts.MAX_DELAY_SECONDS)

    def _fail_batch(self, connection: Connection, delivery: Delivery, failure: str) -> Batch | None:
        """Set the delivery's batch to failed, if it has one."""
        _end_transaction(connection)
        batch_id = attempts.batch_of(connection, delivery.address)
        if batch_id is None:
            return None
        with connection.transaction():
            batch = ledger.find_batch(connection, batch_id, lock=True)
            if batch.ended_at is None:
                batch = publish.fail(connection, batch_id, failure)
        remove_expanded(self._settings, batch_id)
        return batch

    def _archive_unread(self, connection: Connection, delivery: Delivery, reason: str) -> None:
        """Archive a file that can't be a batch, and so has none in the ledger."""
        _archive_alone(delivery, "unread", "refused", reason)
        attempts.forget(connection, delivery.address)
        log.warning("delivery_unreadable", reason=reason)
        DELIVERIES.labels("none", "refused").inc()


def _describe(error: Exception) -> str:
    """Return an error's text. It may quote the file, so it is escaped: the ledger stores no NUL character."""
    name = "" if isinstance(error, BatchError) else f"{type(error).__name__}: "
    return printable(f"{name}{error}".strip())


def _end_transaction(connection: Connection) -> None:
    if not connection.closed:
        connection.rollback()


def _archive(connection: Connection, delivery: Delivery, batch: Batch, content_hash: bytes) -> None:
    """Write the reports of a batch that has ended, and archive its file."""
    with TemporaryDirectory() as folder:
        reports = [Path(folder) / "report.json"]
        progress = ledger.progress(connection, batch.id)
        report = {name: getattr(batch, name) for name in batch.__slots__} | {
            "content_hash": batch.content_hash.hex(),
            "total_cents": None if batch.total_cents is None else int(batch.total_cents),
            "rows_per_second": progress.rows_per_second,
            "unlisted_rows": ledger.count_unlisted_rows(connection, batch.id),
        }
        reports[0].write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
        if batch.rejected:
            reports.append(Path(folder) / "rejects.csv")
            _write_rejects(reports[1], ledger.iter_rejects(connection, batch.id))
        destination: Destination = "processed" if batch.state in KEPT_STATES else "rejected"
        # A cursor that is read to its end leaves a transaction open: end it before a move that may take long.
        connection.commit()
        # Files with the same bytes have one name. Others that belong to the batch must not replace its file.
        other = "" if content_hash == batch.content_hash else f"{content_hash.hex()[:8]}-"
        delivery.archive(destination, f"{batch.id}-{other}{archive_name(batch.name)}", reports)
    log.info("delivery_archived", batch_id=batch.id, state=batch.state, destination=destination)


def _write_rejects(path: Path, rejects: Iterator[Reject]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Reject._fields)
        writer.writerows((line, csv_cell(field), reason, csv_cell(value)) for line, field, reason, value in rejects)


def _archive_alone(delivery: Delivery, prefix: str, state: str, failure: str) -> None:
    """Archive a delivery without a batch, under a name that no other delivery has."""
    tag = hashlib.sha256(f"{delivery.supplier}\0{delivery.address}".encode()).hexdigest()[:8]
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        report.write_bytes(
            orjson.dumps(
                {"state": state, "failure": failure, "name": delivery.name, "supplier": delivery.supplier},
                option=orjson.OPT_INDENT_2,
            )
        )
        delivery.archive("rejected", f"{prefix}-{tag}-{archive_name(delivery.name)}", [report])


def run(settings: Settings) -> None:
    """Dispatch until SIGTERM.

    Args:
        settings: The settings of the process.

    Raises:
        SettingsError: The template for Spark is missing or wrong.
        NoAccess: A template for Spark is given, but there is no cluster.
    """
    from rates_app.alerts.delivery import PASS_SECONDS, AlertPass  # noqa: PLC0415 - only this process sends notices

    applications = None
    if settings.spark_template is not None:
        from rates_app.batches.pipeline.spark import Applications, render  # noqa: PLC0415 - needed in a cluster only
        from rates_app.watch.access import connect  # noqa: PLC0415 - needed in a cluster only

        applications = Applications(connect())
        render(settings.spark_template, 0, "", 1)  # a wrong one stops the start, not the first big batch
    keep_connections()
    dispatcher = Dispatcher(settings, open_source(settings), applications)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: dispatcher.stop())
    # On a separate thread: a batch takes minutes, and a receiver of notices delays no batch.
    alerts = Periodic(PASS_SECONDS, AlertPass(settings).run)
    alerts.start()
    exporter = start_exporter(settings.host, settings.port, lambda: dispatcher.ready)
    log.info("dispatcher_started", port=exporter.server_port)
    dispatcher.run()
    alerts.stop()
    exporter.shutdown()
