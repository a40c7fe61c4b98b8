"""Read the reject reports of batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rates_app.batches.model import Reject

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rates_app.store.databases import Connection


def iter_rejects(connection: Connection, batch_id: int, *, containing: str = "") -> Iterator[Reject]:
    """Read the rejects of a batch in the order of its file, without holding them in memory.

    Args:
        connection: A connection to any server.
        batch_id: The batch.
        containing: Only rejects whose field, reason or value contains this text, in any case.

    Yields:
        Each reject with its line in the file. Line numbers are final once all earlier slices are staged.
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
