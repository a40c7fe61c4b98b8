"""What has happened to every batch and every slice: the rows of ``batches``, ``slices`` and ``rejects``."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, NamedTuple

from psycopg import sql
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from rates_app.batches.formats.digest import MODULUS
from rates_app.batches.formats.layout import Layout
from rates_app.batches.model import Batch, NoSuchBatch, Reject, Slice, State

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from rates_app.batches.formats.source import Source
    from rates_app.store.databases import Connection

#: First key of the advisory locks that keep two processes from driving one batch; the second is the batch's id.
DRIVER_LOCK = 7_246_002

#: First key of the advisory locks under which batches of one supplier are compared; the second is a hash of its name.
EQUAL_LOCK = 7_246_003


#: Named one by one: a newer version may add columns while this one still runs.
_COLUMNS = sql.SQL(", ").join(sql.Identifier(field.name) for field in fields(Batch))


class Progress(NamedTuple):
    """How far the slices of a batch are."""

    slices: int
    staged: int
    rows: int
    rejected: int
    #: Size of the staged slices and of all, in the unit of the slices (bytes, or row groups of Parquet).
    staged_size: int
    size: int
    seconds: float | None
    #: Since the first slice of this batch was staged: rows per second, and seconds to go at that pace.
    rows_per_second: float | None
    seconds_left: float | None


def accept(
    connection: Connection,
    source: Source,
    *,
    name: str,
    supplier: str,
    tolerance: int = 0,
    deadline: datetime | None = None,
    again: bool = False,
) -> tuple[Batch, bool]:
    """Enter a delivered file in the ledger, once for its content.

    Args:
        connection: A connection to the primary, inside a transaction.
        source: The file, inspected.
        name: What the supplier calls it.
        supplier: Who delivers it.
        tolerance: Bad rows that may be left out instead of refusing the batch.
        deadline: When it has to be published.
        again: Take a file that was refused or withdrawn before as a new batch.

    Returns:
        The batch, and whether it is new. A file whose content was delivered before gives its earlier batch.
    """
    if again:
        connection.execute(
            """
            UPDATE batches SET superseded = true
            WHERE content_hash = %s AND NOT superseded AND state IN ('refused', 'withdrawn', 'failed')
            """,
            (source.content_hash,),
        )
    with connection.cursor(row_factory=class_row(Batch)) as cursor:
        batch = cursor.execute(
            sql.SQL(
                """
            INSERT INTO batches (name, supplier, content_hash, size_bytes, format, compression, tolerance, deadline)
            SELECT %(name)s, %(supplier)s, %(content_hash)s, %(size_bytes)s, %(format)s, %(compression)s,
                   %(tolerance)s, %(deadline)s::timestamptz
            -- A conflict uses up a number; what is known already should not.
            WHERE NOT EXISTS (SELECT FROM batches WHERE content_hash = %(content_hash)s AND NOT superseded)
            ON CONFLICT (content_hash) WHERE NOT superseded DO NOTHING
            RETURNING {}
            """
            ).format(_COLUMNS),
            {
                "name": name,
                "supplier": supplier,
                "content_hash": source.content_hash,
                "size_bytes": source.size_bytes,
                "format": source.format,
                "compression": source.compression,
                "tolerance": tolerance,
                "deadline": deadline,
            },
        ).fetchone()
        if batch is not None:
            return batch, True
        earlier = cursor.execute(
            sql.SQL("SELECT {} FROM batches WHERE content_hash = %s AND NOT superseded").format(_COLUMNS),
            (source.content_hash,),
        ).fetchone()
    assert earlier is not None  # noqa: S101 - the insertion has just met it, and batches are never deleted
    return earlier, False


def find_batch(connection: Connection, batch_id: int, *, lock: bool = False) -> Batch:
    """Read a batch.

    Args:
        connection: A connection to any server; to the primary when locking.
        batch_id: The batch's number.
        lock: Keep others from changing it until the transaction ends.

    Raises:
        NoSuchBatch: There is none with this number.
    """
    with connection.cursor(row_factory=class_row(Batch)) as cursor:
        query = sql.SQL("SELECT {} FROM batches WHERE id = %s {}").format(
            _COLUMNS, sql.SQL("FOR NO KEY UPDATE" if lock else "")
        )
        if (batch := cursor.execute(query, (batch_id,)).fetchone()) is None:
            raise NoSuchBatch(f"there is no batch {batch_id}: 'rates batches' lists them")
    return batch


def list_batches(
    connection: Connection, *, limit: int, before: int | None = None, state: State | None = None
) -> list[Batch]:
    """List batches, newest first.

    Args:
        connection: A connection to any server.
        limit: How many to return at most.
        before: Only batches with a lower number: the last one of the page before.
        state: Only batches in this state.
    """
    with connection.cursor(row_factory=class_row(Batch)) as cursor:
        return cursor.execute(
            sql.SQL(
                """
            SELECT {} FROM batches
            WHERE (%(before)s::int IS NULL OR id < %(before)s) AND (%(state)s::text IS NULL OR state = %(state)s)
            ORDER BY id DESC LIMIT %(limit)s
            """
            ).format(_COLUMNS),
            {"before": before, "state": state, "limit": limit},
        ).fetchall()


def set_state(connection: Connection, batch_id: int, state: State, *, failure: str | None = None) -> None:
    """Move a batch to a state and note when that was."""
    connection.execute(
        """
        UPDATE batches SET state = %(state)s, failure = coalesce(%(failure)s, failure),
            started_at   = CASE %(state)s WHEN 'staging' THEN clock_timestamp() ELSE started_at END,
            verified_at  = CASE %(state)s WHEN 'verified' THEN clock_timestamp() ELSE verified_at END,
            published_at = CASE %(state)s WHEN 'published' THEN clock_timestamp() ELSE published_at END,
            ended_at     = CASE WHEN %(state)s IN ('published', 'refused', 'withdrawn', 'failed')
                                THEN clock_timestamp() ELSE ended_at END
        WHERE id = %(id)s
        """,
        {"id": batch_id, "state": state, "failure": failure},
    )


def record_layout(connection: Connection, batch_id: int, layout: Layout) -> None:
    """Record how a batch's file is read, for its workers and for the supplier."""
    connection.execute(
        "UPDATE batches SET layout = %s, assumptions = %s WHERE id = %s",
        (Jsonb(layout.dump()), list(layout.assumptions), batch_id),
    )


