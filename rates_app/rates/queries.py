"""Compute rates from the rollups."""

from __future__ import annotations

from datetime import timedelta
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from rates_app.rates.model import (
    MIN_PRICES,
    DayAverage,
    Interval,
    Question,
    Rate,
    average_cents,
    interval_start,
    intervals,
)
from rates_app.rates.sets import read_set
from rates_app.rates.spread import SPREAD, OrderedPrices, Spread

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

    from rates_app.store.databases import Connection


class Part(NamedTuple):
    """A batch's contribution to a day, in cents."""

    day: date
    prices: int
    total: int
    spread: Spread


class Lane(NamedTuple):
    """A lane and its coverage by published batches."""

    origin: str
    origin_name: str
    destination: str
    destination_name: str
    prices: int
    days: int
    first_day: date
    last_day: date


_VISIBLE = """
    FROM visible_rollups
    WHERE origin_id = (SELECT id FROM locations WHERE code = %(origin)s)
      AND destination_id = (SELECT id FROM locations WHERE code = %(destination)s)
      AND day BETWEEN %(date_from)s AND %(date_to)s
"""


#: Count and sum of each day.
AVERAGES = f"SELECT day, sum(count)::bigint, sum(total_cents)::bigint {_VISIBLE} GROUP BY day"

#: Each batch's contribution to each day, with its spread.
PARTS = f"SELECT day, count, total_cents, low_cents, median_cents, high_cents {_VISIBLE} ORDER BY day"

#: The prices of several days, as weighted sets.
SETS = f"SELECT day, count, prices {_VISIBLE} AND day = ANY(%(days)s) ORDER BY day"


def query_parameters(question: Question) -> dict[str, object]:
    """Return a query's parameters of :data:`AVERAGES` and :data:`PARTS`."""
    return {name: getattr(question, name) for name in ("origin", "destination", "date_from", "date_to")}


def daily_averages(connection: Connection, question: Question) -> list[DayAverage]:
    """Average the prices of each day: the contract of ``GET /rates``.

    Returns:
        Every day of the query, newest first. The average is exact: the sum is an integer of cents.
    """
    rows = connection.execute(AVERAGES, query_parameters(question)).fetchall()
    found = {day: (count, cents) for day, count, cents in rows}
    averages = []
    for offset in range((question.date_to - question.date_from).days, -1, -1):
        day = question.date_from + timedelta(days=offset)
        count, cents = found.get(day, (None, 0))
        price = None if count is None or count < MIN_PRICES else cents / (count * 100)
        averages.append(DayAverage(day, count, price))
    return averages


def interval_averages(connection: Connection, question: Question, interval: Interval) -> dict[date, float]:
    """Average the prices of each calendar interval with an index-only scan, without percentiles.

    Args:
        connection: A connection to any server.
        question: The locations and days.
        interval: Length of an interval.

    Returns:
        The average in USD by the first day of its calendar interval; intervals with too few prices are omitted.
    """
    sums: dict[date, tuple[int, int]] = {}
    for day, count, cents in connection.execute(AVERAGES, query_parameters(question)):
        first = interval_start(day, interval)
        counted, summed = sums.get(first, (0, 0))
        sums[first] = (counted + count, summed + cents)
    return {first: average_cents(cents, count) / 100 for first, (count, cents) in sums.items() if count >= MIN_PRICES}


def rates(connection: Connection, question: Question, interval: Interval) -> list[Rate]:
    """Compute count, average and spread of each day, week or month: the contract of ``GET /v1/rates``.

    Args:
        connection: A connection, in a transaction with one snapshot.
        question: The locations and days.
        interval: Length of an interval.

    Returns:
        Every interval of the query, oldest first; money in USD, rounded to the cent.
    """
    rows = (
        Part(day, prices, total, Spread(*cents))
        for day, prices, total, *cents in connection.execute(PARTS, query_parameters(question))
    )
    parts = {
        first: list(some) for first, some in groupby(rows, key=lambda part: _first_day(question, interval, part.day))
    }
    enough = {first: some for first, some in parts.items() if sum(part.prices for part in some) >= MIN_PRICES}
    # The spread of a single part is stored. Percentiles of several parts can only be computed from their prices.
    known = {first: some[0].spread for first, some in enough.items() if len(some) == 1}
    days = [part.day for first, some in enough.items() if first not in known for part in some]
    spreads = known | {
        first: Spread(*prices.percentiles(SPREAD))
        for first, prices in interval_prices(connection, question, interval, days)
    }
    return [
        combine_parts(first, last, parts.get(first, []), spreads.get(first))
        for first, last in intervals(question, interval)
    ]


