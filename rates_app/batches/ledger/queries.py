"""Find and list batches."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from psycopg import sql
from psycopg.rows import class_row

from rates_app.batches.model import Batch, NoSuchBatch

if TYPE_CHECKING:
    from rates_app.batches.model import BatchState
    from rates_app.store.databases import Connection

#: Named one by one: during a rollout, the next version may have added columns.
BATCH_COLUMNS = sql.SQL(", ").join(sql.Identifier(field.name) for field in fields(Batch))


def find_batch(connection: Connection, batch_id: int, *, supplier: str | None = None, lock: bool = False) -> Batch:
    """Return a batch.

    Args:
        connection: A connection to any server; to the primary when locking.
        batch_id: The batch.
        supplier: Only a batch of this supplier.
        lock: Lock the row until the transaction ends.

    Raises:
        NoSuchBatch: There is none.
    """
    with connection.cursor(row_factory=class_row(Batch)) as cursor:
        query = sql.SQL("SELECT {} FROM batches WHERE id = %s AND (%s::text IS NULL OR supplier = %s) {}").format(
            BATCH_COLUMNS, sql.SQL("FOR NO KEY UPDATE" if lock else "")
        )
        if (batch := cursor.execute(query, (batch_id, supplier, supplier)).fetchone()) is None:
            raise NoSuchBatch(f"there is no batch {batch_id}: 'rates batches' lists them")
    return batch


def list_batches(
    connection: Connection,
    *,
    limit: int,
    before: int | None = None,
    state: BatchState | None = None,
    supplier: str | None = None,
) -> list[Batch]:
    """List batches, newest first.

    Args:
        connection: A connection to any server.
        limit: Maximum number of batches.
        before: Only batches with a lower id.
        state: Only batches in this state.
        supplier: Only batches of this supplier.
    """
    with connection.cursor(row_factory=class_row(Batch)) as cursor:
        return cursor.execute(
            sql.SQL(
                """
                SELECT {} FROM batches
                WHERE (%(before)s::int IS NULL OR id < %(before)s) AND (%(state)s::text IS NULL OR state = %(state)s)
                  AND (%(supplier)s::text IS NULL OR supplier = %(supplier)s)
                ORDER BY id DESC LIMIT %(limit)s
                """
            ).format(BATCH_COLUMNS),
            {"before": before, "state": state, "limit": limit, "supplier": supplier},
        ).fetchall()


def find_changes(connection: Connection, batch_id: int) -> dict[str, Any] | None:
    """Return what publishing a checked or held batch would change; None for any other batch."""
    row = connection.execute("SELECT changes FROM batches WHERE id = %s", (batch_id,)).fetchone()
    return row[0] if row else None


def list_lineage(connection: Connection, batch_id: int) -> list[Batch]:
    """List the batches that a batch has replaced, itself, and those that have replaced it, oldest first.

    Batches that named one of these in ``replaces`` but were not published are included.
    """
    with connection.cursor(row_factory=class_row(Batch)) as cursor:
        return cursor.execute(
            sql.SQL(
                """
                WITH RECURSIVE earlier AS (
                    SELECT id, replaces FROM batches WHERE id = %(id)s
                    UNION SELECT batches.id, batches.replaces FROM batches JOIN earlier ON batches.id = earlier.replaces
                ), lineage AS (
                    SELECT id FROM earlier
                    UNION SELECT batches.id FROM batches JOIN lineage ON batches.replaces = lineage.id
                )
                SELECT {} FROM batches WHERE id IN (SELECT id FROM lineage) ORDER BY id
                """
            ).format(BATCH_COLUMNS),
            {"id": batch_id},
        ).fetchall()
