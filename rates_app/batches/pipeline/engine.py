"""Ingest a batch from a file in this process and its workers.

Called again after any interruption it resumes from the ledger: slices that are staged are not staged again.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

import psycopg
import structlog
from opentelemetry.trace import get_current_span

from rates_app.batches import ledger
from rates_app.batches.content import ContentChanged, pin, verify
from rates_app.batches.formats.compression import expand
from rates_app.batches.formats.inspection import inspect
from rates_app.batches.formats.survey import SurveyRequired
from rates_app.batches.model import DEFAULT_SUPPLIER, DEFAULT_TERMS, Batch, BatchError, Slice, Terms, Unreadable
from rates_app.batches.pipeline import examine, plausibility, publish, rollup, tables
from rates_app.batches.pipeline.expanded import expanded_folder, remove_expanded
from rates_app.batches.pipeline.stage import stage_slice
from rates_app.batches.pipeline.workers import WorkerCrashed, WorkersLost, in_process
from rates_app.cache.redis import Redis
from rates_app.ops.traces import tracer, with_current_trace
from rates_app.rates.warm import warmer
from rates_app.store.databases import Unavailable, is_server_fault
from rates_app.store.kept import task_connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from rates_app.batches.formats.layout import Layout
    from rates_app.batches.pipeline.workers import Item, Workers
    from rates_app.settings import Settings
    from rates_app.store.databases import Connection

log = structlog.get_logger()

#: Attempts at a step's work before the batch is interrupted and left for the next run.
MAX_ATTEMPTS = 3

#: Represents a whole file in tasks that do not work on a slice.
WHOLE = Slice(0, 0, 0)

#: Minimum slices per worker. With fewer, workers idle while the slowest finishes.
SLICES_A_WORKER = 3

#: How long to reconnect to a database that was lost. A restart or a failover takes minutes at most.
OUTAGE_SECONDS = 10 * 60

MAX_PAUSE_SECONDS = 30.0

#: Exit status of a process that drives one batch, if an outage ended the attempt.
OUTAGE_EXIT_STATUS = os.EX_TEMPFAIL

Result = TypeVar("Result")

#: The steps of a batch, in the order in which progress is reported.
Step = Literal["reading", "staging", "verifying", "publishing"]
STEPS: tuple[Step, ...] = get_args(Step)


class Interrupted(BatchError):
    """Work stopped before all of it was done. Run the ingest again to resume."""


class DatabaseFailed(Interrupted):
    """The database refused or lost the work of the workers because of its state, such as a full disk."""


class TooManyRejects(BatchError):
    """Too many rows are rejected, so the batch is refused before all slices are staged."""


class DrivenElsewhere(Interrupted):
    """Another process drives the batch."""


def ingest(
    settings: Settings,
    uri: str,
    *,
    name: str | None = None,
    supplier: str = DEFAULT_SUPPLIER,
    terms: Terms = DEFAULT_TERMS,
    workers: Workers | None = None,
    progress: Callable[[Step, int, int], None] = lambda _step, _done, _total: None,
) -> tuple[Batch, bool]:
    """Ingest a file until it is published, or refused as a whole.

    Args:
        settings: Where the database is, and how many workers stage.
        uri: The file: a path, or an address in S3.
        name: The supplier's name for it; the last part of ``uri`` if not given.
        supplier: The supplier.
        terms: The terms of the delivery.
        workers: What does the work; processes of this machine if not given.
        progress: Called with the step, how much of it is done and how much there is.

    Returns:
        The batch, and whether this call did any of the work; False for a file whose batch had ended before.

    Raises:
        Unreadable: The file doesn't exist or can't be a batch, so there is no batch.
        ContentChanged: The file was replaced or modified during the ingest; call again.
        Interrupted: Work stopped before its end; call again.
        OSError: The file can't be read now; call again.
        Unavailable: S3 can't be reached; call again.
        psycopg.OperationalError: The database can't be reached; call again.
    """
    address = pin(uri)
    read = 0

    def hashed(size: int) -> None:
        nonlocal read
        read += size
        progress("reading", read, 0)

    source = inspect(address, hashed)
    with connect(settings) as connection:
        batch, _ = ledger.accept(
            connection,
            source,
            name=name or uri.rstrip("/").rpartition("/")[2],
            supplier=supplier,
            terms=terms,
        )
    return drive_through_outages(settings, batch.id, address, workers=workers, progress=progress)


def is_outage(error: Exception) -> bool:
    """Return whether a service or this machine failed, so that the same file may be ingested later.

    Args:
        error: What ended an attempt at a batch.
    """
    if isinstance(error, psycopg.Error):
        return is_server_fault(error)
    return isinstance(error, (DatabaseFailed, Unavailable, OSError))


def connect(settings: Settings) -> AbstractContextManager[Connection]:
    """Connect to the primary as a driver of batches; a dispatcher keeps the connection for its next delivery."""
    return task_connection(settings.database_url_of("ingest"), "rates-ingest")


def drive_through_outages(
    settings: Settings,
    batch_id: int,
    address: str,
    *,
    workers: Workers | None = None,
    progress: Callable[[Step, int, int], None] = lambda _step, _done, _total: None,
) -> tuple[Batch, bool]:
    """Ingest a batch as :func:`drive` does. If the connection is lost, resume on a new one.

    Raises:
        As :func:`drive`; psycopg.OperationalError only if the server refuses a statement, or if no connection lasts for
        :data:`OUTAGE_SECONDS`.
    """
    pause, lost_at = 1.0, None
    while True:
        connected_at, connection = None, None
        try:
            with connect(settings) as connection:
                connected_at = time.monotonic()
                if lost_at is not None:
                    log.info("database_reconnected", batch_id=batch_id)
                return drive(connection, settings, batch_id, address, workers=workers, progress=progress)
        except psycopg.OperationalError as error:
            if connection is not None and not connection.broken:
                raise  # a full disk, a lock that is not free: the same on any connection
            now = time.monotonic()
            # A connection that lasted ends the outage before it. One that is lost immediately may be lost because of
            # this batch, and does not.
            if lost_at is None or (connected_at is not None and now - connected_at > MAX_PAUSE_SECONDS):
                pause, lost_at = 1.0, now
            if now - lost_at > OUTAGE_SECONDS:
                raise
            log.warning("database_lost", batch_id=batch_id, error=str(error).strip(), retry_seconds=pause)
            time.sleep(pause)
            pause = min(2 * pause, MAX_PAUSE_SECONDS)


@tracer.start_as_current_span("ingest")
def drive(
    connection: Connection,
    settings: Settings,
    batch_id: int,
    uri: str,
    *,
    workers: Workers | None = None,
    wait: bool = True,
    progress: Callable[[Step, int, int], None] = lambda _step, _done, _total: None,
) -> tuple[Batch, bool]:
    """Complete a batch that is in the ledger.

    Args:
        connection: A connection to the primary, outside of a transaction.
        settings: As for :func:`ingest`.
        batch_id: The batch.
        uri: The pinned address of its file, or a path.
        workers: What does the work; processes of this machine if not given.
        wait: Wait for another process that drives the batch.
        progress: As for :func:`ingest`.

    Returns:
        As :func:`ingest`.

    Raises:
        DrivenElsewhere: Another process drives the batch, and ``wait`` is false.
        Interrupted: Work stopped before its end; call again.
        OSError: The file can't be read now; call again.
        Unavailable: S3 can't be reached; call again.
        psycopg.OperationalError: The database can't be reached; call again.
    """
    get_current_span().set_attribute("rates.batch_id", batch_id)
    with _driving(connection, batch_id, wait=wait):
        batch = ledger.find_batch(connection, batch_id)
        connection.commit()
        if batch.ended_at is not None:
            remove_expanded(settings, batch_id)
            tables.settle(connection, batch_id)
            return batch, False
        url = settings.database_url_of("ingest")
        try:
            uri = pin(uri)
            plain = expand(
                uri,
                str(batch_id),
                compression=batch.compression,
                file_format=batch.format,
                folder=expanded_folder(settings),
                limit=settings.max_upload_bytes,
            )
            driver = _Driver(connection, batch, url, settings.max_rejects, workers or in_process(settings), progress)
            if batch.state == "received":
                driver.examine(plain, settings)
                batch = ledger.find_batch(connection, batch_id)
            if batch.state == "staging":
                driver.stage(plain)
                verify(uri)
        except (Unreadable, WorkerCrashed, MemoryError, TooManyRejects) as error:
            connection.rollback()
            remove_expanded(settings, batch_id)
            with connection.transaction():
                ledger.trim_rejects(connection, batch_id, settings.max_rejects)
                batch = publish.refuse(connection, batch_id, _reason(connection, batch, error))
            tables.settle(connection, batch_id)
            return batch, True
        except ContentChanged as error:
            remove_expanded(settings, batch_id)
            with connection.transaction():
                batch = publish.refuse(connection, batch_id, f"{error}: deliver it again")
                ledger.supersede(connection, batch_id)  # so that the same content is a new batch
            tables.settle(connection, batch_id)
            return batch, True
        with connection.transaction():
            ledger.trim_rejects(connection, batch_id, settings.max_rejects)
            batch = publish.gather(connection, batch_id)
        if batch.state == "staging":
            driver.roll_up()
            with connection.transaction():
                batch = publish.verify(connection, batch_id)
        progress("publishing", 0, 1)
        if batch.state == "verified":
            with connection.transaction():
                assessment = plausibility.assess(connection, batch, settings)
            with connection.transaction():
                batch = publish.conclude(connection, batch_id, assessment, warmer(Redis(settings)))
        tables.settle(connection, batch_id)
        remove_expanded(settings, batch_id)
        log.info("batch_ended", batch_id=batch.id, state=batch.state, rows=batch.rows, generation=batch.generation)
        return batch, True


def _describe_rejects(connection: Connection, batch: Batch) -> str:
    """Return why staging stopped before all slices were staged."""
    found = ledger.progress(connection, batch.id)
    return (
        f"{found.rejected} rejected rows in {found.staged} of {found.slices} slices, {batch.max_rejected_rows} "
        f"allowed, so staging stopped: 'rates rejects {batch.id}' lists {ledger.count_rejects(connection, batch.id)}"
    )


@contextmanager
def _driving(connection: Connection, batch_id: int, *, wait: bool) -> Iterator[None]:
    """Keep other processes from driving the batch. One that waits finds the batch ended.

    The lock belongs to the session: the server releases it soon after its holder was cut off.
    """
    key = (ledger.DRIVER_LOCK, batch_id)
    if wait:
        connection.execute("SET LOCAL lock_timeout = 0")
        connection.execute("SELECT pg_advisory_lock(%s, %s)", key)
    elif connection.execute("SELECT pg_try_advisory_lock(%s, %s)", key).fetchone() != (True,):
        raise DrivenElsewhere(f"batch {batch_id} is being driven by another process")
    connection.commit()
    try:
        yield
    finally:
        if not connection.broken:
            connection.rollback()
            connection.execute("SELECT pg_advisory_unlock(%s, %s)", (ledger.DRIVER_LOCK, batch_id))


def _reason(connection: Connection, batch: Batch, error: Exception) -> str:
    """Return why a file can't be read, for its supplier."""
    if isinstance(error, TooManyRejects):
        # Other slices may have been staged while their workers were being stopped.
        return _describe_rejects(connection, batch)
    if isinstance(error, WorkerCrashed):
        return f"{error} each time it read the file: the file is damaged. Write it again, or deliver it as CSV"
    if isinstance(error, MemoryError):
        return (
            "the file takes more memory to read than a worker may use: deliver it in parts, or with smaller row groups"
        )
    return str(error)


