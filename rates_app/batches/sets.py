"""Weighted sets of prices, thousands at a time: a column for each of their parts instead of an object for each set."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

#: A set of more prices than this is rounded, unless it holds single prices only.
EXACT_PRICES = 512

#: Ratio of neighbouring steps of a rounded set.
STEP = 1.01

#: Prices are below 2**27 cents (validate.HIGHEST_PRICE_CENTS), so a code and a price fit one number that sorts.
_PRICE_BITS = 27

#: Codes are below this.
MOST_CODES = 2 ** (63 - _PRICE_BITS)

Column = NDArray[np.int64]


class Sets(NamedTuple):
    """Some sets of prices."""

    #: What each set is for.
    codes: Column
    #: How many prices it stands for, and their sum; exact even where the prices are rounded.
    counts: Column
    totals: Column
    #: How many entries it has.
    sizes: Column
    #: The entries of all sets, one set after the other, ascending in each: a price, and how often it counts.
    cents: Column
    weights: Column


def sets_of(codes: Column, cents: Column) -> Sets:
    """Collect single prices into the exact sets of their codes.

    Args:
        codes: What each price is for.
        cents: Each price.
    """
    keys = np.sort((codes << _PRICE_BITS) | cents)
    keys, weights = _squeeze(keys, np.ones(len(keys), dtype=np.int64))
    entries, cents = keys >> _PRICE_BITS, keys & ((1 << _PRICE_BITS) - 1)
    found, groups = np.unique(entries, return_inverse=True)
    counts, totals = (_sums(groups, values, len(found)) for values in (weights, weights * cents))
    return Sets(found, counts, totals, np.bincount(groups, minlength=len(found)), cents, weights)


def merge(sets: Sets, codes: Column) -> Sets:
    """Put sets together that get the same code; round those that become large.

    Args:
        sets: The sets.
        codes: The new code of each.
    """
    keys = (np.repeat(codes, sets.sizes) << _PRICE_BITS) | sets.cents
    order = np.argsort(keys)
    keys, weights = _squeeze(keys[order], sets.weights[order])
    found, groups = np.unique(codes, return_inverse=True)
    counts, totals = (_sums(groups, values, len(found)) for values in (sets.counts, sets.totals))

    entries, cents = keys >> _PRICE_BITS, keys & ((1 << _PRICE_BITS) - 1)
    large = counts[_numbered(entries)] > EXACT_PRICES
    cents[large] = _rounded(cents[large])
    keys, weights = _squeeze((entries << _PRICE_BITS) | cents, weights)  # rounding keeps the order
    entries, cents = keys >> _PRICE_BITS, keys & ((1 << _PRICE_BITS) - 1)
    sizes = np.bincount(_numbered(entries), minlength=len(found))
    return Sets(found, counts, totals, sizes, cents, weights)


def select(sets: Sets, wanted: NDArray[np.bool_]) -> Sets:
    """Keep some of the sets."""
    entries = np.repeat(wanted, sets.sizes)
    return Sets(*(column[wanted] for column in sets[:4]), *(column[entries] for column in sets[4:]))


def combine(parts: Sequence[Sets]) -> Sets:
    """Put columns of sets behind one another; no code is in two parts."""
    return Sets(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _squeeze(keys: Column, weights: Column) -> tuple[Column, Column]:
    """Make neighbours that are equal one."""
    if not len(keys):
        return keys, weights
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[starts], np.add.reduceat(weights, starts)


def _numbered(ascending: Column) -> NDArray[np.intp]:
    """Number equal values from 0 in their order."""
    return np.cumsum(np.diff(ascending, prepend=ascending[:1]) != 0)


def _sums(groups: NDArray[np.intp], values: Column, number: int) -> Column:
    """Add up whole numbers by group, exactly (``bincount`` would go through floating point)."""
    sums = np.zeros(number, dtype=np.int64)
    np.add.at(sums, groups, values)
    return sums


def _rounded(cents: Column) -> Column:
    """Round each price to the middle of its step, at most half a step away; what is rounded stays as it is."""
    steps = np.round(np.log(cents) / np.log(STEP))
    rounded: Column = np.rint(STEP**steps).astype(np.int64)
    return rounded
