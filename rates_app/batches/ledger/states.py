"""Record the state of batches and of their slices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rates_app.batches.model import Slice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rates_app.batches.model import BatchState
    from rates_app.store.databases import Connection

#: First key of the advisory locks that keep two processes from driving one batch; the second is the batch's id.
DRIVER_LOCK = 7_246_002


def set_state(connection: Connection, batch_id: int, state: BatchState, *, failure: str | None = None) -> None:
    """Set the state of a batch and record the time."""
    connection.execute(
        """
        UPDATE batches SET state = %(state)s, failure = coalesce(%(failure)s, failure),
            started_at   = CASE %(state)s WHEN 'staging' THEN clock_timestamp() ELSE started_at END,
            verified_at  = CASE %(state)s WHEN 'verified' THEN clock_timestamp() ELSE verified_at END,
            published_at = CASE %(state)s WHEN 'published' THEN clock_timestamp() ELSE published_at END,
            ended_at     = CASE WHEN %(state)s IN ('published', 'refused', 'withdrawn', 'failed', 'held', 'checked')
                                THEN clock_timestamp() ELSE ended_at END
        WHERE id = %(id)s
        """,
        {"id": batch_id, "state": state, "failure": failure},
    )


def supersede(connection: Connection, batch_id: int) -> None:
    """Let a batch no longer answer for its content, so that the same content is a new batch."""
    connection.execute("UPDATE batches SET superseded = true WHERE id = %s", (batch_id,))


def enter_slices(connection: Connection, batch_id: int, slices: Sequence[Slice]) -> None:
    """Enter the slices of a batch. Existing ones stay, so that a resumed batch keeps its boundaries."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO slices (batch_id, number, start, stop) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [(batch_id, *part) for part in slices],
        )


def pending_slices(connection: Connection, batch_id: int) -> list[Slice]:
    """List the slices of a batch that no attempt has staged yet."""
    rows = connection.execute(
        "SELECT number, start, stop FROM slices WHERE batch_id = %s AND state = 'pending' ORDER BY number", (batch_id,)
    ).fetchall()
    return [Slice(*row) for row in rows]
