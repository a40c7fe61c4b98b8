"""The port pairs behind the rates of a region, and an index that holds their mix constant.

The plain average of a region changes when prices change, and also when expensive port pairs have more prices than
usual. The index contains the first effect only. It is a time-dummy index: each port pair has a level, each interval a
movement that is common to all pairs, and the movements are those that fit the logarithms of the pairs' averages best,
with every price of the same weight (weighted least squares). It needs no pair that has prices in every interval.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from rates_app.rates.model import MIN_PRICES, interval_start
from rates_app.rates.queries import query_parameters

if TYPE_CHECKING:
    from datetime import date
    from typing import Any

    from numpy.typing import NDArray

    from rates_app.rates.model import Interval, Question
    from rates_app.store.databases import Connection

    Matrix = NDArray[np.floating[Any]]

#: Maximum number of intervals of an index. The work grows with its square.
MAX_INTERVALS = 400

#: Daily sums of each pair of ports with prices, with an index-only scan for each pair.
PAIRS = """
    SELECT day, origin_id, destination_id, count, cents
    FROM (
        SELECT DISTINCT origin_id, destination_id FROM visible_lanes
        WHERE origin_id IN (SELECT location_id FROM location_ancestors JOIN locations ON locations.id = location_id
                            WHERE kind = 'port'
                              AND ancestor_id = (SELECT id FROM locations WHERE code = %(origin)s))
          AND destination_id IN (SELECT location_id FROM location_ancestors JOIN locations ON locations.id = location_id
                                 WHERE kind = 'port'
                                   AND ancestor_id = (SELECT id FROM locations WHERE code = %(destination)s))
          AND days && daterange(%(date_from)s, %(date_to)s, '[]')
    ) pairs
    CROSS JOIN LATERAL (
        SELECT day, sum(count)::bigint AS count, sum(total_cents)::bigint AS cents
        FROM visible_rollups
        WHERE (origin_id, destination_id) = (pairs.origin_id, pairs.destination_id)
          AND day BETWEEN %(date_from)s AND %(date_to)s
        GROUP BY day
    ) days
"""


@dataclass(frozen=True, slots=True)
class IntervalComposition:
    """The number of port pairs with prices in an interval, and the index in USD; None if it has no rate."""

    port_pairs: int = 0
    index: float | None = None

    def members(self) -> dict[str, float | None]:
        """Return the members of a response."""
        return {"port_pairs": self.port_pairs, "index": self.index}


@dataclass(frozen=True, slots=True)
class Composition:
    """The port pairs with prices in a range.

    Attributes:
        port_pairs: Number of port pairs in the whole range.
        intervals: Each interval with prices by its first day within the range.
    """

    port_pairs: int = 0
    intervals: dict[date, IntervalComposition] = field(default_factory=dict)

    def indexes(self) -> dict[date, float]:
        """Return the index of each interval that has one, by its first day."""
        return {first: found.index for first, found in self.intervals.items() if found.index is not None}


def composition(connection: Connection, question: Question, interval: Interval) -> Composition:
    """Count the port pairs of each interval, and compute the index.

    Args:
        connection: A connection, in a transaction with one snapshot.
        question: The locations and days, with :data:`MAX_INTERVALS` intervals at most.
        interval: Length of an interval.
    """
    rows = connection.execute(PAIRS, query_parameters(question)).fetchall()
    if not rows:
        return Composition()
    starts = [max(interval_start(row[0], interval), question.date_from) for row in rows]
    firsts, columns = np.unique(np.array(starts, dtype="datetime64[D]"), return_inverse=True)
    pairs, lines = np.unique([row[1:3] for row in rows], axis=0, return_inverse=True)
    counts, cents = np.zeros((2, len(pairs), len(firsts)))
    np.add.at(counts, (lines, columns), [row[3] for row in rows])
    np.add.at(cents, (lines, columns), [row[4] for row in rows])
    present = (counts > 0).sum(axis=0).tolist()
    index = constant_composition(counts, cents)
    found = {
        first: IntervalComposition(number, None if np.isnan(value) else round(value / 100, 2))
        for first, number, value in zip(firsts.tolist(), present, index.tolist(), strict=True)
    }
    return Composition(len(pairs), found)


def constant_composition(counts: Matrix, cents: Matrix) -> Matrix:
    """Compute the index, equal to the plain average in the last interval that has a rate.

    Args:
        counts: Number of prices of each pair (rows) in each interval (columns).
        cents: Sum of these prices in cents.

    Returns:
        The index of each interval in cents; NaN for an interval without a rate, or that no chain of common pairs
        connects with the last one.
    """
    index = np.full(counts.shape[1], np.nan)
    usable = np.where((counts.sum(axis=0) >= MIN_PRICES) & (cents > 0), counts, 0)
    rated = np.flatnonzero(usable.any(axis=0))
    if not len(rated):
        return index
    last = rated[-1]
    columns = _connected(usable > 0, last)
    some = np.ix_(usable[:, columns].any(axis=1), columns)
    weights = usable[some]
    averages = np.divide(cents[some], weights, out=np.ones_like(weights), where=weights > 0)
    levels = np.log(averages)
    totals = weights.sum(axis=1, keepdims=True)
    # Least squares after the pairs' levels are eliminated: what remains has one equation for each interval.
    deviations = levels - (weights * levels).sum(axis=1, keepdims=True) / totals
    normal = np.diag(weights.sum(axis=0)) - weights.T @ (weights / totals)
    right = (weights * deviations).sum(axis=0)
    # Movements are determined up to a constant. The last one is 0, and without it the equations are regular.
    movements = np.zeros(len(columns))
    movements[:-1] = np.linalg.solve(normal[:-1, :-1], right[:-1])
    index[columns] = np.exp(movements) * cents[:, last].sum() / counts[:, last].sum()
    return index


def _connected(present: NDArray[np.bool_], column: int) -> NDArray[np.intp]:
    """Return the columns that a chain of common rows connects with a column, ascending."""
    reached = np.zeros(present.shape[1], dtype=bool)
    reached[column] = True
    while True:
        further = present[present[:, reached].any(axis=1)].any(axis=0) | reached
        if (further == reached).all():
            return np.flatnonzero(reached)
        reached = further
