"""Gather, verify, publish, refuse, withdraw: the transactions that end a batch.

What readers see changes in one row's update, so publishing and withdrawing take the same time for ten rows and for a
hundred million, and no reader waits: the rows were made before, and count from then on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from rates_app.batches.ledger.batches import find_batch, find_equal, progress, set_state
from rates_app.batches.model import Batch, BatchError, State, WrongState
from rates_app.ops.traces import tracer
from rates_app.store.generation import increment_generation, record_batch_lanes

if TYPE_CHECKING:
    from rates_app.store.databases import Connection
    from rates_app.store.generation import Warm


class VerificationFailed(BatchError):
    """What is in the tables is not what the ledger counted: a fault of ours or of the storage, not the supplier's."""


def gather(connection: Connection, batch_id: int) -> Batch:
    """Make one table of what won in a batch's slices, or refuse the batch for its bad rows.

    Args:
        connection: A connection to the primary, inside a transaction.
        batch_id: The batch.

    Returns:
        The batch, still ``staging`` and with its table, or ``refused``; as it was if it had come that far before.

    Raises:
        WrongState: Slices are missing.
    """
    batch = find_batch(connection, batch_id, lock=True)
    if batch.state != "staging":
        return batch
    done = progress(connection, batch_id)
    if done.staged < done.slices or not done.slices:
        raise WrongState(f"batch {batch_id}: {done.slices - done.staged} of {done.slices} slices are not staged")
    if done.rejected > batch.tolerance:
        bad = f"{done.rejected} bad row{'s' if done.rejected > 1 else ''}"
        return refuse(connection, batch_id, f"{bad}, {batch.tolerance} tolerated: 'rates rejects {batch_id}' lists all")
    if not done.rows:
        return refuse(connection, batch_id, "the file has no rows")
    if (refused := _refuse_equal(connection, batch)) is not None:
        return refused
    table = sql.Identifier(f"b{batch_id}")
    if connection.execute("SELECT to_regclass(%s)", (f"staging.b{batch_id}",)).fetchone() != (None,):
        return batch
    connection.execute(
        sql.SQL(
            """
            CREATE TABLE staging.{} (LIKE segments INCLUDING STORAGE, CONSTRAINT of_batch CHECK (batch_id = {}))
            PARTITION BY LIST (slice)
            """
        ).format(table, sql.Literal(batch_id))
    )
    winners = connection.execute("SELECT number, winner FROM slices WHERE batch_id = %s", (batch_id,)).fetchall()
    for number, winner in winners:
        connection.execute(
            sql.SQL("ALTER TABLE staging.{} ATTACH PARTITION staging.{} FOR VALUES IN ({})").format(
                table, sql.Identifier(winner), sql.Literal(number)
            )
        )
    return batch


@tracer.start_as_current_span("verify")
def verify(connection: Connection, batch_id: int) -> Batch:
    """Check that every row of a gathered batch is in its rollups, once.

    The ledger has counts of the file's lines, and counts of what was read back from the tables and rolled up, each
    entered in the transaction that wrote what it counts. So what is equal here went through the database unharmed.

    Args:
        connection: A connection to the primary, inside a transaction.
        batch_id: The batch, with its rollups made.

    Returns:
        The batch, now ``verified``; as it was if it had come that far before.

    Raises:
        VerificationFailed: Rows or control totals differ from the ledger's.
    """
    # Another tree comes before all of this or after it; asked for first, as who brings one locks it before batches.
    connection.execute("LOCK TABLE location_ancestors IN SHARE MODE")
    if (batch := find_batch(connection, batch_id, lock=True)).state != "staging":
        return batch
    if (refused := _refuse_equal(connection, batch)) is not None:
        return refused  # an equal batch was verified after this one was gathered
    record_batch_lanes(connection, batch_id)
    row = connection.execute(
        """
        UPDATE batches SET (rows, total_cents, first_day, last_day) = (
            SELECT sum(count), sum(rolled_up.total_cents), min(rolled_up.first_day), max(rolled_up.last_day)
            FROM rolled_up WHERE batch_id = batches.id
        ), lanes = (
            SELECT count(*) FROM batch_lanes
            JOIN locations o ON o.id = origin_id AND o.kind = 'port'
            JOIN locations d ON d.id = destination_id AND d.kind = 'port'
            WHERE batch_id = batches.id
        ), rejected = (SELECT sum(rejected) FROM slices WHERE batch_id = batches.id)
        WHERE id = %(id)s
        RETURNING rows, total_cents, (SELECT sum(slices.rows) FROM slices WHERE batch_id = id),
                  (SELECT sum(slices.total_cents) FROM slices WHERE batch_id = id)
        """,
        {"id": batch_id},
    ).fetchone()
    assert row is not None  # noqa: S101 - the batch is locked
    rows, cents, ledger_rows, ledger_cents = row
    if (rows, cents) != (ledger_rows, ledger_cents):
        raise VerificationFailed(
            f"batch {batch_id}: rolled up {rows} rows of {cents} cents, the ledger has {ledger_rows} of {ledger_cents}"
        )
    connection.execute("DELETE FROM rolled_up WHERE batch_id = %s", (batch_id,))
    set_state(connection, batch_id, "verified")
    return find_batch(connection, batch_id)


