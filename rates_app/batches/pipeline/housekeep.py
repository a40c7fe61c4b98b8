"""The role ``housekeep``: one pass of the work that no batch and no reader waits for.

A pass attaches the tables of published batches to ``segments``, drops the tables and rows of batches that are not
visible, deletes old rejects, and merges small partitions, so that their number stays bounded however many batches
arrive. Rates are read from ``rollups`` alone, so readers notice nothing. Each item is a separate transaction with a
short lock timeout. An item whose tables are in use, by pg_dump for example, is deferred to the next pass; the others
are done.
"""

from __future__ import annotations

import re
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import psycopg
import structlog
from psycopg import sql

from rates_app.batches.ledger.rejects import delete_old_rejects
from rates_app.batches.pipeline.expanded import remove_leftovers
from rates_app.batches.pipeline.tables import attach, discard, short_locks
from rates_app.batches.sources.leftovers import remove_leftover_files
from rates_app.store.connections import connect

if TYPE_CHECKING:
    from collections.abc import Callable

    from rates_app.settings import Settings
    from rates_app.store.databases import Connection

log = structlog.get_logger()

#: Advisory lock: one pass at a time.
HOUSEKEEPING_LOCK = 7_246_004

#: Partitions whose numbers of rows have the same number of digits are merged when there are this many. The result has
#: more digits, so a row is copied at most once per digit.
MERGE_PARTITIONS = 10

#: Larger partitions are not merged: there are few of them for the rows they hold.
MAX_MERGED_ROWS = 1_000_000

#: Attempts at an item whose lock is not free, and the pause between them.
LOCK_ATTEMPTS = 3
LOCK_RETRY_SECONDS = 1.0


class Housekeeping(NamedTuple):
    """The result of one pass."""

    #: Batches whose leftovers were dropped.
    cleared: int
    #: Partitions that were merged into others.
    merged: int
    #: Files that were removed.
    files: int
    #: Published batches whose tables were attached.
    attached: int = 0
    #: Items whose tables were in use; the next pass repeats them.
    deferred: int = 0
    #: Rejects of batches that ended long ago.
    rejects: int = 0


class Partition(NamedTuple):
    """A partition of ``segments``."""

    name: str
    batches: list[int]
    rows: int


def housekeep(settings: Settings) -> Housekeeping | None:
    """Run one pass.

    Args:
        settings: The database and the folder of files.

    Returns:
        The results; None if another process is running a pass.

    Raises:
        psycopg.OperationalError: The database cannot be reached; the items done before stay done.
    """
    with connect(settings.database_url_of("ingest"), "rates-housekeep", autocommit=True) as connection:
        if connection.execute("SELECT pg_try_advisory_lock(%s)", (HOUSEKEEPING_LOCK,)).fetchone() != (True,):
            return None
        files = remove_leftovers(connection, settings) + remove_leftover_files(settings.data_dir)
        rejects = delete_old_rejects(connection, settings.rejects_days)
        return _Pass(connection).run()._replace(files=files, rejects=rejects)


