"""The board of the home page: for each of some lanes, the latest rate, its changes, and the averages of a quarter."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING, NamedTuple

from rates_app.rates.changes import Change, compare
from rates_app.rates.explore import region_lanes
from rates_app.rates.model import MIN_PRICES, Question, Rate, average_cents
from rates_app.rates.queries import Lane, rates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rates_app.store.databases import Connection

#: Days of a lane's sparkline. The changes look back less far.
BOARD_DAYS = 90


class BoardLane(NamedTuple):
    """A lane of the board.

    Attributes:
        lane: The lane and its coverage.
        latest: The latest day of the board that has a rate; None without one.
        changes: Changes of the latest average against 7 and 30 days before.
        averages: Average in USD of every day that has a rate, oldest first.
        prices: Number of prices in the board's days.
    """

    lane: Lane
    latest: Rate | None
    changes: list[Change]
    averages: dict[date, float]
    prices: int


class Board(NamedTuple):
    """Lanes over the days of the board; the last day is the latest with prices of any of the lanes."""

    date_from: date
    date_to: date
    lanes: list[BoardLane]


_NAMED = """
    SELECT o.code, o.name, d.code, d.name, lane.prices, count_days(lane.days), lower(lane.days), upper(lane.days) - 1
    FROM unnest(%(origins)s::text[], %(destinations)s::text[]) WITH ORDINALITY pinned (origin, destination, number)
    JOIN locations o ON o.code = pinned.origin
    JOIN locations d ON d.code = pinned.destination
    CROSS JOIN LATERAL (
        SELECT sum(prices)::bigint AS prices, range_agg(days) AS days
        FROM visible_lanes
        WHERE origin_id = o.id AND destination_id = d.id
    ) lane
    WHERE lane.prices > 0
    ORDER BY number
"""

#: Each lane's daily sums, with an index-only scan per lane.
DAYS = """
    SELECT number::integer, day, count, cents
    FROM unnest(%(origins)s::text[], %(destinations)s::text[]) WITH ORDINALITY lanes (origin, destination, number)
    CROSS JOIN LATERAL (
        SELECT day, sum(count)::bigint AS count, sum(total_cents)::bigint AS cents
        FROM visible_rollups
        WHERE origin_id = (SELECT id FROM locations WHERE code = lanes.origin)
          AND destination_id = (SELECT id FROM locations WHERE code = lanes.destination)
          AND day BETWEEN %(date_from)s AND %(date_to)s
        GROUP BY day
    ) days
    ORDER BY number, day
"""


def board(connection: Connection, pinned: Sequence[tuple[str, str]], limit: int) -> Board | None:
    """Read the board: pinned lanes first, then the region pairs with most prices.

    Args:
        connection: A connection, in a transaction with one snapshot.
        pinned: Exact codes of lanes to show in any case, if they have prices.
        limit: Maximum number of lanes.

    Returns:
        The board; None if none of the lanes has prices.
    """
    lanes = board_lanes(connection, pinned, limit)
    if not lanes:
        return None
    last = max(lane.last_day for lane in lanes)
    return Board(last - timedelta(days=BOARD_DAYS - 1), last, latest_rates(connection, lanes, last))


def board_lanes(connection: Connection, pinned: Sequence[tuple[str, str]], limit: int) -> list[Lane]:
    """Choose the lanes of the board: pinned lanes first, then the region pairs with most prices.

    Args:
        connection: A connection to any server.
        pinned: Exact codes of lanes to show in any case, if they have prices.
        limit: Maximum number of lanes.
    """
    lanes = named_lanes(connection, pinned)
    shown = {(lane.origin, lane.destination) for lane in lanes}
    lanes += [lane for lane in region_lanes(connection, limit) if (lane.origin, lane.destination) not in shown]
    return lanes[:limit]


def latest_rates(connection: Connection, lanes: Sequence[Lane], last: date) -> list[BoardLane]:
    """Read the latest rate of each lane within the board's days.

    Args:
        connection: A connection, in a transaction with one snapshot.
        lanes: The lanes.
        last: Last of the days that are read.
    """
    first = last - timedelta(days=BOARD_DAYS - 1)
    sums: list[dict[date, tuple[int, int]]] = [{} for _ in lanes]
    for number, day, count, cents in connection.execute(
        DAYS, _parameters(lanes) | {"date_from": first, "date_to": last}
    ):
        sums[number - 1][day] = (count, cents)
    return [_lane(connection, lane, days) for lane, days in zip(lanes, sums, strict=True)]


def named_lanes(connection: Connection, codes: Sequence[tuple[str, str]]) -> list[Lane]:
    """Look up lanes by their exact codes, in the order given; lanes without prices are left out."""
    if not codes:
        return []
    parameters = {"origins": [origin for origin, _ in codes], "destinations": [destination for _, destination in codes]}
    return [Lane(*row) for row in connection.execute(_NAMED, parameters)]


def _parameters(lanes: Sequence[Lane]) -> dict[str, object]:
    return {"origins": [lane.origin for lane in lanes], "destinations": [lane.destination for lane in lanes]}


def _lane(connection: Connection, lane: Lane, sums: dict[date, tuple[int, int]]) -> BoardLane:
    averages = {day: average_cents(cents, count) / 100 for day, (count, cents) in sums.items() if count >= MIN_PRICES}
    prices = sum(count for count, _ in sums.values())
    if not averages:
        return BoardLane(lane, None, [], averages, prices)
    day = max(averages)
    latest = rates(connection, Question(lane.origin, lane.destination, day, day), "day")[0]
    return BoardLane(lane, latest, compare(averages, latest, "day"), averages, prices)
