"""Read and bound the reject reports of batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rates_app.batches.model import Reject

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rates_app.store.databases import Connection


#: Position in a reject report: slice, line in it, field and reason.
RejectKey = tuple[int, int, str, str]

REJECTS_PAGE = 1000


def read_rejects(
    connection: Connection,
    batch_id: int,
    *,
    after: RejectKey | None = None,
    containing: str = "",
    limit: int = REJECTS_PAGE,
) -> tuple[list[Reject], RejectKey | None]:
    """Read one page of the reject report of a batch, in the order of its file.

    Args:
        connection: A connection to any server.
        batch_id: The batch.
        after: The key that the previous page returned; None for the first page.
        containing: Only rejects whose field, reason or value contains this text, in any case.
        limit: Rejects per page.

    Returns:
        Rejects with their lines in the file, and the key for the next page; None at the end. Lines are exact once all
        previous slices are staged. While the batch is staging, they count the staged slices only.
    """
    rows = connection.execute(
        """
        SELECT slice, rejects.line, field, reason, value, first.line
        FROM rejects JOIN (
            SELECT number, coalesce((layout->>'header_lines')::integer, 0) + coalesce(
                sum(lines) OVER (ORDER BY number ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0
            )::bigint AS line
            FROM slices JOIN batches ON batches.id = batch_id WHERE batch_id = %(id)s
        ) first ON first.number = rejects.slice
        WHERE batch_id = %(id)s
          AND (slice, rejects.line) >= (%(slice)s, %(line)s)  -- for the index
          AND (slice, rejects.line, field, reason) > (%(slice)s, %(line)s, %(field)s, %(reason)s)
          AND strpos(lower(concat_ws(' ', field, reason, value)), lower(%(containing)s)) > 0
        ORDER BY slice, rejects.line, field, reason LIMIT %(limit)s
        """,
        {
            "id": batch_id,
            "containing": containing,
            "limit": limit,
            **dict(zip(("slice", "line", "field", "reason"), after or (-1, -1, "", ""), strict=True)),
        },
    ).fetchall()
    page = [Reject(line + first, field, reason, value) for _, line, field, reason, value, first in rows]
    return page, rows[-1][:4] if len(rows) == limit else None


def iter_rejects(connection: Connection, batch_id: int) -> Iterator[Reject]:
    """Read the whole reject report of a batch, page by page.

    Args:
        connection: A connection to any server.
        batch_id: The batch.

    Yields:
        Each reject with its line in the file, in the order of the file.
    """
    page, key = read_rejects(connection, batch_id)
    yield from page
    while key is not None:
        page, key = read_rejects(connection, batch_id, after=key)
        yield from page


def count_rejects(connection: Connection, batch_id: int) -> int:
    """Count the stored rejects of a batch."""
    row = connection.execute("SELECT count(*) FROM rejects WHERE batch_id = %s", (batch_id,)).fetchone()
    assert row is not None  # noqa: S101 - an aggregate always has one row
    return int(row[0])


def count_unlisted_rows(connection: Connection, batch_id: int) -> int:
    """Count the rejected rows of a batch that have no reject: the report was full, or has been deleted."""
    row = connection.execute(
        """
        SELECT coalesce((SELECT sum(rejected) FROM slices WHERE batch_id = %(id)s), 0)::bigint
             - (SELECT count(DISTINCT (slice, line)) FROM rejects WHERE batch_id = %(id)s)
        """,
        {"id": batch_id},
    ).fetchone()
    assert row is not None  # noqa: S101 - a query without FROM has one row
    return max(0, int(row[0]))


def trim_rejects(connection: Connection, batch_id: int, limit: int) -> None:
    """Keep the first rejects of a batch, in the order of its file, and delete the others."""
    connection.execute(
        """
        DELETE FROM rejects WHERE batch_id = %(id)s AND ctid IN (
            SELECT ctid FROM rejects WHERE batch_id = %(id)s ORDER BY slice, line, field, reason OFFSET %(limit)s
        )
        """,
        {"id": batch_id, "limit": limit},
    )


def delete_old_rejects(connection: Connection, days: int) -> int:
    """Delete the rejects of batches that ended some days ago.

    Returns:
        Rejects that were deleted.
    """
    return connection.execute(
        """
        DELETE FROM rejects USING batches
        WHERE batches.id = batch_id AND ended_at < clock_timestamp() - make_interval(days => %s)
        """,
        (days,),
    ).rowcount
