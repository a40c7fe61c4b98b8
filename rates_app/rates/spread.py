"""Low, median and high of sets of prices.

They are the continuous percentiles of SQL:2003 (PostgreSQL's ``percentile_cont``): the value at position
``fraction * (n - 1)`` of the ordered prices, interpolated between its two neighbours; rounded to the cent, half up.
Only integers are used, so the result is the same on every machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from numpy.typing import NDArray

    PriceValues = Sequence[int] | NDArray[np.integer[Any]]

#: Low, median and high, in tenths.
LOW, MEDIAN, HIGH = 1, 5, 9


class Spread(NamedTuple):
    """The 10th, 50th and 90th percentile of a set of prices, in cents."""

    low: int
    median: int
    high: int


def spread(parts: Iterable[tuple[PriceValues, PriceValues]]) -> Spread:
    """Compute the spread of the union of weighted sets.

    Args:
        parts: Sets of prices as (prices in cents, number of occurrences of each).

    Raises:
        ValueError: The sets are empty.
    """
    prices, weights = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    order = np.argsort(prices)
    ends = np.cumsum(weights[order])  # number of prices at or below each value
    ordered = prices[order]
    found = spreads(ends[-1:], lambda places: ordered[np.searchsorted(ends, places, side="right")])
    return Spread(*found[:, 0].tolist())


def spreads(
    counts: NDArray[np.int64], prices: Callable[[NDArray[np.int64]], NDArray[np.integer[Any]]]
) -> NDArray[np.int64]:
    """Compute the spreads of many sets.

    Args:
        counts: Number of prices of each set, at least one.
        prices: Returns the price in cents at an index of each set's ascending prices.

    Returns:
        Rows of lows, medians and highs, in cents, with a column for each set.
    """
    found = []
    for tenths in (LOW, MEDIAN, HIGH):
        place, rest = np.divmod(tenths * (counts - 1), 10)
        below, above = (prices(at).astype(np.int64) for at in (place, np.minimum(place + 1, counts - 1)))
        found.append((10 * below + (above - below) * rest + 5) // 10)
    return np.stack(found)
