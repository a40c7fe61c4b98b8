"""Weighted sets of prices, thousands at a time: a column for each of their parts instead of an object for each set.

A set is kept as numbers of four bytes: its prices, ascending, as often as they occur; or pairs of a price and how often
it occurs, where that is shorter. There are as many numbers as prices in the first form, and fewer in the second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rates_app.rates.spread import spreads

if TYPE_CHECKING:
    from collections.abc import Sequence

#: A set of more prices than this is rounded, unless it is a lane's.
EXACT_PRICES = 512

#: Ratio of neighbouring steps of a rounded set.
STEP = 1.01

Integers = NDArray[np.integer[Any]]
Column = NDArray[np.int64]


class Sets(NamedTuple):
    """Some sets of prices."""

    #: What each set is for.
    codes: Column
    #: How many prices it stands for, and their sum; exact even where the prices are rounded.
    counts: Column
    totals: Column
    #: Rows of their lows, medians and highs, exact even where the prices are rounded.
    spreads: Column
    #: How many numbers it is kept as, and these, one set after the other.
    sizes: Column
    numbers: NDArray[np.int32]


class Lanes:
    """The prices of some lanes, to be added up in many ways.

    They are put in ascending order once. A stable sort by what they are added up to keeps that order in each set, and
    is a matter of two bytes, which NumPy sorts in linear time.

    Args:
        codes: What lane each price is for.
        cents: Each price.
    """

    def __init__(self, codes: Integers, cents: Integers) -> None:
        order = _order(cents)
        self._cents = cents[order].astype(np.int32)
        self._rounded = _rounded(self._cents)
        #: The lanes, ascending.
        self.codes, lane = _numbered(codes[order])
        self._lane = lane.astype(np.int32)
        self.counts = np.bincount(lane, minlength=len(self.codes))
        self.totals = _sums(lane, self._cents, len(self.codes))

    def sets(self) -> Sets:
        """Give each lane's own set, which is never rounded."""
        return _collect(self.codes, self.counts, self.totals, self._lane, exact=self._cents, kept=self._cents)

    def add_up(self, codes: Column) -> Sets:
        """Put lanes together that get the same code; round what becomes large.

        Args:
            codes: The new code of each lane, negative for one that is left out.
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
    """Make sets of ascending prices, given where the set of each stands among the codes, exact and as it is kept."""
    order = _order(place)
    firsts = np.cumsum(counts) - counts
    spread = spreads(counts, lambda places: exact[order[firsts + places]])
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
    """Put columns of sets behind one another; no code is in two parts."""
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
    """Find the ascending order of numbers that are not negative, equal ones in the order they had."""
    order = np.argsort(numbers.astype(np.uint16), kind="stable")
    for shift in range(16, int(numbers.max(initial=0)).bit_length(), 16):
        digits = (numbers >> shift).astype(np.uint16)
        order = order[np.argsort(digits[order], kind="stable")]
    return order


def _new(ordered: Integers) -> NDArray[np.bool_]:
    """Tell which numbers differ from the one before."""
    new = np.ones(len(ordered), dtype=bool)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    return new


def _numbered(codes: Integers) -> tuple[Column, NDArray[np.intp]]:
    """Find the different codes, ascending, and which of them each is (``numpy.unique``, in linear time)."""
    order = _order(codes)
    ordered = codes[order]
    new = _new(ordered)
    numbers = np.empty(len(codes), dtype=np.intp)
    numbers[order] = np.cumsum(new) - 1
    return ordered[new].astype(np.int64), numbers


def _sums(groups: NDArray[np.intp], values: Integers, number: int) -> Column:
    """Add up whole numbers by group, exactly (``bincount`` would go through floating point)."""
    sums = np.zeros(number, dtype=np.int64)
    np.add.at(sums, groups, values.astype(np.int64))  # without a cast on the way it takes its quick way
    return sums


def _rounded(cents: NDArray[np.int32]) -> NDArray[np.int32]:
    """Round prices to the middle of their steps, at most half a step away."""
    different, numbers = _numbered(cents)
    steps = np.round(np.log(different) / np.log(STEP))
    rounded: NDArray[np.int32] = np.rint(STEP**steps).astype(np.int32)[numbers]
    return rounded
