"""Weighted sets of prices, in columns: one array for each field instead of one object for each set.

A set is stored as 32-bit integers: either all its prices, ascending, or pairs of a price and its number of
occurrences, whichever is shorter. The first form has as many integers as prices, the second has fewer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rates_app.rates.spread import percentiles

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Sets with more prices are rounded, except those of a single lane between ports.
EXACT_PRICES = 512

#: Ratio between adjacent values of a rounded set.
STEP = 1.01

Integers = NDArray[np.integer[Any]]
Column = NDArray[np.int64]


class Sets(NamedTuple):
    """Several sets of prices."""

    #: Key of each set.
    codes: Column
    #: Number of prices and their sum in cents; exact even if the prices are rounded.
    counts: Column
    totals: Column
    #: Rows of lows, medians and highs in cents; exact even if the prices are rounded.
    spreads: Column
    #: Number of stored integers per set, and the integers of all sets.
    sizes: Column
    numbers: NDArray[np.int32]


class LanePrices:
    """The prices of lanes, from which sets of several groupings are built.

    They are sorted once. A stable sort by group keeps that order within each set. Groups are 16-bit numbers, which
    NumPy sorts in linear time.

    Args:
        codes: Key of each price's lane.
        cents: Each price in cents.
    """

    def __init__(self, codes: Integers, cents: Integers) -> None:
        order = _order(cents)
        self._cents = cents[order].astype(np.int32)
        self._rounded = _rounded(self._cents)
        #: Keys of the lanes, ascending.
        self.codes, lane = _numbered(codes[order])
        self._lane = lane.astype(np.int32)
        self.counts = np.bincount(lane, minlength=len(self.codes))
        self.totals = _sums(lane, self._cents, len(self.codes))

    def sets(self) -> Sets:
        """Return the set of each lane, not rounded."""
        return _collect(self.codes, self.counts, self.totals, self._lane, exact=self._cents, kept=self._cents)

    def add_up(self, codes: Column) -> Sets:
        """Merge lanes that get the same key, and round large sets.

        Args:
            codes: The new key of each lane; negative to omit the lane.
        """
        taken = np.flatnonzero(codes >= 0)
        found, numbers = _numbered(codes[taken])
        counts, totals = (_sums(numbers, values[taken], len(found)) for values in (self.counts, self.totals))
        places = np.full(len(codes), -1, dtype=np.int32)
        places[taken] = numbers
        place, cents, rounded = places[self._lane], self._cents, self._rounded
        if len(taken) < len(codes):
            within = np.flatnonzero(place >= 0)
            place, cents, rounded = place[within], cents[within], rounded[within]
        large = counts > EXACT_PRICES
        return _collect(found, counts, totals, place, exact=cents, kept=np.where(large[place], rounded, cents))


def _collect(
    codes: Column, counts: Column, totals: Column, place: Integers, *, exact: NDArray[np.int32], kept: NDArray[np.int32]
) -> Sets:
    """Create sets from ascending prices.

    Args:
        codes: Key of each set.
        counts: Number of prices of each set.
        totals: Sum of each set's prices in cents.
        place: Index of each price's set.
        exact: Each price in cents.
        kept: Each price as it is stored: exact or rounded.
    """
    order = _order(place)
    firsts = np.cumsum(counts) - counts
    spread = percentiles(counts, lambda places: exact[order[firsts + places]])
    cents = kept[order]
    new = _new(cents)
    new[firsts] = True
    different = np.add.reduceat(new, firsts, dtype=np.int64) if len(firsts) else counts
    paired = counts > 2 * different
    in_pairs = np.repeat(paired, counts)
    starts = np.flatnonzero(new)
    weights = np.diff(starts, append=len(cents))[in_pairs[starts]]
    pairs = np.stack((cents[new & in_pairs], weights.astype(np.int32)), axis=1).ravel()

    def some(which: NDArray[np.bool_], sizes: Column, numbers: NDArray[np.int32]) -> Sets:
        return Sets(codes[which], counts[which], totals[which], spread[:, which], sizes[which], numbers)

    return combine([some(~paired, counts, cents[~in_pairs]), some(paired, 2 * different, pairs)])


def combine(parts: Sequence[Sets]) -> Sets:
    """Concatenate sets; no key may be in two parts."""
    return Sets(*(np.concatenate(columns, axis=-1) for columns in zip(*parts, strict=True)))


def read_set(count: int, numbers: bytes) -> tuple[Integers, Integers]:
    """Unpack a set.

    Args:
        count: Number of prices in the set.
        numbers: Its packed form.

    Returns:
        Prices in cents, ascending, and the weight of each.
    """
    values = np.frombuffer(numbers, dtype="<i4")
    if len(values) == count:
        return values, np.ones(count, dtype=np.int32)
    return values[::2], values[1::2]


def _order(numbers: Integers) -> NDArray[np.intp]:
    """Return the stable ascending order of non-negative numbers."""
    order = np.argsort(numbers.astype(np.uint16), kind="stable")
    for shift in range(16, int(numbers.max(initial=0)).bit_length(), 16):
        digits = (numbers >> shift).astype(np.uint16)
        order = order[np.argsort(digits[order], kind="stable")]
    return order


def _new(ordered: Integers) -> NDArray[np.bool_]:
    """Mark the numbers that differ from their predecessor."""
    new = np.ones(len(ordered), dtype=bool)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    return new


def _numbered(codes: Integers) -> tuple[Column, NDArray[np.intp]]:
    """Return the distinct codes, ascending, and the index of each code among them, in linear time."""
    order = _order(codes)
    ordered = codes[order]
    new = _new(ordered)
    numbers = np.empty(len(codes), dtype=np.intp)
    numbers[order] = np.cumsum(new) - 1
    return ordered[new].astype(np.int64), numbers


def _sums(groups: NDArray[np.intp], values: Integers, number: int) -> Column:
    """Sum integers by group, exactly; ``bincount`` uses floating point."""
    sums = np.zeros(number, dtype=np.int64)
    np.add.at(sums, groups, values.astype(np.int64))  # the fast path of NumPy needs equal types
    return sums


def _rounded(cents: NDArray[np.int32]) -> NDArray[np.int32]:
    """Round prices to the nearest power of :data:`STEP`."""
    different, numbers = _numbered(cents)
    steps = np.round(np.log(different) / np.log(STEP))
    rounded: NDArray[np.int32] = np.rint(STEP**steps).astype(np.int32)[numbers]
    return rounded
