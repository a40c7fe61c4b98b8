"""Overviews of the data: days with prices of a lane, coverage of regions, lanes with the largest changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from psycopg import sql

from rates_app.rates.model import MIN_PRICES
from rates_app.rates.queries import Lane

if TYPE_CHECKING:
    from datetime import date

    from rates_app.store.databases import Connection

#: Days that movers compare with the same number of days before them.
MOVE_DAYS = 7


class Coverage(NamedTuple):
    """A region in its place in the tree, and the prices from and to the ports under it."""

    code: str
    name: str
    depth: int
    ports: int
    prices_from: int
    prices_to: int
    days: int
    first_day: date | None
    last_day: date | None


class Mover(NamedTuple):
    """A lane between ports, its average in USD over the last week, and the change from the week before."""

    origin: str
    origin_name: str
    destination: str
    destination_name: str
    average: float
    change: float
    prices: int


def priced_days(connection: Connection, origin: str, destination: str) -> tuple[date, date] | None:
    """Find the first and the last day that has prices between two locations; None without any."""
    row = connection.execute(
        """
        SELECT min(lower(days)), max(upper(days)) - 1
        FROM visible_lanes
        WHERE origin_id = (SELECT id FROM locations WHERE code = %s)
          AND destination_id = (SELECT id FROM locations WHERE code = %s)
        """,
        (origin, destination),
    ).fetchone()
    return None if row is None or row[0] is None else (row[0], row[1])


def region_lanes(connection: Connection, limit: int) -> list[Lane]:
    """List the lanes between top-level regions and the regions directly below another one, in both directions.

    Args:
        connection: A connection to any server.
        limit: Maximum number of results.

    Returns:
        The pair with most prices first.
    """
    rows = connection.execute(
        """
        WITH tops AS (SELECT id FROM locations WHERE parent_id IS NULL),
        under AS (SELECT id FROM locations WHERE kind = 'region' AND parent_id IN (SELECT id FROM tops)),
        pairs AS (
            SELECT tops.id AS origin_id, under.id AS destination_id FROM tops, under
            UNION ALL SELECT under.id, tops.id FROM under, tops
        ), lanes AS (
            SELECT origin_id, destination_id, sum(prices)::bigint AS prices, range_agg(days) AS days
            FROM pairs
            JOIN visible_lanes USING (origin_id, destination_id)
            GROUP BY origin_id, destination_id
        )
        SELECT o.code, o.name, d.code, d.name, prices, count_days(days), lower(days), upper(days) - 1
        FROM lanes
        JOIN locations o ON o.id = origin_id
        JOIN locations d ON d.id = destination_id
        ORDER BY prices DESC, o.code, d.code
        LIMIT %s
        """,
        (limit,),
    ).fetchall()
    return [Lane(*row) for row in rows]


def counterparts(connection: Connection, code: str, role: Literal["origin", "destination"], limit: int) -> list[Lane]:
    """List the lanes that have prices from or to a location, regions included.

    Args:
        connection: A connection to any server.
        code: Exact code of the location.
        role: Whether the location is the lane's origin or its destination.
        limit: Maximum number of lanes.

    Returns:
        Lanes to regions first, each group by descending number of prices.
    """
    own, other = ("origin_id", "destination_id") if role == "origin" else ("destination_id", "origin_id")
    query = sql.SQL(
        """
        SELECT o.code, o.name, d.code, d.name, prices, count_days(days), lower(days), upper(days) - 1
        FROM (
            SELECT origin_id, destination_id, {other} AS other_id,
                   sum(prices)::bigint AS prices, range_agg(days) AS days
            FROM visible_lanes
            WHERE {own} = (SELECT id FROM locations WHERE code = %s)
              AND origin_id = ANY(ARRAY(SELECT id FROM locations))  -- the index begins with the origin
            GROUP BY origin_id, destination_id
        ) lane
        JOIN locations o ON o.id = origin_id
        JOIN locations d ON d.id = destination_id
        JOIN locations other ON other.id = other_id
        ORDER BY other.kind = 'region' DESC, prices DESC, o.code, d.code
        LIMIT %s
        """
    ).format(own=sql.Identifier(own), other=sql.Identifier(other))
    return [Lane(*row) for row in connection.execute(query, (code, limit)).fetchall()]


def coverage(connection: Connection, under: str | None = None) -> list[Coverage]:
    """Return the coverage of regions.

    Every port is under exactly one top-level region, so the prices between a region and all top-level regions are all
    of its prices, each counted once.

    Args:
        connection: A connection to any server.
        under: Only this region and those under it.

    Returns:
        The tree from the top, each region after its parent.
    """
    rows = connection.execute(
        """
        WITH tops AS (SELECT id FROM locations WHERE parent_id IS NULL)
        SELECT code, name, cardinality(path) - 1,
               (SELECT count(*) FROM location_ancestors JOIN locations port ON port.id = location_id
                WHERE ancestor_id = region.id AND port.kind = 'port'),
               coalesce(away.prices, 0)::bigint, coalesce(here.prices, 0)::bigint,
               count_days(away.days + here.days),
               lower(away.days + here.days), upper(away.days + here.days) - 1
        FROM (
            SELECT id, code, name, ARRAY(
                SELECT above.name FROM location_ancestors JOIN locations above ON above.id = ancestor_id
                WHERE location_id = locations.id ORDER BY depth DESC
            ) AS path
            FROM locations WHERE kind = 'region' AND (%(under)s::text IS NULL OR id IN (
                SELECT location_id FROM location_ancestors
                WHERE ancestor_id = (SELECT id FROM locations WHERE code = %(under)s)))
        ) region
        CROSS JOIN LATERAL (
            SELECT sum(prices) AS prices, coalesce(range_agg(days), '{}') AS days FROM visible_lanes
            WHERE origin_id = region.id AND destination_id IN (SELECT id FROM tops)
        ) away
        CROSS JOIN LATERAL (
            SELECT sum(prices) AS prices, coalesce(range_agg(days), '{}') AS days FROM visible_lanes
            WHERE destination_id = region.id AND origin_id IN (SELECT id FROM tops)
        ) here
        ORDER BY path
        """,
        {"under": under},
    ).fetchall()
    return [Coverage(*row) for row in rows]


def movers(connection: Connection, limit: int) -> list[Mover]:
    """List the lanes between ports whose average changed most, up or down, within a week.

    Args:
        connection: A connection to any server.
        limit: Maximum number of results.

    Returns:
        The largest change first; lanes with too few prices in either week are omitted.
    """
    rows = connection.execute(
        """
        WITH newest AS (SELECT max(last_day) AS day FROM batches WHERE state = 'published'),
        moving AS (
            SELECT DISTINCT origin_id, destination_id, newest.day AS newest
            FROM newest, visible_lanes
            WHERE days && daterange(newest.day - 2 * %(days)s, newest.day, '(]')
              AND origin_id IN (SELECT id FROM locations WHERE kind = 'port')
              AND destination_id IN (SELECT id FROM locations WHERE kind = 'port')
        ),
        week AS (
            SELECT origin_id, destination_id, sum(count) FILTER (WHERE latest) AS prices,
                   sum(cents) FILTER (WHERE latest) / sum(count) FILTER (WHERE latest) AS average,
                   sum(cents) FILTER (WHERE NOT latest) / sum(count) FILTER (WHERE NOT latest) AS before
            FROM moving CROSS JOIN LATERAL (
                SELECT day > newest - %(days)s AS latest, count, total_cents AS cents
                FROM visible_rollups
                WHERE (origin_id, destination_id) = (moving.origin_id, moving.destination_id)
                  AND day > newest - 2 * %(days)s AND day <= newest
            ) days
            GROUP BY origin_id, destination_id
            HAVING sum(count) FILTER (WHERE latest) >= %(least)s
               AND sum(count) FILTER (WHERE NOT latest) >= %(least)s
        )
        SELECT o.code, o.name, d.code, d.name, (average / 100)::float8, (average / before - 1)::float8, prices::bigint
        FROM week
        JOIN locations o ON o.id = origin_id
        JOIN locations d ON d.id = destination_id
        WHERE before > 0 AND average <> before
        ORDER BY abs(average / before - 1) DESC, o.code, d.code
        LIMIT %(limit)s
        """,
        {"days": MOVE_DAYS, "least": MIN_PRICES, "limit": limit},
    ).fetchall()
    return [Mover(*row) for row in rows]
