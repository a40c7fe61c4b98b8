"""Queries of rates, and the parts of their answers."""

from __future__ import annotations

from calendar import monthrange
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

#: A day, week or month with fewer prices than this has no rate: they are too few to represent a market.
MIN_PRICES = 3

#: Characters in a location code. Longer values match no UN/LOCODE or slug, so they are not looked up.
MAX_CODE = 100

Interval = Literal["day", "week", "month"]

#: Optional members of rates.
Include = Literal["quartiles", "port_pairs"]


class RangeError(Exception):
    """The days of a query are too many, or none; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Question:
    """A query of the rates between two locations over a range of days, both ends included."""

    origin: str
    destination: str
    date_from: date
    date_to: date

    def days(self) -> list[date]:
        """Return every day, oldest first."""
        return [self.date_from + timedelta(days=day) for day in range((self.date_to - self.date_from).days + 1)]


@dataclass(frozen=True, slots=True)
class DayAverage:
    """A day's average in USD as in ``GET /rates``; None with fewer than three prices. Count is None without prices."""

    day: date
    count: int | None
    price: float | None


@dataclass(frozen=True, slots=True)
class Rate:
    """The prices of an interval: how many, and in USD their 10th percentile, mean, median and 90th percentile."""

    date_from: date
    date_to: date
    count: int
    low: float | None = None
    average: float | None = None
    median: float | None = None
    high: float | None = None


def average_cents(total: int, count: int) -> int:
    """Divide a sum of prices by their number, rounded half up to the cent, as medians are (`rates.spread`).

    Integers alone are used, so that the same prices give the same average on every machine.

    Args:
        total: Sum of the prices in cents.
        count: Number of prices, at least one.
    """
    return (2 * total + count) // (2 * count)


def interval_start(day: date, interval: Interval) -> date:
    """Return the first day of the calendar interval that contains a day (ISO weeks start on Monday)."""
    if interval == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if interval == "month" else day


def interval_end(start: date, interval: Interval) -> date:
    """Return the last day of the calendar interval that begins on a day."""
    if interval == "week":
        return start + timedelta(days=6)
    return start.replace(day=monthrange(start.year, start.month)[1]) if interval == "month" else start


def intervals(question: Question, interval: Interval) -> list[tuple[date, date]]:
    """Split the days of a query into intervals.

    Returns:
        First and last day of each, oldest first, the outer ones limited to the days of the query.
    """
    spans: list[tuple[date, date]] = []
    for offset in range((question.date_to - question.date_from).days + 1):
        day = question.date_from + timedelta(days=offset)
        if spans and interval_start(spans[-1][0], interval) == interval_start(day, interval):
            spans[-1] = (spans[-1][0], day)
        else:
            spans.append((day, day))
    return spans