def find_layout(connection: Connection, batch_id: int) -> Layout:
    """Return how the file of a batch is read. It is recorded before the batch is ``staging``."""
    row = connection.execute("SELECT layout FROM batches WHERE id = %s", (batch_id,)).fetchone()
    assert row is not None  # noqa: S101 - batches are never deleted
    return Layout.load(row[0])


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
        WHERE batches.id = %s AND earlier.id <> batches.id
          AND earlier.state NOT IN ('received', 'staging', 'refused', 'withdrawn', 'failed')
          AND (earlier.rows, earlier.total_cents) = (
              SELECT sum(slices.rows), sum(slices.total_cents) FROM slices WHERE batch_id = batches.id
          )
        ORDER BY earlier.id LIMIT 1
        """,
        (batch.id,),
    ).fetchone()
    return None if row is None else int(row[0])


def enter_slices(connection: Connection, batch_id: int, slices: Sequence[Slice]) -> None:
    """Write the plan of a batch into the ledger; a plan that is there stays, so that a resumed batch keeps its cuts."""
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


def progress(connection: Connection, batch_id: int) -> Progress:
    """Say how far a batch is, how fast it goes and how long it will take."""
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
    """Say how long before its deadline a batch will be staged at its pace so far.

    The end is foreseen from the slices that are staged; a batch that stands still is foreseen to end now at best, so
    that its slack melts away.

    Args:
        connection: A connection to any server.
        batch_id: The batch; without one, the batch that has least.

    Returns:
        Seconds, negative when it will be late; None if no such batch has a deadline and has not ended.
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


def iter_rejects(connection: Connection, batch_id: int, *, containing: str = "") -> Iterator[Reject]:
    """Read the reject report of a batch, in the order of its file, however long it is.

    Args:
        connection: A connection to any server.
        batch_id: The batch.
        containing: Only bad values whose field, reason or value contains this, in any case.

    Yields:
        Each bad value with its line in the file; a slice's lines are known once all before it are staged, so a
        report that is read while the batch is staging counts from what is known.
    """
    with connection.cursor("rejects") as cursor:
        cursor.execute(
            """
            SELECT rejects.line + first.line, field, reason, value
            FROM rejects JOIN (
                SELECT number, coalesce((layout->>'header_lines')::integer, 0) + coalesce(
                    sum(lines) OVER (ORDER BY number ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0
                )::bigint AS line
                FROM slices JOIN batches ON batches.id = batch_id WHERE batch_id = %(id)s
            ) first ON first.number = rejects.slice
            WHERE batch_id = %(id)s
              AND strpos(lower(concat_ws(' ', field, reason, value)), lower(%(containing)s)) > 0
            ORDER BY slice, rejects.line, field
            """,
            {"id": batch_id, "containing": containing},
        )
        for row in cursor:
            yield Reject(*row)
