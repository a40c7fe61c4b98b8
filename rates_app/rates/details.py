"""Optional members of rates that take longer to compute: quartiles, and the port pairs behind a rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rates_app.rates.composition import MAX_INTERVALS, IntervalComposition, composition
from rates_app.rates.model import MIN_PRICES, RangeError, intervals
from rates_app.rates.queries import interval_prices

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import date

    from rates_app.rates.model import Include, Interval, Question
    from rates_app.store.databases import Connection

#: Members of each part, in the order of the columns.
MEMBERS: dict[Include, tuple[str, ...]] = {"quartiles": ("p25", "p75"), "port_pairs": ("port_pairs", "index")}


def details(
    connection: Connection, question: Question, interval: Interval, include: Collection[Include]
) -> tuple[dict[date, dict[str, Any]], int | None]:
    """Compute the optional members of each interval.

    Args:
        connection: A connection, in a transaction with one snapshot.
        question: The locations and days.
        interval: Length of an interval.
        include: The parts.

    Returns:
        The members by the first day of every interval of the query, and the number of port pairs in the whole range,
        if they are included.

    Raises:
        RangeError: There are too many intervals for port pairs.
    """
    spans = intervals(question, interval)
    found: dict[date, dict[str, Any]] = {first: {} for first, _ in spans}
    if "quartiles" in include:
        known = quartiles(connection, question, interval)
        for first, members in found.items():
            members.update(zip(MEMBERS["quartiles"], known.get(first, (None, None)), strict=True))
    if "port_pairs" not in include:
        return found, None
    if len(spans) > MAX_INTERVALS:
        raise RangeError(f"has {len(spans)} intervals; with port pairs, request {MAX_INTERVALS} at most")
    made = composition(connection, question, interval)
    for first, members in found.items():
        members.update(made.intervals.get(first, IntervalComposition()).members())
    return found, made.port_pairs


def quartiles(connection: Connection, question: Question, interval: Interval) -> dict[date, tuple[float, float]]:
    """Compute the 25th and 75th percentile in USD of each interval with a rate, by its first day."""
    found = {}
    for first, prices in interval_prices(connection, question, interval, question.days()):
        if prices.total >= MIN_PRICES:
            lower, upper = prices.percentiles((25, 75))
            found[first] = (lower / 100, upper / 100)
    return found
