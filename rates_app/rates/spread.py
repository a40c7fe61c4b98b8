"""Low, median and high of weighted sets of prices."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from numpy.typing import NDArray

    Prices = Sequence[int] | NDArray[np.integer[Any]]

#: The fractions that low, median and high stand for.
LOW, MEDIAN, HIGH = 0.1, 0.5, 0.9


class Spread(NamedTuple):
    """The 10th, 50th and 90th percentile of a set of prices, in cents."""

    low: float
    median: float
    high: float


def spread(parts: Iterable[tuple[Prices, Prices]]) -> Spread:
    """Compute the spread of the union of weighted sets.

    The percentiles are the continuous ones of SQL:2003 (PostgreSQL's ``percentile_cont``): the value at position
    ``fraction * (n - 1)`` of the ordered prices, interpolated between its two neighbours.

    Args:
        parts: Sets of prices as (prices in cents, how often each occurs).

    Returns:
        The percentiles.

    Raises:
        ValueError: There is no price at all.
    """
    prices, weights = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    order = np.argsort(prices)
    ends = np.cumsum(weights[order])  # how many prices are at or below each value
    ordered = prices[order]

    def percentile(fraction: float) -> float:
        position = fraction * (int(ends[-1]) - 1)
        below = int(position)
        low, high = (
            int(ordered[np.searchsorted(ends, nth, side="right")]) for nth in (below, min(below + 1, int(ends[-1]) - 1))
        )
        return low + (high - low) * (position - below)

    return Spread(percentile(LOW), percentile(MEDIAN), percentile(HIGH))
