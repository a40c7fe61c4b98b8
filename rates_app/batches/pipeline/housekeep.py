"""The role ``housekeep``: one pass of what nobody waits for.

What withdrawn, refused and failed batches have left is dropped, and small batches' partitions are merged, so
that their number stays bounded however many batches arrive. Readers ask ``rollups`` alone and notice nothing.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, NamedTuple

import psycopg
import structlog
from psycopg import sql

from rates_app.batches.pipeline.publish import drop_staged

if TYPE_CHECKING:
    from pathlib import Path

    from rates_app.settings import Settings
    from rates_app.store.databases import Connection

log = structlog.get_logger()

#: Advisory lock: one pass at a time.
HOUSEKEEPING_LOCK = 7_246_004

#: So many partitions whose numbers of rows have as many digits are merged into one, which then has more digits. So a
#: row is copied once for each digit at most.
MERGE_PARTITIONS = 10

#: Partitions of more rows than this are left alone: there are few of them for the rows they hold.
LARGEST_MERGED_ROWS = 1_000_000

#: Files of interrupted work are kept this long.
KEEP_SECONDS = 24 * 60 * 60


class Housekeeping(NamedTuple):
    """What one pass has done."""

    #: Batches whose leftovers were dropped.
    cleared: int
    #: Partitions that became parts of others.
    merged: int
    #: Files that were removed.
    files: int


class Partition(NamedTuple):
    """A partition of ``segments``."""

    name: str
    batches: list[int]
    rows: int


def housekeep(settings: Settings) -> Housekeeping | None:
    """Make one pass.

    Args:
        settings: Where the database and the files are.

    Returns:
        What was done; None if another process makes its pass.

    Raises:
        psycopg.OperationalError: The database cannot be reached, or a lock did not come free in time; what was done
            before stays done.
    """
    with psycopg.connect(
        settings.database_url.get_secret_value(), application_name="rates-housekeep", autocommit=True
    ) as connection:
        if connection.execute("SELECT pg_try_advisory_lock(%s)", (HOUSEKEEPING_LOCK,)).fetchone() != (True,):
            return None
        # A table's lock that is waited for makes every later one wait behind it, a publish's among them.
        connection.execute("SET lock_timeout = '5s'")
        return Housekeeping(_clear(connection), _merge(connection), _remove_files(connection, settings.data_dir))


def _clear(connection: Connection) -> int:
    """Drop what is left of batches that are not published and never will be."""
    ended = connection.execute(
        """
        SELECT id FROM batches WHERE state IN ('withdrawn', 'refused', 'failed') AND (
            EXISTS (SELECT FROM rollups WHERE batch_id = id)
            OR EXISTS (SELECT FROM pg_class WHERE relnamespace = 'staging'::regnamespace
                       AND relkind IN ('r', 'p') AND NOT relispartition AND relname ~ ('^b' || id || '(_|$)')))
        ORDER BY id
        """
    ).fetchall()
    for (batch_id,) in ended:
        with connection.transaction():
            for partition in _partitions(connection):
                if partition.batches == [batch_id]:
                    connection.execute(sql.SQL("DROP TABLE staging.{}").format(sql.Identifier(partition.name)))
                elif batch_id in partition.batches:
                    connection.execute(
                        sql.SQL("DELETE FROM staging.{} WHERE batch_id = %s").format(sql.Identifier(partition.name)),
                        (batch_id,),
                    )
            drop_staged(connection, batch_id)
        log.info("leftovers dropped", batch_id=batch_id)
    return len(ended)


def _partitions(connection: Connection) -> list[Partition]:
    """List the partitions, the oldest batches first; withdrawn batches have no rows that count."""
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


def _merge(connection: Connection) -> int:
    """Merge small partitions of like size until there are few of every size."""
    merged = 0
    while True:
        alike: dict[int, list[Partition]] = {}
        for partition in _partitions(connection):
            if partition.rows < LARGEST_MERGED_ROWS:
                alike.setdefault(len(str(partition.rows)), []).append(partition)
        group = next((some for some in alike.values() if len(some) >= MERGE_PARTITIONS), None)
        if group is None:
            return merged
        _merge_into_one(connection, group[:MERGE_PARTITIONS])
        merged += MERGE_PARTITIONS


def _merge_into_one(connection: Connection, partitions: list[Partition]) -> None:
    batches = sorted(number for partition in partitions for number in partition.batches)
    values = sql.SQL(", ").join(map(sql.Literal, batches))
    with connection.transaction():
        row = connection.execute("SELECT pg_current_xact_id()::text").fetchone()
        assert row is not None  # noqa: S101 - a function call has one row
        table = sql.Identifier(f"merged_x{row[0]}")
        # With the check, attaching need not look at the rows: the lock that others wait for is held for a moment.
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
    log.info("partitions merged", batches=len(batches), rows=sum(partition.rows for partition in partitions))


def _remove_files(connection: Connection, folder: Path) -> int:
    """Remove plain copies of compressed files whose batch has ended, and what interrupted writers have left."""
    ended = {str(number) for (number,) in connection.execute("SELECT id FROM batches WHERE ended_at IS NOT NULL")}
    removed = 0
    for path in (*(folder / "expanded").glob("*"), *(folder / "incoming").glob(".*.partial")):
        if path.name in ended or time.time() - path.stat().st_mtime > KEEP_SECONDS:
            path.unlink(missing_ok=True)
            removed += 1
    return removed
