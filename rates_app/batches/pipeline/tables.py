"""The tables that slices are staged into: read them, attach them to ``segments``, and drop them.

Attaching and dropping need locks that conflict with every reader of the table, such as pg_dump. So no transaction that
ends a batch contains them. They run afterwards with a short lock timeout; what could not be locked stays for
housekeeping, and readers of rates notice nothing, because they read rollups.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
import structlog
from psycopg import sql

from rates_app.batches.ledger import find_batch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rates_app.store.databases import Connection

log = structlog.get_logger()

#: First key of the advisory locks that keep two processes from changing the tables of one batch; the second is its id.
TABLES_LOCK = 7_246_005

#: A statement that waits longer for its lock is given up: every later reader and writer of the table waits behind it.
LOCK_TIMEOUT_MILLISECONDS = 500


def staged_rows(connection: Connection, batch_id: int) -> sql.Composed:
    """Return a subquery of the rows of a batch's winning tables, to use as a table expression.

    Args:
        connection: A connection to the primary.
        batch_id: The batch, with all slices staged.
    """
    winners = connection.execute(
        "SELECT winner FROM slices WHERE batch_id = %s AND winner IS NOT NULL ORDER BY number", (batch_id,)
    ).fetchall()
    tables = (sql.SQL("SELECT * FROM staging.{}").format(sql.Identifier(winner)) for (winner,) in winners)
    return sql.SQL("({})").format(sql.SQL(" UNION ALL ").join(tables))


@contextmanager
def short_locks(connection: Connection) -> Iterator[None]:
    """Run a transaction that gives up a lock after :data:`LOCK_TIMEOUT_MILLISECONDS`.

    Raises:
        psycopg.errors.LockNotAvailable: A lock was not granted in time; the transaction was rolled back.
    """
    with connection.transaction():
        connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(LOCK_TIMEOUT_MILLISECONDS))
        yield


def settle(connection: Connection, batch_id: int) -> bool:
    """Attach or drop the tables of a batch that has ended, if their locks are free.

    Args:
        connection: A connection to the primary, outside of a transaction.
        batch_id: The batch; nothing happens unless it is published or will never be.

    Returns:
        Whether it is done; otherwise housekeeping repeats it.
    """
    with connection.transaction():
        state = find_batch(connection, batch_id).state
    try:
        if state == "published":
            attach(connection, batch_id)
        elif state in {"refused", "failed", "withdrawn", "checked"}:
            discard(connection, batch_id)
    except psycopg.errors.LockNotAvailable as error:
        log.warning("staged_tables_locked", batch_id=batch_id, state=state, error=str(error).strip())
        return False
    return True


def attach(connection: Connection, batch_id: int) -> None:
    """Attach the tables of a published batch to ``segments``; does nothing if they are.

    Raises:
        psycopg.errors.LockNotAvailable: A table is in use. Nothing has changed.
    """
    with short_locks(connection):
        connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (TABLES_LOCK, batch_id))
        tables = staged_tables(connection, batch_id)
        winners = connection.execute(
            "SELECT number, winner FROM slices WHERE batch_id = %s AND winner = ANY(%s) ORDER BY number",
            (batch_id, tables),
        ).fetchall()
        if not winners:
            return
        name = sql.Identifier(f"b{batch_id}")
        batch = sql.Literal(batch_id)
        if len(winners) == 1:
            name = sql.Identifier(winners[0][1])
        else:
            connection.execute(
                sql.SQL(
                    """
                    CREATE TABLE staging.{} (LIKE segments INCLUDING STORAGE, CONSTRAINT of_batch CHECK (batch_id = {}))
                    PARTITION BY LIST (slice)
                    """
                ).format(name, batch)
            )
            for number, winner in winners:
                connection.execute(
                    sql.SQL("ALTER TABLE staging.{} ATTACH PARTITION staging.{} FOR VALUES IN ({})").format(
                        name, sql.Identifier(winner), sql.Literal(number)
                    )
                )
        connection.execute(
            sql.SQL("ALTER TABLE segments ATTACH PARTITION staging.{} FOR VALUES IN ({})").format(name, batch)
        )


def discard(connection: Connection, batch_id: int) -> None:
    """Delete the rows and drop the unattached tables of a batch that is not visible and never will be.

    Raises:
        psycopg.errors.LockNotAvailable: A table is in use. Tables dropped before it stay dropped.
    """
    with connection.transaction():
        for table in ("rollups", "rolled_up", "batch_lanes"):
            connection.execute(sql.SQL("DELETE FROM {} WHERE batch_id = %s").format(sql.Identifier(table)), (batch_id,))
        tables = staged_tables(connection, batch_id)
    for table in tables:
        with short_locks(connection):
            connection.execute(sql.SQL("DROP TABLE IF EXISTS staging.{}").format(sql.Identifier(table)))


def staged_tables(connection: Connection, batch_id: int) -> list[str]:
    """List the tables of a batch's attempts that are not attached."""
    rows = connection.execute(
        """
        SELECT relname FROM pg_class
        WHERE relnamespace = 'staging'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
          AND relname ~ ('^b' || %s::integer || '(_|$)')
        ORDER BY relname
        """,
        (batch_id,),
    ).fetchall()
    return [name for (name,) in rows]
