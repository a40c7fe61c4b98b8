"""Measure how far batches are, and whether they will meet their deadlines."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rates_app.store.databases import Connection


#: Query of the batches in progress; ``progress`` is when the latest step of each was completed.
IN_PROGRESS = """
    SELECT batches.*, progress
    FROM batches, LATERAL (
        SELECT greatest(received_at, started_at, max(staged_at), verified_at) AS progress
        FROM slices WHERE batch_id = batches.id
    ) last
    WHERE state IN ('received', 'staging', 'verified')
"""


class Progress(NamedTuple):
    """Counts over the slices of a batch."""

    slices: int
    staged: int
    rows: int
    rejected: int
    #: Size of the staged slices and of all slices, in bytes (Parquet: row groups).
    staged_size: int
    size: int
    seconds: float | None
    #: Rows per second since the batch was started, and the seconds left at that rate.
    rows_per_second: float | None
    seconds_left: float | None


def progress(connection: Connection, batch_id: int) -> Progress:
    """Return the progress of a batch, its rate and the time left."""
    row = connection.execute(
        """
        SELECT count(*), count(*) FILTER (WHERE slices.state = 'staged'),
               coalesce(sum(slices.rows), 0)::bigint, coalesce(sum(slices.rejected), 0)::bigint,
               coalesce(sum(stop - start) FILTER (WHERE slices.state = 'staged'), 0)::bigint,
               coalesce(sum(stop - start), 0)::bigint,
               extract(epoch FROM max(staged_at) - min(batches.started_at))::float8
        FROM slices JOIN batches ON batches.id = batch_id WHERE batch_id = %s
        """,
        (batch_id,),
    ).fetchone()
    assert row is not None  # noqa: S101 - an aggregate always has one row
    slices, staged, rows, rejected, staged_size, size, seconds = row
    pace = rows / seconds if seconds else None
    left = seconds * (size - staged_size) / staged_size if seconds and staged_size else None
    return Progress(slices, staged, rows, rejected, staged_size, size, seconds, pace, left)


def deadline_slack(connection: Connection, batch_id: int | None = None) -> float | None:
    """Estimate how long before its deadline a batch will be staged.

    The estimate extrapolates from the slices that are staged. For a batch without progress it assumes an end now, so
    its slack decreases.

    Args:
        connection: A connection to any server.
        batch_id: The batch; without one, the batch with the least slack.

    Returns:
        Seconds, negative if it will be late; None if no batch in progress has a deadline.
    """
    row = connection.execute(
        """
        SELECT extract(epoch FROM min(deadline - greatest(clock_timestamp(), staged_at + coalesce(
                   (staged_at - started_at) * (left_size / nullif(staged_size, 0)::float8), '0'))))::float8
        FROM batches LEFT JOIN (
            SELECT batch_id, max(staged_at) AS staged_at,
                   sum(stop - start) FILTER (WHERE state = 'staged') AS staged_size,
                   sum(stop - start) FILTER (WHERE state = 'pending') AS left_size
            FROM slices WHERE batch_id IN (SELECT id FROM batches WHERE ended_at IS NULL) GROUP BY batch_id
        ) pace ON batch_id = id
        WHERE ended_at IS NULL AND deadline IS NOT NULL AND (%(id)s::integer IS NULL OR id = %(id)s)
        """,
        {"id": batch_id},
    ).fetchone()
    assert row is not None  # noqa: S101 - an aggregate always has one row
    return None if row[0] is None else float(row[0])
