"""Answer questions from the rollups."""

from __future__ import annotations

from datetime import timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from rates_app.batches.sets import read_set
from rates_app.rates.model import MIN_PRICES, DayAverage, Interval, Question, Rate, interval_start, intervals
from rates_app.rates.spread import spread

if TYPE_CHECKING:
    from datetime import date

    from rates_app.store.databases import Connection


class Lane(NamedTuple):
    """A lane and how well the published batches cover it."""

    origin: str
    origin_name: str
    destination: str
    destination_name: str
    prices: int
    days: int
    first_day: date
    last_day: date


_VISIBLE = """
    FROM rollups JOIN batches ON batches.id = batch_id AND batches.state = 'published'
    WHERE origin_id = (SELECT id FROM locations WHERE code = %(origin)s)
      AND destination_id = (SELECT id FROM locations WHERE code = %(destination)s)
      AND day BETWEEN %(date_from)s AND %(date_to)s
"""


#: What each day's average is made of.
AVERAGES = f"SELECT day, sum(count)::bigint, sum(rollups.total_cents)::bigint {_VISIBLE} GROUP BY day"

#: The weighted sets of prices that each day's spread is made of.
SPREADS = f"SELECT day, count, rollups.total_cents, prices, price_cents, weights {_VISIBLE} ORDER BY day"


def query_parameters(question: Question) -> dict[str, object]:
    """Write a question as the parameters of :data:`AVERAGES` and :data:`SPREADS`."""
    return {name: getattr(question, name) for name in ("origin", "destination", "date_from", "date_to")}


def daily_averages(connection: Connection, question: Question) -> list[DayAverage]:
    """Average the prices of each day: the contract of ``GET /rates``.

    Returns:
        Every day of the question, newest first. The average is exact: both sums are whole numbers of cents.
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


def rates(connection: Connection, question: Question, interval: Interval) -> list[Rate]:
    """Count, average and spread of each day, week or month: the contract of ``GET /v1/rates``.

    Returns:
        Every interval of the question, oldest first; money in USD, to the cent.
    """
    # Server-side: a wide question's prices never sit in memory at once.
    with connection.cursor("rates", binary=True) as cursor:
        cursor.itersize = 500
        cursor.execute(SPREADS, query_parameters(question))
        spans = {interval_start(first, interval): (first, last) for first, last in intervals(question, interval)}
        found = {
            start: _rate(*spans[start], list(rows))
            for start, rows in groupby(cursor, key=lambda row: interval_start(row[0], interval))
        }
    return [found.get(start) or Rate(first, last, count=0) for start, (first, last) in spans.items()]


def _rate(first: date, last: date, parts: list[tuple[Any, ...]]) -> Rate:
    count = sum(part[1] for part in parts)
    if count < MIN_PRICES:
        return Rate(first, last, count)
    low, median, high = spread(read_set(part[1], *part[3:]) for part in parts)
    average = sum(part[2] for part in parts) / count
    return Rate(first, last, count, *(round(cents / 100, 2) for cents in (low, average, median, high)))


def lanes(connection: Connection, origin: str | None, destination: str | None, limit: int) -> list[Lane]:
    """List lanes, the one with most prices first.

    Args:
        connection: A connection to any server.
        origin: Only lanes from this port or from under this region.
        destination: Only lanes to this port or to under this region.
        limit: How many to return at most.
    """
    rows = connection.execute(
        """
        SELECT o.code, o.name, d.code, d.name, prices, count_days(days), lower(days), upper(days) - 1
        FROM (
            SELECT origin_id, destination_id, sum(prices)::bigint AS prices, range_agg(days) AS days
            FROM batch_lanes JOIN batches ON batches.id = batch_id AND batches.state = 'published'
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
        ORDER BY lane.prices DESC, o.code, d.code
        LIMIT %(limit)s
        """,
        {"origin": origin, "destination": destination, "limit": limit},
    ).fetchall()
    return [Lane(*row) for row in rows]
