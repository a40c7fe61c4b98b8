"""Recognise batches with equal rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rates_app.batches.formats.digest import MODULUS

if TYPE_CHECKING:
    from rates_app.batches.model import Batch
    from rates_app.store.databases import Connection

#: First key of the advisory locks under which batches of one supplier are compared; the second is a hash of its name.
EQUAL_LOCK = 7_246_006


def find_equal(connection: Connection, batch: Batch) -> int | None:
    """Find an earlier batch of the same supplier with exactly the same rows, published or about to be.

    Args:
        connection: A connection to the primary, inside a transaction. It holds a lock until the transaction ends, so
            that of two such batches the second finds the first.
        batch: A batch with all slices staged.

    Returns:
        The earlier batch's number, or None.
    """
    connection.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (EQUAL_LOCK, batch.supplier))
    connection.execute(
        """
        UPDATE batches SET row_digest = (SELECT mod(sum(row_digest), %s) FROM slices WHERE batch_id = batches.id)
        WHERE id = %s
        """,
        (MODULUS, batch.id),
    )
    row = connection.execute(
        """
        SELECT earlier.id FROM batches JOIN batches earlier USING (supplier, row_digest)
        WHERE batches.id = %s AND earlier.id <> batches.id AND NOT earlier.check_only
          AND earlier.state NOT IN ('received', 'staging', 'refused', 'withdrawn', 'failed')
          AND (earlier.rows, earlier.total_cents) = (
              SELECT sum(slices.rows), sum(slices.total_cents) FROM slices WHERE batch_id = batches.id
          )
        ORDER BY earlier.id LIMIT 1
        """,
        (batch.id,),
    ).fetchone()
    return None if row is None else int(row[0])
