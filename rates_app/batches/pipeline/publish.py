"""Gather, verify, publish, hold, refuse, withdraw: the transactions that change the state of a batch.

Readers see the rollups of batches in the state ``published``. So a publish, a replacement or a withdrawal updates one
or two rows, takes the same time for ten rows and for a hundred million, and blocks no reader. None of them contains
DDL, which would wait for every reader of a staged table (see :mod:`rates_app.batches.pipeline.tables`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg.types.json import Jsonb

from rates_app.batches.ledger import find_batch, find_equal, not_replaceable, progress, set_state
from rates_app.batches.model import Batch, BatchError, BatchState, WrongState
from rates_app.ops.traces import tracer
from rates_app.store.generation import increment_generation, record_batch_lanes

if TYPE_CHECKING:
    from rates_app.batches.pipeline.plausibility import Assessment
    from rates_app.store.databases import Connection
    from rates_app.store.generation import Warm


class VerificationFailed(BatchError):
    """The tables differ from the ledger's counts: an internal error or a storage error."""


def gather(connection: Connection, batch_id: int) -> Batch:
    """Check that a batch is staged completely, or refuse it for its rejected rows.

    Args:
        connection: A connection to the primary, inside a transaction.
        batch_id: The batch.

    Returns:
        The batch, still ``staging``, or ``refused``; unchanged if it is past staging.

    Raises:
        WrongState: Slices are missing.
    """
    batch = find_batch(connection, batch_id, lock=True)
    if batch.state != "staging":
        return batch
    done = progress(connection, batch_id)
    if done.staged < done.slices or not done.slices:
        raise WrongState(f"batch {batch_id}: {done.slices - done.staged} of {done.slices} slices are not staged")
    reason = _unexpected(connection, batch_id)
    if reason is None and done.rejected > batch.max_rejected_rows:
        rows = f"{done.rejected} rejected row{'s' if done.rejected > 1 else ''}"
        reason = f"{rows}, {batch.max_rejected_rows} allowed: 'rates rejects {batch_id}' lists them"
    if reason is None and not done.rows:
        reason = "the file has no rows"
    if reason is not None:
        return refuse(connection, batch_id, reason)
    return _refuse_equal(connection, batch) or batch


def _unexpected(connection: Connection, batch_id: int) -> str | None:
    """Return how the staged rows differ from the supplier's stated numbers, or None."""
    row = connection.execute(
        """
        SELECT expected_rows, sum(slices.rows + slices.rejected),
               -- Bad rows have no price. If there are too many, they are the reason.
               CASE WHEN sum(slices.rejected) <= max_rejected_rows THEN expected_total_cents END,
               sum(slices.total_cents)
        FROM batches JOIN slices ON batch_id = id WHERE id = %s GROUP BY id
        """,
        (batch_id,),
    ).fetchone()
    assert row is not None  # noqa: S101 - it has slices
    expected_rows, rows, expected_cents, cents = row
    if expected_rows is not None and expected_rows != rows:
        return f"the file has {rows} rows, but {expected_rows} were announced: deliver the complete file"
    if expected_cents is not None and expected_cents != cents:
        total, announced = cents / 100, expected_cents / 100
        return f"the accepted rows total {total:.2f} USD, but {announced:.2f} were announced: deliver the complete file"
    return None


@tracer.start_as_current_span("verify")
def verify(connection: Connection, batch_id: int) -> Batch:
    """Check that every row of a gathered batch is in its rollups exactly once.

    The ledger holds counts and sums of the rows that were staged, and of the rows that were read back and rolled up.
    Each was entered in the transaction that wrote the rows, so equal numbers prove that no row was lost or doubled.

    Args:
        connection: A connection to the primary, inside a transaction.
        batch_id: The batch, with its rollups made.

    Returns:
        The batch, now ``verified``; unchanged if it was verified before.

    Raises:
        VerificationFailed: Rows or control totals differ from the ledger's.
    """
    # Lock the location tree first: the loader locks it before batches, and the reverse order would deadlock.
    connection.execute("LOCK TABLE location_ancestors IN SHARE MODE")
    if (batch := find_batch(connection, batch_id, lock=True)).state != "staging":
        return batch
    if (reason := _unexpected(connection, batch_id)) is not None:
        return refuse(connection, batch_id, reason)  # announced by another delivery of the content meanwhile
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
def publish(connection: Connection, batch_id: int, warm: Warm | None = None, *, by: str | None = None) -> Batch:
    """Make a verified or held batch visible to all readers, and withdraw the batch that it replaces, in one step.

    Args:
        connection: A connection to the primary, inside a transaction.
        batch_id: The batch.
        warm: Prepares responses that are requested often.
        by: The operator who publishes a held batch.

    Returns:
        The batch, now ``published``; ``refused`` if the batch that it replaces is not published any more; unchanged if
        it was published before.

    Raises:
        WrongState: The batch is neither verified nor held, or held and ``by`` is missing.
    """
    batch = find_batch(connection, batch_id, lock=True)
    if batch.state == "published":
        return batch
    if batch.check_only or not (batch.state == "verified" or (batch.state == "held" and by)):
        raise WrongState(f"batch {batch_id} is {batch.state}: only a verified or held batch can be published")
    connection.execute("UPDATE batches SET decided_by = %s WHERE id = %s", (by, batch_id))
    changed = [batch_id]
    if batch.replaces is not None:
        replaced = find_batch(connection, batch.replaces, lock=True)
        if replaced.state != "published":
            return refuse(connection, batch_id, not_replaceable(replaced))
        connection.execute("UPDATE batches SET replaced_by = %s WHERE id = %s", (batch_id, replaced.id))
        set_state(connection, replaced.id, "withdrawn")
        changed.append(replaced.id)
    set_state(connection, batch_id, "published")
    increment_generation(connection, changed, warm)
    return find_batch(connection, batch_id)


