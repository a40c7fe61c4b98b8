"""Percentiles of sets of prices: low, median and high, and any others.

They are the continuous percentiles of SQL:2003 (PostgreSQL's ``percentile_cont``): the value at position
``fraction * (n - 1)`` of the ordered prices, interpolated between its two neighbours; rounded to the cent, half up.
Only integers are used, so the result is the same on every machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from numpy.typing import NDArray

    PriceValues = Sequence[int] | NDArray[np.integer[Any]]

#: Low, median and high, in percent.
SPREAD = (10, 50, 90)


class Spread(NamedTuple):
    """The 10th, 50th and 90th percentile of a set of prices, in cents."""

    low: int
    median: int
    high: int


class OrderedPrices(NamedTuple):
    """A set of prices, ascending.

    Attributes:
        prices: Prices in cents.
        ends: For each of them, the number of prices up to and including it.
    """

    prices: NDArray[np.integer[Any]]
    ends: NDArray[np.integer[Any]]

    @classmethod
    def merge(cls, parts: Iterable[tuple[PriceValues, PriceValues]]) -> Self:
        """Merge weighted sets.

        Args:
            parts: Sets of prices as (prices in cents, number of occurrences of each).

        Raises:
            ValueError: There are no sets.
        """
        prices, weights = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        order = np.argsort(prices)
        return cls(prices[order], np.cumsum(weights[order]))

    @property
    def total(self) -> int:
        """Number of prices."""
        return int(self.ends[-1])

    def percentiles(self, percents: Sequence[int]) -> list[int]:
        """Return percentiles in cents."""
        found = percentiles(
            self.ends[-1:], lambda places: self.prices[np.searchsorted(self.ends, places, side="right")], percents
        )
        percentile_values: list[int] = found[:, 0].tolist()
        return percentile_values

    def share_below(self, cents: int) -> float:
        """Return the share of prices below a price; prices equal to it count half."""
        limits = [int(np.searchsorted(self.prices, cents, side=side)) for side in ("left", "right")]
        below, up_to = (int(self.ends[limit - 1]) if limit else 0 for limit in limits)
        return (below + up_to) / (2 * self.total)


def spread(parts: Iterable[tuple[PriceValues, PriceValues]]) -> Spread:
    """Compute the spread of the union of weighted sets.

    Args:
        parts: Sets of prices as (prices in cents, number of occurrences of each).

    Raises:
        ValueError: The sets are empty.
    """
    return Spread(*OrderedPrices.merge(parts).percentiles(SPREAD))


def percentiles(
    counts: NDArray[np.integer[Any]],
    prices: Callable[[NDArray[np.integer[Any]]], NDArray[np.integer[Any]]],
    percents: Sequence[int] = SPREAD,
) -> NDArray[np.int64]:
    """Compute percentiles of many sets.

    Args:
        counts: Number of prices of each set, at least one.
        prices: Returns the price in cents at an index of each set's ascending prices.
        percents: The percentiles.

    Returns:
        A row for each percentile, in cents, with a column for each set.
    """
    found = []
    for percent in percents:
        place, rest = np.divmod(percent * (counts - 1), 100)
        below, above = (prices(at).astype(np.int64) for at in (place, np.minimum(place + 1, counts - 1)))
        found.append((100 * below + (above - below) * rest + 50) // 100)
    return np.stack(found)