class _Pass:
    """One pass over the database.

    Args:
        connection: A connection to the primary in autocommit mode.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._deferred = 0

    def run(self) -> Housekeeping:
        """Attach, clear and merge."""
        primary = self._connection
        attached = [self._try("attach", number, partial(attach, primary, number)) for number in _unattached(primary)]
        cleared = [self._try("clear", number, partial(_clear, primary, number)) for number in _leftover(primary)]
        return Housekeeping(sum(cleared), self._merge(), 0, sum(attached), self._deferred)

    def _try(self, item: str, batch_id: int, work: Callable[[], None]) -> bool:
        """Do an item whose tables may be in use, and return whether it is done."""
        for attempt in range(LOCK_ATTEMPTS):
            if attempt:
                time.sleep(LOCK_RETRY_SECONDS)
            try:
                work()
            except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
                reason = str(error).strip()
            else:
                log.info("housekeeping_item_done", item=item, batch_id=batch_id)
                return True
        log.warning("housekeeping_item_deferred", item=item, batch_id=batch_id, reason=reason)
        self._deferred += 1
        return False

    def _merge(self) -> int:
        """Merge small partitions of similar size until there are few of every size."""
        merged = 0
        while True:
            alike: dict[int, list[Partition]] = {}
            for partition in _partitions(self._connection):
                if partition.rows < MAX_MERGED_ROWS:
                    alike.setdefault(len(str(partition.rows)), []).append(partition)
            group = next((some for some in alike.values() if len(some) >= MERGE_PARTITIONS), None)
            if group is None:
                return merged
            partitions = group[:MERGE_PARTITIONS]
            if not self._try("merge", partitions[0].batches[0], partial(_merge_into_one, self._connection, partitions)):
                return merged
            merged += len(partitions)


def _unattached(connection: Connection) -> list[int]:
    """List published batches with tables that are not attached yet."""
    rows = connection.execute(
        "SELECT id FROM batches WHERE state = 'published' AND id = ANY(%s)", (_with_tables(connection),)
    )
    return sorted({int(number) for (number,) in rows})


def _leftover(connection: Connection) -> list[int]:
    """List batches that are not visible, never will be, and still have rows or tables."""
    rows = connection.execute(
        """
        SELECT id FROM batches WHERE state IN ('withdrawn', 'refused', 'failed', 'checked')
                                 AND (id = ANY(%s) OR EXISTS (SELECT FROM rollups WHERE batch_id = id))
        """,
        (_with_tables(connection),),
    )
    return sorted({int(number) for (number,) in rows})


def _with_tables(connection: Connection) -> list[int]:
    """List batches with tables that are not partitions."""
    rows = connection.execute(
        """
        SELECT DISTINCT substring(relname FROM '^b([0-9]+)')::integer FROM pg_class
        WHERE relnamespace = 'staging'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
          AND relname ~ '^b[0-9]+(_|$)'
        """
    )
    return [int(number) for (number,) in rows]


def _clear(connection: Connection, batch_id: int) -> None:
    """Drop the partition of a batch, or its rows of a merged partition, and everything else that it left."""
    for partition in _partitions(connection):
        name = sql.Identifier(partition.name)
        with short_locks(connection):
            if partition.batches == [batch_id]:
                connection.execute(sql.SQL("DROP TABLE staging.{}").format(name))
            elif batch_id in partition.batches:
                connection.execute(sql.SQL("DELETE FROM staging.{} WHERE batch_id = %s").format(name), (batch_id,))
    discard(connection, batch_id)


def _partitions(connection: Connection) -> list[Partition]:
    """List the partitions, oldest batches first, with the rows of their published batches."""
    rows = connection.execute(
        "SELECT relname, pg_get_expr(relpartbound, pg_class.oid) FROM pg_inherits "
        "JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = 'segments'::regclass"
    ).fetchall()
    found = [(name, [int(number) for number in re.findall(r"\d+", bound)]) for name, bound in rows]
    counts: dict[int, int] = dict(
        connection.execute("SELECT id, rows FROM batches WHERE state = 'published'").fetchall()
    )
    return sorted(
        (Partition(name, ids, sum(counts.get(number, 0) for number in ids)) for name, ids in found),
        key=lambda partition: partition.batches,
    )


def _merge_into_one(connection: Connection, partitions: list[Partition]) -> None:
    batches = sorted(number for partition in partitions for number in partition.batches)
    values = sql.SQL(", ").join(map(sql.Literal, batches))
    with short_locks(connection):
        row = connection.execute("SELECT pg_current_xact_id()::text").fetchone()
        assert row is not None  # noqa: S101 - a function call has one row
        table = sql.Identifier(f"merged_x{row[0]}")
        # With the check constraint, attaching does not scan the rows, so its lock is held only briefly.
        connection.execute(
            sql.SQL(
                """
                CREATE TABLE staging.{} (
                    LIKE segments INCLUDING STORAGE, CONSTRAINT of_batches CHECK (batch_id IN ({}))
                )
                """
            ).format(table, values)
        )
        for partition in partitions:
            connection.execute(
                sql.SQL("INSERT INTO staging.{} SELECT * FROM staging.{}").format(table, sql.Identifier(partition.name))
            )
        for partition in partitions:
            connection.execute(sql.SQL("DROP TABLE staging.{}").format(sql.Identifier(partition.name)))
        connection.execute(
            sql.SQL("ALTER TABLE segments ATTACH PARTITION staging.{} FOR VALUES IN ({})").format(table, values)
        )
    log.info("partitions_merged", batches=len(batches), rows=sum(partition.rows for partition in partitions))
