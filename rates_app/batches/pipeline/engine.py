"""Take a batch from a file to its end in this process and its workers.

Called again after any interruption it goes on from the ledger: slices that are staged are not staged again.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

import psycopg
import structlog
from opentelemetry.trace import get_current_span

from rates_app.batches import ledger
from rates_app.batches.formats.compression import expand
from rates_app.batches.formats.registry import FORMATS
from rates_app.batches.formats.source import inspect
from rates_app.batches.formats.survey import SurveyRequired, survey_file, survey_sample
from rates_app.batches.ledger.profiles import find_profile
from rates_app.batches.model import DEFAULT_TERMS, Batch, BatchError, Terms, Unreadable
from rates_app.batches.pipeline import plausibility, publish, rollup, tables
from rates_app.batches.pipeline.stage import stage_slice
from rates_app.batches.pipeline.workers import WorkersLost, in_process
from rates_app.cache.redis import Redis
from rates_app.ops.traces import tracer, with_current_trace
from rates_app.rates.warm import warmer
from rates_app.store import connections

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rates_app.batches.formats.layout import Layout
    from rates_app.batches.pipeline.workers import Item, Workers
    from rates_app.settings import Settings
    from rates_app.store.databases import Connection

log = structlog.get_logger()

#: Work is tried this often before the batch is left for the next run.
MOST_ATTEMPTS = 3


#: So many slices at least, so that no worker is idle for long while another does its last.
SLICES_A_WORKER = 3


#: What a batch goes through, in the order in which progress is told.
Step = Literal["reading", "staging", "verifying", "publishing"]
STEPS: tuple[Step, ...] = get_args(Step)


class Interrupted(BatchError):
    """The batch could not be staged to its end now; running it again goes on from where it stopped."""


def ingest(
    settings: Settings,
    uri: str,
    *,
    name: str | None = None,
    supplier: str = "local",
    terms: Terms = DEFAULT_TERMS,
    workers: Workers | None = None,
    progress: Callable[[Step, int, int], None] = lambda _step, _done, _total: None,
) -> tuple[Batch, bool]:
    """Take a file to its end: published, or refused as a whole.

    Args:
        settings: Where the database is, and how many workers stage.
        uri: The file: a path, or an address that Arrow knows.
        name: What the supplier calls it; its last part if not given.
        supplier: Who delivers it.
        terms: What the supplier states with the delivery.
        workers: What does the work; processes of this machine if not given.
        progress: Told the step, how much of it is done and how much there is.

    Returns:
        The batch, and whether this call did any of the work; False for a file whose batch had ended before.

    Raises:
        Unreadable: The file cannot be read at all, so there is no batch.
        Interrupted: Staging did not get to its end; call again.
        psycopg.OperationalError: The database cannot be reached; call again.
    """
    read = 0

    def hashed(size: int) -> None:
        nonlocal read
        read += size
        progress("reading", read, 0)

    source = inspect(uri, hashed)
    with connect(settings) as connection:
        batch, _ = ledger.accept(
            connection,
            source,
            name=name or uri.rstrip("/").rpartition("/")[2],
            supplier=supplier,
            terms=terms,
        )
        connection.commit()
        return drive(connection, settings, batch.id, uri, workers=workers, progress=progress)


def connect(settings: Settings) -> Connection:
    """Connect to the primary as a driver of batches."""
    return connections.connect(settings.database_url.get_secret_value(), "rates-ingest")


@tracer.start_as_current_span("ingest")
def drive(
    connection: Connection,
    settings: Settings,
    batch_id: int,
    uri: str,
    *,
    workers: Workers | None = None,
    progress: Callable[[Step, int, int], None] = lambda _step, _done, _total: None,
) -> tuple[Batch, bool]:
    """Take a batch that is in the ledger to its end.

    Args:
        connection: A connection to the primary, outside of a transaction.
        settings: As for :func:`ingest`.
        batch_id: The batch.
        uri: Its file.
        workers: What does the work; processes of this machine if not given.
        progress: As for :func:`ingest`.

    Returns:
        As :func:`ingest`.

    Raises:
        Interrupted: Staging did not get to its end; call again.
        psycopg.OperationalError: The database cannot be reached; call again.
    """
    get_current_span().set_attribute("rates.batch_id", batch_id)
    with _driving(connection, batch_id):
        batch = ledger.find_batch(connection, batch_id)
        connection.commit()
        if batch.ended_at is not None:
            tables.settle(connection, batch_id)
            return batch, False
        folder = settings.data_dir / "expanded"
        url = settings.database_url.get_secret_value()
        try:
            plain = expand(
                uri,
                str(batch_id),
                compression=batch.compression,
                file_format=batch.format,
                folder=folder,
                limit=settings.max_upload_bytes,
            )
            if batch.state == "received":
                batch = _begin(connection, batch, plain, settings)
            driver = _Driver(connection, batch, url, workers or in_process(settings), progress)
            if batch.state == "staging":
                driver.stage(plain)
        except Unreadable as error:
            with connection.transaction():
                batch = publish.refuse(connection, batch_id, str(error))
            tables.settle(connection, batch_id)
            return batch, True
        with connection.transaction():
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
        (folder / str(batch_id)).unlink(missing_ok=True)
        log.info("batch ended", batch_id=batch.id, state=batch.state, rows=batch.rows, generation=batch.generation)
        return batch, True


@contextmanager
def _driving(connection: Connection, batch_id: int) -> Iterator[None]:
    """Keep other processes from driving the batch; one that tries waits, and then finds the batch ended."""
    connection.execute("SET LOCAL lock_timeout = '1h'")  # another process may be at a batch of any size
    connection.execute("SELECT pg_advisory_lock(%s, %s)", (ledger.DRIVER_LOCK, batch_id))
    connection.commit()
    try:
        yield
    finally:
        if not connection.broken:
            connection.rollback()
            connection.execute("SELECT pg_advisory_unlock(%s, %s)", (ledger.DRIVER_LOCK, batch_id))


def _begin(connection: Connection, batch: Batch, plain: str, settings: Settings) -> Batch:
    file_format = FORMATS[batch.format]
    profile = find_profile(connection, batch.supplier)
    connection.commit()
    layout = survey_sample(file_format, plain, file_format.check(plain, profile))
    with connection.transaction():
        parts = SLICES_A_WORKER * settings.ingest_workers
        ledger.record_layout(connection, batch.id, layout)
        ledger.enter_slices(connection, batch.id, file_format.plan(plain, layout, settings.slice_bytes, parts))
        ledger.set_state(connection, batch.id, "staging")
        return ledger.find_batch(connection, batch.id)


@dataclass(frozen=True)
class _Driver:
    """What the steps of one batch share."""

    connection: Connection
    batch: Batch
    database_url: str
    workers: Workers
    progress: Callable[[Step, int, int], None]

    @tracer.start_as_current_span("stage")
    def stage(self, plain: str) -> None:
        """Have every slice of the plain file staged; tell when that will be too late."""
        before = ledger.progress(self.connection, self.batch.id)
        done, late = before.staged, False

        def staged() -> None:
            nonlocal done, late
            done += 1
            self.progress("staging", done, before.slices)
            if self.batch.deadline and not late:
                slack = ledger.deadline_slack(self.connection, self.batch.id)
                self.connection.commit()
                if late := slack is not None and slack < 0:
                    log.warning("batch will miss its deadline", batch_id=self.batch.id, slack_seconds=round(slack or 0))

        self.progress("staging", done, before.slices)
        layout = ledger.find_layout(self.connection, self.batch.id)
        try:
            self._stage(plain, layout, staged)
        except SurveyRequired:
            # What is staged stays valid: it was in the canonical form, which a survey never reads differently.
            layout = survey_file(FORMATS[self.batch.format], plain, layout)
            log.info("file_surveyed", batch_id=self.batch.id, assumptions=layout.assumptions)
            with self.connection.transaction():
                ledger.record_layout(self.connection, self.batch.id, layout)
            self._stage(plain, layout, staged)

    def _stage(self, plain: str, layout: Layout, staged: Callable[[], None]) -> None:
        task = partial(stage_slice, self.database_url, plain, self.batch, layout)
        slices = ledger.pending_slices(self.connection, self.batch.id)
        self._finish(task, slices, lambda: ledger.pending_slices(self.connection, self.batch.id), staged)

    @tracer.start_as_current_span("roll up")
    def roll_up(self) -> None:
        """Have the rollups of every day made."""
        done = 0
        parts = rollup.plan_parts(self.connection, self.batch.id)

        def rolled_up() -> None:
            nonlocal done
            done += 1
            self.progress("verifying", done, len(parts))

        self.progress("verifying", done, len(parts))
        task = partial(rollup.roll_up, self.database_url)
        self._finish(task, parts, lambda: rollup.plan_parts(self.connection, self.batch.id), rolled_up)

    def _finish(
        self,
        task: Callable[[Item], object],
        items: list[Item],
        pending: Callable[[], list[Item]],
        done: Callable[[], None],
    ) -> None:
        """Have all items done; when workers are lost, those that are then still pending once more.

        Raises:
            Interrupted: Some are left after several attempts.
        """
        task = with_current_trace(task)
        for _ in range(MOST_ATTEMPTS):
            self.connection.commit()  # nothing is held while others work
            if not items:
                return
            try:
                self.workers(task, items, done)
            except (psycopg.OperationalError, WorkersLost) as error:
                log.warning("work will be tried again", batch_id=self.batch.id, error=str(error).strip())
                items = pending()
            else:
                return
        left = f"{len(items)} parts could not be done"
        raise Interrupted(f"batch {self.batch.id}: {left}; run it again to go on from there")
