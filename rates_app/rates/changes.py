"""Changes of a lane's average against earlier intervals."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, NamedTuple

from rates_app.rates.model import Interval, Question, Rate, interval_end, interval_start
from rates_app.rates.queries import interval_averages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rates_app.store.databases import Connection

#: A day without a rate is replaced by the nearest of this many days before it.
SLACK_DAYS = 3


class Change(NamedTuple):
    """A relative change of the latest average, and the interval that it is compared with; None without a rate there."""

    title: str
    ratio: float | None
    date_from: date
    date_to: date


def changes(connection: Connection, question: Question, latest: Rate, interval: Interval) -> list[Change]:
    """Read the averages that :func:`compare` needs, and compare.

    Args:
        connection: A connection to any server.
        question: The locations.
        latest: The latest rate that has an average.
        interval: Length of an interval.
    """
    now = interval_start(latest.date_from, interval)
    first = _back(now, *_STEPS[interval][-1][1:]) - timedelta(days=SLACK_DAYS if interval == "day" else 0)
    known = interval_averages(connection, replace(question, date_from=first, date_to=now - timedelta(days=1)), interval)
    return compare(known, latest, interval)


def compare(known: Mapping[date, float], latest: Rate, interval: Interval) -> list[Change]:
    """Compare the latest average with those of two earlier intervals of the same length.

    Both averages are the rounded ones that tables show, so a reader can check the change against them.

    Args:
        known: Earlier averages in USD by the first day of their interval.
        latest: The latest rate that has an average.
        interval: Length of an interval.
    """
    now = interval_start(latest.date_from, interval)
    found = []
    for title, days, months in _STEPS[interval]:
        start = _back(now, days, months)
        tried = [start - timedelta(days=slack) for slack in range(SLACK_DAYS + 1)] if interval == "day" else [start]
        start = next((day for day in tried if day in known), start)
        earlier = known.get(start)
        ratio = latest.average / earlier - 1 if earlier and latest.average is not None else None
        found.append(Change(title, ratio, start, interval_end(start, interval)))
    return found


#: For each interval: title of the change, and how far back it looks in days and in months.
_STEPS: dict[Interval, list[tuple[str, int, int]]] = {
    "day": [("7-day change", 7, 0), ("30-day change", 30, 0)],
    "week": [("1-week change", 7, 0), ("4-week change", 28, 0)],
    "month": [("1-month change", 0, 1), ("12-month change", 0, 12)],
}


def _back(start: date, days: int, months: int) -> date:
    if days:
        return start - timedelta(days=days)
    year, month = divmod(start.year * 12 + start.month - 1 - months, 12)
    return start.replace(year=year, month=month + 1)
