"""Read the reject reports of batches."""

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
        containing: Only bad values whose field, reason or value contains this, in any case.
        limit: Rows of a page.

    Returns:
        Bad values with their lines in the file, and the key for the next page; None at the end. A slice's lines are
        known once all before it are staged, so a report that is read while the batch is staging counts from what is
        known.
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
        Each bad value with its line in the file, in the order of the file.
    """
    page, key = read_rejects(connection, batch_id)
    yield from page
    while key is not None:
        page, key = read_rejects(connection, batch_id, after=key)
        yield from page