@dataclass(frozen=True)
class _Driver:
    """The state that the steps of one batch share."""

    connection: Connection
    batch: Batch
    database_url: str
    max_rejects: int
    workers: Workers
    progress: Callable[[Step, int, int], None]

    @tracer.start_as_current_span("examine")
    def examine(self, plain: str, settings: Settings) -> None:
        """Examine the file in a worker, which begins the staging."""
        min_slices = SLICES_A_WORKER * settings.ingest_workers
        task = partial(examine.examine, self.database_url, plain, self.batch, settings.slice_bytes, min_slices)
        self._finish(task, [WHOLE], self._unexamined, lambda: None)

    def _unexamined(self) -> list[Slice]:
        """Return the whole file as one slice, unless an attempt whose end was not seen has examined it."""
        return [WHOLE] if ledger.find_batch(self.connection, self.batch.id).state == "received" else []

    @tracer.start_as_current_span("stage")
    def stage(self, plain: str) -> None:
        """Stage every slice of the plain file. Log a warning if the batch will miss its deadline.

        Raises:
            TooManyRejects: The batch will be refused, whatever the remaining slices contain.
        """
        before = ledger.progress(self.connection, self.batch.id)
        done, late = before.staged, False

        def staged() -> None:
            nonlocal done, late
            done = min(done + 1, before.slices)  # Spark counts tasks that the database refused, too
            self.progress("staging", done, before.slices)
            self._check_rejects()
            if self.batch.deadline and not late:
                slack = ledger.deadline_slack(self.connection, self.batch.id)
                self.connection.commit()
                if late := slack is not None and slack < 0:
                    log.warning("deadline_at_risk", batch_id=self.batch.id, slack_seconds=round(slack or 0))

        self.progress("staging", done, before.slices)
        self._check_rejects()
        layout = ledger.find_layout(self.connection, self.batch.id)
        try:
            self._stage(plain, layout, staged)
        except SurveyRequired:
            # Staged slices stay valid: they were in the canonical form, which a survey never reads differently.
            task = partial(examine.survey, self.database_url, plain, self.batch, layout)
            self._finish(task, [WHOLE], lambda: [WHOLE], lambda: None)
            layout = ledger.find_layout(self.connection, self.batch.id)
            log.info("file_surveyed", batch_id=self.batch.id, assumptions=layout.assumptions)
            self._stage(plain, layout, staged)

    def _check_rejects(self) -> None:
        """Stop staging if the surplus of rejected rows is larger than the report: what follows would not be listed."""
        found = ledger.progress(self.connection, self.batch.id)
        self.connection.commit()
        if found.rejected - self.batch.max_rejected_rows > self.max_rejects and found.staged < found.slices:
            raise TooManyRejects(f"batch {self.batch.id} has more than {self.max_rejects} rejected rows too many")

    def _stage(self, plain: str, layout: Layout, staged: Callable[[], None]) -> None:
        task = partial(stage_slice, self.database_url, plain, self.batch, layout, max_rejects=self.max_rejects)
        slices = ledger.pending_slices(self.connection, self.batch.id)
        self._finish(task, slices, lambda: ledger.pending_slices(self.connection, self.batch.id), staged)

    @tracer.start_as_current_span("roll up")
    def roll_up(self) -> None:
        """Make the rollups of every day."""
        done = 0
        ranges = rollup.plan_day_ranges(self.connection, self.batch.id)

        def rolled_up() -> None:
            nonlocal done
            done = min(done + 1, len(ranges))
            self.progress("verifying", done, len(ranges))

        self.progress("verifying", done, len(ranges))
        task = partial(rollup.roll_up, self.database_url)
        self._finish(task, ranges, lambda: rollup.plan_day_ranges(self.connection, self.batch.id), rolled_up)

    def _finish(
        self,
        task: Callable[[Item], object],
        items: list[Item],
        pending: Callable[[], list[Item]],
        done: Callable[[], None],
    ) -> None:
        """Complete all items. If workers or their connections are lost, repeat the pending items.

        Raises:
            WorkerCrashed: The last attempt crashed its worker.
            DatabaseFailed: Some are left after several attempts, because of the state of the database.
            Interrupted: Some are left after several attempts.
        """
        task = with_current_trace(task)
        for attempt in range(1, MAX_ATTEMPTS + 1):
            self.connection.commit()  # hold no lock while others work
            if not items:
                return
            try:
                self.workers(task, items, done)
            except (psycopg.Error, WorkersLost) as error:
                refused = isinstance(error, psycopg.Error)
                if isinstance(error, psycopg.Error) and not is_server_fault(error):
                    raise  # the same in every attempt
                if self.connection.broken:
                    raise  # pending items can only be read on a new connection
                reason = str(error).strip()
                log.warning("work_lost", batch_id=self.batch.id, attempt=attempt, error=reason)
                items = pending()
                if attempt < MAX_ATTEMPTS:
                    time.sleep(2.0 ** (attempt - 1) - 1)
                elif items and isinstance(error, WorkerCrashed):
                    raise
            else:
                return
        if items:
            left = f"{len(items)} tasks could not be done: {reason}"
            kind = DatabaseFailed if refused else Interrupted
            raise kind(f"batch {self.batch.id}: {left}; run it again to resume")
