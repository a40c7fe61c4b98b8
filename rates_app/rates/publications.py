"""Changes of the published data, for clients that keep copies: what each publication and withdrawal affects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from datetime import date, datetime

    from rates_app.store.databases import Connection


class DataChange(NamedTuple):
    """A batch that was published or withdrawn. A replacement consists of two changes of the same generation.

    Attributes:
        generation: The generation that the change began.
        batch: Number of the batch.
        change: Whether the batch became visible or invisible.
        at: Time of the change.
        first_day: First day with prices of the batch.
        last_day: Last day.
        prices: Number of its prices.
        lanes: Number of its lanes between ports.
    """

    generation: int
    batch: int
    change: Literal["published", "withdrawn"]
    at: datetime
    first_day: date
    last_day: date
    prices: int
    lanes: int


class DataChanges(NamedTuple):
    """Changes after a generation.

    Attributes:
        epoch: Differs after the database was restored or replaced by a copy.
        generation: The current generation.
        changed_at: When it began.
        changes: The changes.
        complete: Whether there are no further changes.
    """

    epoch: str
    generation: int
    changed_at: datetime
    changes: list[DataChange]
    complete: bool


_CHANGES = """
    SELECT generation, id, state, ended_at, first_day, last_day, rows, lanes
    FROM batches
    WHERE state IN ('published', 'withdrawn') AND generation > %(since)s
      AND (%(origin)s::text IS NULL OR EXISTS (
          SELECT FROM batch_slots
          WHERE batch_id = batches.id AND lane_slot(
              (SELECT id FROM locations WHERE code = %(origin)s),
              (SELECT id FROM locations WHERE code = %(destination)s)) = ANY(slots)))
"""
#: All changes of a generation are on one page, so that a page can end with any generation.
_OLDEST = f"{_CHANGES} ORDER BY generation FETCH FIRST %(limit)s ROWS WITH TIES"
_NEWEST = f"{_CHANGES} ORDER BY generation DESC, id DESC LIMIT %(limit)s"


def changes_since(connection: Connection, since: int, limit: int, lane: tuple[str, str] | None = None) -> DataChanges:
    """List changes after a generation, oldest first.

    A batch that was published and withdrawn appears once, as withdrawn: its days have to be read again in any case.

    Args:
        connection: A connection, in a transaction with one snapshot.
        since: The generation.
        limit: Maximum number of changes; more if the last generation has several.
        lane: Exact codes of origin and destination; only changes of its slot, which a few other lanes
            share: the service must not read the lanes of a withdrawn batch.
    """
    origin, destination = lane or (None, None)
    parameters = {"since": since, "limit": limit, "origin": origin, "destination": destination}
    found = [DataChange(*row) for row in connection.execute(_OLDEST, parameters)]
    following = found and connection.execute(
        f"SELECT EXISTS ({_CHANGES})", parameters | {"since": found[-1].generation}
    ).fetchone() == (True,)
    return DataChanges(*_current(connection), found, not following)


def newest_changes(connection: Connection, limit: int) -> DataChanges:
    """List the newest changes, newest first."""
    parameters = {"since": -1, "limit": limit, "origin": None, "destination": None}
    found = [DataChange(*row) for row in connection.execute(_NEWEST, parameters)]
    return DataChanges(*_current(connection), found, len(found) < limit)


def _current(connection: Connection) -> tuple[str, int, datetime]:
    row = connection.execute("SELECT epoch::text, number, changed_at FROM generation").fetchone()
    assert row is not None  # noqa: S101 - the first migration inserts the row
    return row[0], row[1], row[2]
