"""Compute what publishing a verified batch would change: prices and medians of its lanes, before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from rates_app.rates.sets import read_set
from rates_app.rates.spread import spread

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rates_app.batches.model import Batch
    from rates_app.store.databases import Connection

#: Lanes whose medians are computed: those whose average changes most.
MAX_LANES = 20


class _Lane(NamedTuple):
    """A lane of the batch, or of the batch that it replaces, over the days that either has prices on."""

    origin_id: int
    destination_id: int
    origin: str
    destination: str
    days: int
    prices_before: int
    prices_after: int


def compare(connection: Connection, batch: Batch) -> dict[str, Any]:
    """Compare the published prices with those after a publish of the batch.

    Only the days are compared on which the batch, or the batch that it replaces, has prices on the lane.

    Args:
        connection: A connection to the primary, inside a transaction.
        batch: The batch, with its rollups.

    Returns:
        Counts of lanes and prices, and ``largest``: the lanes whose average changes most, with their medians in USD.
        It can be stored as JSON.
    """
    values = {"id": batch.id, "replaces": batch.replaces}
    lanes = [
        _Lane(*row)
        for row in connection.execute(
            """
            WITH own AS (
                SELECT origin_id, destination_id, day FROM rollups
                WHERE batch_id IN (%(id)s, %(replaces)s)
                  AND origin_id IN (SELECT id FROM locations WHERE kind = 'port')
                  AND destination_id IN (SELECT id FROM locations WHERE kind = 'port')
                GROUP BY origin_id, destination_id, day
            ), lanes AS (
                SELECT origin_id, destination_id, count(DISTINCT day) AS days,
                       coalesce(sum(count) FILTER (WHERE visible), 0)::bigint AS count_before,
                       sum(total) FILTER (WHERE visible) AS total_before,
                       coalesce(sum(count) FILTER (WHERE follows), 0)::bigint AS count_after,
                       sum(total) FILTER (WHERE follows) AS total_after
                FROM own JOIN (
                    SELECT origin_id, destination_id, day, count, rollups.total_cents AS total,
                           batches.state = 'published' AS visible,
                           batch_id = %(id)s OR (batches.state = 'published' AND batch_id IS DISTINCT FROM %(replaces)s)
                               AS follows
                    FROM rollups JOIN batches ON batches.id = batch_id AND (state = 'published' OR batch_id = %(id)s)
                ) each USING (origin_id, destination_id, day)
                GROUP BY origin_id, destination_id
            )
            SELECT origin_id, destination_id, o.code, d.code, days, count_before, count_after
            FROM lanes JOIN locations o ON o.id = origin_id JOIN locations d ON d.id = destination_id
            ORDER BY abs(ln((total_after / nullif(count_after, 0)) / (total_before / nullif(count_before, 0))))
                     DESC NULLS LAST, o.code, d.code
            """,
            values,
        )
    ]
    return {
        "first_day": str(batch.first_day),
        "last_day": str(batch.last_day),
        "lanes": len(lanes),
        "new_lanes": sum(not lane.prices_before for lane in lanes),
        "lost_lanes": sum(not lane.prices_after for lane in lanes),
        "prices_before": sum(lane.prices_before for lane in lanes),
        "prices_after": sum(lane.prices_after for lane in lanes),
        "largest": [_medians(connection, batch, lane) for lane in lanes[:MAX_LANES]],
    }


def _medians(connection: Connection, batch: Batch, lane: _Lane) -> dict[str, Any]:
    rows = connection.execute(
        """
        SELECT batch_id, count, prices FROM rollups
        JOIN batches ON batches.id = batch_id AND (state = 'published' OR batch_id = %(id)s)
        WHERE origin_id = %(origin)s AND destination_id = %(destination)s AND day IN (
            SELECT day FROM rollups WHERE origin_id = %(origin)s AND destination_id = %(destination)s
                                      AND batch_id IN (%(id)s, %(replaces)s)
        )
        """,
        {
            "id": batch.id,
            "replaces": batch.replaces,
            "origin": lane.origin_id,
            "destination": lane.destination_id,
        },
    ).fetchall()
    return {
        "origin": lane.origin,
        "destination": lane.destination,
        "days": lane.days,
        "prices_before": lane.prices_before,
        "prices_after": lane.prices_after,
        "median_before": _median((count, prices) for owner, count, prices in rows if owner != batch.id),
        "median_after": _median((count, prices) for owner, count, prices in rows if owner != batch.replaces),
    }


def _median(sets: Iterable[tuple[int, bytes]]) -> float | None:
    parts = [read_set(count, prices) for count, prices in sets]
    return spread(parts).median / 100 if parts else None