def interval_prices(
    connection: Connection, question: Question, interval: Interval, days: list[date]
) -> Iterator[tuple[date, OrderedPrices]]:
    """Read the prices of some days and merge them by interval.

    Args:
        connection: A connection, in a transaction.
        question: The locations and days.
        interval: Length of an interval.
        days: Days of the query to read.

    Yields:
        First day of an interval, within the query's range, and its prices; oldest first, only intervals with prices.
    """
    if not days:
        return
    # A server-side cursor: the prices of a long range may not fit into memory.
    with connection.cursor("sets", binary=True) as cursor:
        cursor.itersize = 500
        cursor.execute(SETS, query_parameters(question) | {"days": days})
        for first, some in groupby(cursor, key=lambda row: _first_day(question, interval, row[0])):
            yield first, OrderedPrices.merge(read_set(*numbers) for _, *numbers in some)


def _first_day(question: Question, interval: Interval, day: date) -> date:
    """Return the first day of a day's interval, within the query's range."""
    return max(interval_start(day, interval), question.date_from)


def combine_parts(first: date, last: date, parts: list[Part], found: Spread | None) -> Rate:
    """Combine the contributions of several batches to one interval.

    Args:
        first: First day of the interval.
        last: Its last day.
        parts: The contributions.
        found: The spread of all their prices; None if they are too few.
    """
    count = sum(part.prices for part in parts)
    if found is None:
        return Rate(first, last, count)
    average = average_cents(sum(part.total for part in parts), count)
    return Rate(first, last, count, *(cents / 100 for cents in (found.low, average, found.median, found.high)))


def lanes(
    connection: Connection,
    origin: str | None,
    destination: str | None,
    limit: int,
    *,
    by_code: bool = False,
    after: tuple[str, str] | None = None,
) -> list[Lane]:
    """List lanes, the one with most prices first.

    Args:
        connection: A connection to any server.
        origin: Only lanes from this port or from under this region.
        destination: Only lanes to this port or to under this region.
        limit: Maximum number of lanes.
        by_code: Order by the codes of origin and destination instead.
        after: Only lanes after these codes, if they are ordered by code.
    """
    rows = connection.execute(
        """
        SELECT o.code, o.name, d.code, d.name, prices, count_days(days), lower(days), upper(days) - 1
        FROM (
            SELECT origin_id, destination_id, sum(prices)::bigint AS prices, range_agg(days) AS days
            FROM visible_lanes
            WHERE origin_id IN (SELECT id FROM locations WHERE kind = 'port')
              AND destination_id IN (SELECT id FROM locations WHERE kind = 'port')
              AND (%(origin)s::text IS NULL OR origin_id IN (
                  SELECT location_id FROM location_ancestors
                  WHERE ancestor_id = (SELECT id FROM locations WHERE code = %(origin)s)))
              AND (%(destination)s::text IS NULL OR destination_id IN (
                  SELECT location_id FROM location_ancestors
                  WHERE ancestor_id = (SELECT id FROM locations WHERE code = %(destination)s)))
            GROUP BY origin_id, destination_id
        ) lane
        JOIN locations o ON o.id = lane.origin_id
        JOIN locations d ON d.id = lane.destination_id
        WHERE %(after)s::text[] IS NULL OR ARRAY[o.code, d.code] COLLATE "C" > %(after)s::text[] COLLATE "C"
        ORDER BY CASE WHEN NOT %(by_code)s THEN lane.prices END DESC, o.code COLLATE "C", d.code COLLATE "C"
        LIMIT %(limit)s
        """,
        {
            "origin": origin,
            "destination": destination,
            "limit": limit,
            "by_code": by_code,
            "after": None if after is None else list(after),
        },
    ).fetchall()
    return [Lane(*row) for row in rows]