@tracer.start_as_current_span("publish")
def publish(connection: Connection, batch_id: int, warm: Warm | None = None) -> Batch:
    """Make a verified batch visible, to every reader at once.

    Args:
        connection: A connection to the primary, inside a transaction.
        batch_id: The batch.
        warm: Prepares answers that are asked for often.

    Returns:
        The batch, now ``published``; as it was if it was published before.

    Raises:
        WrongState: It is not verified.
    """
    batch = find_batch(connection, batch_id, lock=True)
    if batch.state == "published":
        return batch
    if batch.state != "verified":
        raise WrongState(f"batch {batch_id} is {batch.state}: only a verified batch can be published")
    connection.execute(
        sql.SQL("ALTER TABLE segments ATTACH PARTITION staging.{} FOR VALUES IN ({})").format(
            sql.Identifier(f"b{batch_id}"), sql.Literal(batch_id)
        )
    )
    set_state(connection, batch_id, "published")
    increment_generation(connection, batch_id, warm)
    return find_batch(connection, batch_id)


def withdraw(connection: Connection, batch_id: int, warm: Warm | None = None) -> Batch:
    """Take a published batch back out; its rows stay until housekeeping, but no reader sees them.

    Args:
        connection: A connection to the primary, inside a transaction.
        batch_id: The batch.
        warm: Prepares answers that are asked for often.

    Returns:
        The batch, now ``withdrawn``; as it was if it was withdrawn before.

    Raises:
        NoSuchBatch: There is none with this number.
        WrongState: It is not published.
    """
    batch = find_batch(connection, batch_id, lock=True)
    if batch.state == "withdrawn":
        return batch
    if batch.state != "published":
        raise WrongState(f"batch {batch_id} is {batch.state}: only a published batch can be withdrawn")
    set_state(connection, batch_id, "withdrawn")
    increment_generation(connection, batch_id, warm)
    return find_batch(connection, batch_id)


def _refuse_equal(connection: Connection, batch: Batch) -> Batch | None:
    """Refuse a batch whose rows its supplier has delivered before, so that no price counts twice."""
    earlier = find_equal(connection, batch)
    if earlier is None:
        return None
    return refuse(
        connection,
        batch.id,
        f"batch {earlier} has exactly the same prices: nothing was added. To publish them again, withdraw it first, "
        "then resubmit this file",
    )


def refuse(connection: Connection, batch_id: int, reason: str) -> Batch:
    """End a batch as refused and drop what was staged; its reject report stays."""
    return _end_without(connection, batch_id, "refused", reason)


def fail(connection: Connection, batch_id: int, reason: str) -> Batch:
    """End a batch that a fault of ours keeps from being published, and drop what was staged.

    Raises:
        WrongState: It has ended already.
    """
    if (batch := find_batch(connection, batch_id, lock=True)).ended_at is not None:
        raise WrongState(f"batch {batch_id} is {batch.state}: it has ended")
    return _end_without(connection, batch_id, "failed", reason)


def _end_without(connection: Connection, batch_id: int, state: State, reason: str) -> Batch:
    rejected = progress(connection, batch_id).rejected
    connection.execute("UPDATE batches SET rejected = %s WHERE id = %s", (rejected, batch_id))
    set_state(connection, batch_id, state, failure=reason)
    drop_staged(connection, batch_id)
    return find_batch(connection, batch_id)


def drop_staged(connection: Connection, batch_id: int) -> None:
    """Drop what a batch that is not published has left: its rollups, and every table that attempts have staged."""
    for table in ("rollups", "rolled_up", "batch_lanes"):
        connection.execute(sql.SQL("DELETE FROM {} WHERE batch_id = %s").format(sql.Identifier(table)), (batch_id,))
    tables = connection.execute(
        """
        SELECT relname FROM pg_class
        WHERE relnamespace = 'staging'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
          AND relname ~ ('^b' || %s::integer || '(_|$)')
        """,
        (batch_id,),
    ).fetchall()
    for (table,) in tables:
        connection.execute(sql.SQL("DROP TABLE staging.{}").format(sql.Identifier(table)))
