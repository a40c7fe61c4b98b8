"""Answer random questions from rollups and from the delivered rows, and compare the answers."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rates_app.rates.model import MIN_PRICES, Question, Rate, intervals
from rates_app.rates.queries import daily_averages, rates

if TYPE_CHECKING:
    from datetime import date

    from rates_app.rates.model import Interval
    from rates_app.store.databases import Connection

#: Maximum relative error of a percentile of regions over several days or batches. Others, of a lane or of a day of one
#: batch, are exact to the cent.
REGION_TOLERANCE = 0.01
CENT = 0.0051

RAW = """
    SELECT count(*), avg(price_cents) / 100,
           percentile_cont(ARRAY[0.1, 0.5, 0.9]) WITHIN GROUP (ORDER BY price_cents), count(DISTINCT (batch_id, day))
    FROM delivered
    WHERE day BETWEEN %(first)s AND %(last)s
      AND batch_id IN (SELECT id FROM batches WHERE state = 'published')
      AND origin_id IN (SELECT location_id FROM location_ancestors JOIN locations ON id = ancestor_id
                        WHERE code = %(origin)s)
      AND destination_id IN (SELECT location_id FROM location_ancestors JOIN locations ON id = ancestor_id
                             WHERE code = %(destination)s)
"""


@dataclass
class Parity:
    """Number of comparisons and the largest differences."""

    questions: int = 0
    intervals: int = 0
    priced: int = 0
    worst_exact: float = 0.0
    worst_region: float = 0.0

    def compare(self, question: Question, found: Rate, raw: tuple[Any, ...], *, lane: bool) -> None:
        """Compare one interval.

        Args:
            question: The query.
            found: The result from rollups.
            raw: The result from rows: their number, average in USD, percentiles in cents, and number of parts.
            lane: Whether both locations are ports.

        Raises:
            AssertionError: The difference exceeds the limit.
        """
        count, average, percentiles, parts = raw
        self.intervals += 1
        assert found.count == count, (question, found, raw)
        if count < MIN_PRICES:
            assert (found.low, found.average, found.median, found.high) == (None,) * 4, (question, found)
            return
        self.priced += 1
        assert average is not None
        assert found.average is not None
        assert abs(found.average - float(average)) <= CENT, (question, found, raw)
        for mine, cents in zip((found.low, found.median, found.high), percentiles, strict=True):
            assert mine is not None
            off = abs(mine - cents / 100)
            if lane or parts == 1:
                self.worst_exact = max(self.worst_exact, off)
                assert off <= CENT, (question, found, raw)
            else:
                share = max(0.0, off - CENT) / (cents / 100)
                self.worst_region = max(self.worst_region, share)
                assert share <= REGION_TOLERANCE, (question, found, raw)


def replay(connection: Connection, number: int, seed: int) -> Parity:
    """Answer questions from rollups and from rows.

    Args:
        connection: A connection to a database with published batches.
        number: Number of questions.
        seed: Seed of the random numbers, to repeat a run.

    Returns:
        The number of comparisons and the largest differences.

    Raises:
        AssertionError: A difference exceeds the limit.
    """
    chance = random.Random(seed)
    places = {
        kind: [row[0] for row in connection.execute("SELECT code FROM locations WHERE kind = %s ORDER BY 1", (kind,))]
        for kind in ("port", "region")
    }
    row = connection.execute("SELECT min(first_day), max(last_day) FROM batches WHERE state = 'published'").fetchone()
    assert row is not None
    parity = Parity()
    lanes = connection.execute(
        """
        SELECT DISTINCT o.code, d.code FROM delivered
        JOIN locations o ON o.id = origin_id JOIN locations d ON d.id = destination_id ORDER BY 1, 2
        """
    ).fetchall()
    while parity.questions < number:
        origin, destination = chance.choice(lanes)
        kinds = chance.choice(("lane", "origin", "destination", "both"))
        origin = chance.choice(places["region"]) if kinds in {"origin", "both"} else origin
        destination = chance.choice(places["region"]) if kinds in {"destination", "both"} else destination
        question = Question(origin, destination, *_days(chance, *row))
        interval: Interval = chance.choice(("day", "week", "month"))
        _compare(connection, question, interval, parity, lane=kinds == "lane")
        parity.questions += 1
    return parity


def _days(chance: random.Random, first: date, last: date) -> tuple[date, date]:
    start = first + timedelta(days=chance.randrange(-2, (last - first).days + 2))
    return start, start + timedelta(days=chance.choice((0, 1, 3, 7, 30)))


def _compare(connection: Connection, question: Question, interval: Interval, parity: Parity, *, lane: bool) -> None:
    spans = intervals(question, interval)
    places = {"origin": question.origin, "destination": question.destination}
    for found, (first, last) in zip(rates(connection, question, interval), spans, strict=True):
        raw = connection.execute(RAW, {**places, "first": first, "last": last}).fetchone()
        assert raw is not None
        parity.compare(question, found, raw, lane=lane)
    if interval == "day":
        for day in daily_averages(connection, question):
            raw = connection.execute(RAW, {**places, "first": day.day, "last": day.day}).fetchone()
            assert raw is not None
            assert day.count == (raw[0] or None), (question, day, raw)
            assert (day.price is None) == (raw[0] < MIN_PRICES), (question, day, raw)
            # The float closest to the exact mean.
            assert day.price is None or abs(day.price - float(raw[1])) < 1e-9, (question, day, raw)
