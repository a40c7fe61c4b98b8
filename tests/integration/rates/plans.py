"""Plans of queries on rollups, and the state of the table that index-only scans need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from drills.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a plan's node and those below it."""
    yield plan
    for part in plan.get("Plans", []):
        yield from nodes(part)


def vacuum(connection: psycopg.Connection[Any], *, hidden: float = 0) -> None:
    """Mark the pages of the rollups as all-visible, as autovacuum does.

    Args:
        connection: A connection in autocommit mode.
        hidden: Share of pages that may stay unmarked. Concurrent writers leave pages without rows, which VACUUM skips.
    """

    def hidden_pages() -> tuple[int, int]:
        connection.execute("VACUUM ANALYZE rollups")
        row = connection.execute(
            "SELECT relpages - relallvisible, relpages FROM pg_class WHERE relname = 'rollups'"
        ).fetchone()
        assert row is not None
        return row[0], row[1]

    def visible() -> bool:
        count, pages = hidden_pages()
        return count <= hidden * pages

    # The replica reports its oldest snapshot once a second.
    wait_until(visible, pause=0.2, describe=lambda: f"{hidden_pages()[0]} pages are not visible")