def conclude(connection: Connection, batch_id: int, assessment: Assessment, warm: Warm | None = None) -> Batch:
    """Publish, hold or refuse a verified batch according to its findings, or end its check.

    Args:
        connection: A connection to the primary, inside a transaction.
        batch_id: The batch, ``verified``.
        assessment: Its findings, and what publishing it would change.
        warm: Prepares responses that are requested often.

    Returns:
        The batch, now ``published``, ``held``, ``refused`` or ``checked``; unchanged if it is not verified any more.
    """
    batch = find_batch(connection, batch_id, lock=True)
    if batch.state != "verified":
        return batch
    connection.execute(
        "UPDATE batches SET findings = %s, changes = %s WHERE id = %s",
        (Jsonb(assessment.findings), None if assessment.changes is None else Jsonb(assessment.changes), batch_id),
    )
    actions = {finding["action"]: finding["message"] for finding in reversed(assessment.findings)}
    if "refuse" in actions:
        return refuse(connection, batch_id, actions["refuse"])
    if batch.check_only:
        set_state(connection, batch_id, "checked")
    elif "hold" in actions:
        set_state(connection, batch_id, "held")
    else:
        return publish(connection, batch_id, warm)
    return find_batch(connection, batch_id)


def withdraw(connection: Connection, batch_id: int, warm: Warm | None = None) -> Batch:
    """Remove a published batch from all rates; its rows stay until housekeeping drops them.

    Args:
        connection: A connection to the primary, inside a transaction.
        batch_id: The batch.
        warm: Prepares responses that are requested often.

    Returns:
        The batch, now ``withdrawn``; unchanged if it was withdrawn before.

    Raises:
        NoSuchBatch: There is no such batch.
        WrongState: It is not published.
    """
    batch = _lock(connection, batch_id, "published", "withdrawn")
    if batch.state == "withdrawn":
        return batch
    set_state(connection, batch_id, "withdrawn")
    increment_generation(connection, [batch_id], warm)
    return find_batch(connection, batch_id)


def refuse_held(connection: Connection, batch_id: int, *, by: str, reason: str) -> Batch:
    """Refuse a held batch.

    Args:
        connection: A connection to the primary, inside a transaction.
        batch_id: The batch.
        by: The operator who refuses it.
        reason: Why, for the supplier.

    Returns:
        The batch, now ``refused``; unchanged if it was refused before.

    Raises:
        NoSuchBatch: There is no such batch.
        WrongState: It is not held.
    """
    batch = _lock(connection, batch_id, "held", "refused")
    if batch.state == "refused":
        return batch
    connection.execute("UPDATE batches SET decided_by = %s WHERE id = %s", (by, batch_id))
    return refuse(connection, batch_id, reason)


def _lock(connection: Connection, batch_id: int, required: BatchState, target: BatchState) -> Batch:
    """Lock a batch whose state is about to change.

    Returns:
        The batch, in the required state, or in the target state if it was changed before.

    Raises:
        NoSuchBatch: There is no such batch.
        WrongState: It is in neither state.
    """
    batch = find_batch(connection, batch_id, lock=True)
    if batch.state not in {required, target}:
        raise WrongState(f"batch {batch_id} is {batch.state}: only a {required} batch can be {target}")
    return batch


def _refuse_equal(connection: Connection, batch: Batch) -> Batch | None:
    """Refuse a batch whose rows its supplier has delivered before, so that no price counts twice."""
    earlier = find_equal(connection, batch)
    if earlier is None:
        return None
    again = "To publish them again, withdraw it first, then resubmit this file"
    if find_batch(connection, earlier).state == "held":
        again = "It is held: an operator decides about it"
    return refuse(connection, batch.id, f"batch {earlier} has exactly the same prices: nothing was added. {again}")


def refuse(connection: Connection, batch_id: int, reason: str) -> Batch:
    """End a batch as refused; its rejects stay."""
    return _end_without(connection, batch_id, "refused", reason)


def fail(connection: Connection, batch_id: int, reason: str) -> Batch:
    """End a batch that an internal error keeps from being published.

    Raises:
        WrongState: It has ended already.
    """
    if (batch := find_batch(connection, batch_id, lock=True)).ended_at is not None:
        raise WrongState(f"batch {batch_id} is {batch.state}: it has ended")
    return _end_without(connection, batch_id, "failed", reason)


def _end_without(connection: Connection, batch_id: int, state: BatchState, reason: str) -> Batch:
    rejected = progress(connection, batch_id).rejected
    connection.execute("UPDATE batches SET rejected = %s WHERE id = %s", (rejected, batch_id))
    set_state(connection, batch_id, state, failure=reason)
    return find_batch(connection, batch_id)
