"""Take a batch from a file to its end in this process and its workers.

Called again after any interruption it goes on from the ledger: slices that are staged are not staged again.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, Protocol, get_args

import psycopg
import structlog
from opentelemetry.trace import get_current_span

from rates_app.batches import ledger, publish
from rates_app.batches.model import Batch, BatchError, Slice, Unreadable
from rates_app.batches.parse import csv_columns
from rates_app.batches.source import expand, header, inspect, plan
from rates_app.batches.stage import Staged, stage_slice
from rates_app.cache.redis import Redis
from rates_app.ops.traces import tracer
from rates_app.rates.warm import warmer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from rates_app.settings import Settings
    from rates_app.store.databases import Connection

log = structlog.get_logger()

#: A slice is tried this often before the batch is left for the next run.
MOST_ATTEMPTS = 3


#: What a batch goes through, in the order in which progress is told.
Step = Literal["reading", "staging", "verifying", "publishing"]
STEPS: tuple[Step, ...] = get_args(Step)


class Stager(Protocol):
    """Stages slices of a batch; the in-process engine and Spark each have one."""

    def __call__(self, uri: str, batch: Batch, slices: Sequence[Slice], staged: Callable[[Staged], None]) -> None:
        """Stage every slice, telling of each that is done."""


class Interrupted(BatchError):
    """The batch could not be staged to its end now; running it again goes on from where it stopped."""


def ingest(
    settings: Settings,
    uri: str,
    *,
    name: str | None = None,
    supplier: str = "local",
    tolerance: int = 0,
    deadline: datetime | None = None,
    again: bool = False,
    stager: Stager | None = None,
    progress: Callable[[Step, int, int], None] = lambda _step, _done, _total: None,
) -> tuple[Batch, bool]:
    """Take a file to its end: published, or refused as a whole.

    Args:
        settings: Where the database is, and how many workers stage.
        uri: The file: a path, or an address that Arrow knows.
        name: What the supplier calls it; its last part if not given.
        supplier: Who delivers it.
        tolerance: Bad rows that may be left out instead of refusing the batch.
        deadline: When it has to be published.
        again: Take a file that was refused or withdrawn before as a new batch.
        stager: What stages the slices; in-process workers if not given.
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
            tolerance=tolerance,
            deadline=deadline,
            again=again,
        )
        connection.commit()
        return drive(connection, settings, batch.id, uri, stager=stager, progress=progress)


def connect(settings: Settings) -> Connection:
    """Connect to the primary as a driver of batches."""
    return psycopg.connect(settings.database_url.get_secret_value(), application_name="rates-ingest")


@tracer.start_as_current_span("ingest")
def drive(
    connection: Connection,
    settings: Settings,
    batch_id: int,
    uri: str,
    *,
    stager: Stager | None = None,
    progress: Callable[[Step, int, int], None] = lambda _step, _done, _total: None,
) -> tuple[Batch, bool]:
    """Take a batch that is in the ledger to its end.

    Args:
        connection: A connection to the primary, outside of a transaction.
        settings: As for :func:`ingest`.
        batch_id: The batch.
        uri: Its file.
        stager: What stages the slices; in-process workers if not given.
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
            return batch, False
        folder = settings.data_dir / "expanded"
        try:
            plain = expand(uri, batch.content_hash, batch.compression, folder, settings.max_upload_bytes)
            if batch.state == "received":
                batch = _begin(connection, batch, plain, settings.slice_bytes)
            if batch.state == "staging":
                _stage(connection, plain, batch, stager or in_process(settings), progress)
        except Unreadable as error:
            with connection.transaction():
                return publish.refuse(connection, batch_id, str(error)), True
        progress("verifying", 0, 1)
        with connection.transaction():
            batch = publish.verify(connection, batch_id)
        progress("publishing", 0, 1)
        if batch.state == "verified":
            with connection.transaction():
                batch = publish.publish(connection, batch_id, warmer(Redis(settings)))
        (folder / batch.content_hash.hex()).unlink(missing_ok=True)
        log.info("batch ended", batch_id=batch.id, state=batch.state, rows=batch.rows, generation=batch.generation)
        return batch, True


@contextmanager
def _driving(connection: Connection, batch_id: int) -> Iterator[None]:
    """Keep other processes from driving the batch; one that tries waits, and then finds the batch ended."""
    connection.execute("SELECT pg_advisory_lock(%s, %s)", (ledger.DRIVER_LOCK, batch_id))
    connection.commit()
    try:
        yield
    finally:
        if not connection.broken:
            connection.rollback()
            connection.execute("SELECT pg_advisory_unlock(%s, %s)", (ledger.DRIVER_LOCK, batch_id))


def _begin(connection: Connection, batch: Batch, plain: str, slice_bytes: int) -> Batch:
    if batch.format == "csv":
        csv_columns(header(plain)[0])  # a wrong header refuses the batch before anything is staged
    with connection.transaction():
        ledger.enter_slices(connection, batch.id, plan(plain, batch.format, slice_bytes))
        ledger.set_state(connection, batch.id, "staging")
        return ledger.find_batch(connection, batch.id)


@tracer.start_as_current_span("stage")
def _stage(
    connection: Connection, plain: str, batch: Batch, stager: Stager, progress: Callable[[Step, int, int], None]
) -> None:
    before = ledger.progress(connection, batch.id)
    connection.commit()
    done, late = before.staged, False

    def staged(_: Staged) -> None:
        nonlocal done, late
        done += 1
        progress("staging", done, before.slices)
        if batch.deadline and not late:
            slack = ledger.deadline_slack(connection, batch.id)
            connection.commit()
            if late := slack is not None and slack < 0:
                log.warning("the batch will miss its deadline at this pace", batch_id=batch.id, slack_seconds=slack)

    progress("staging", done, before.slices)
    for attempt in range(1, MOST_ATTEMPTS + 1):
        slices = ledger.pending_slices(connection, batch.id)
        connection.commit()
        if not slices:
            return
        try:
            stager(plain, batch, slices, staged)
        except (psycopg.OperationalError, BrokenProcessPool) as error:
            log.warning("slices will be tried again", batch_id=batch.id, attempt=attempt, error=str(error).strip())
    left = len(ledger.pending_slices(connection, batch.id))
    if left:
        raise Interrupted(f"batch {batch.id}: {left} slices could not be staged; run it again to go on from there")


def in_process(settings: Settings) -> Stager:
    """Stage in this process when there is one slice, and else in worker processes of this machine."""
    url = settings.database_url.get_secret_value()

    def stage(uri: str, batch: Batch, slices: Sequence[Slice], staged: Callable[[Staged], None]) -> None:
        if len(slices) == 1:
            staged(stage_slice(url, uri, batch, slices[0]))
            return
        context = multiprocessing.get_context("spawn")  # a fork would share the driver's connection
        with ProcessPoolExecutor(min(settings.ingest_workers, len(slices)), mp_context=context) as pool:
            waiting = {pool.submit(stage_slice, url, uri, batch, part) for part in slices}
            try:
                while waiting:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        staged(future.result())
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    return stage
