"""Column-wise sets equal plain arithmetic on every price, and PostgreSQL accepts binary rows."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rates_app.batches.formats.values import MAX_PRICE_CENTS
from rates_app.batches.pipeline.rollup import LocationTree, region_sets
from rates_app.rates.sets import EXACT_PRICES, LanePrices, Sets, read_set
from rates_app.rates.spread import Spread, spread

if TYPE_CHECKING:
    from collections.abc import Mapping

# A world, two continents, a sub-region, ports at three depths, and one outside the tree.
PARENTS = [-1, 0, 0, 1, 3, 3, 1, 2, 2, -1]
PORTS = [4, 5, 6, 7, 8, 9]


def ancestors(place: int) -> list[int]:
    return [place, *(ancestors(PARENTS[place]) if PARENTS[place] >= 0 else [])]


TREE = LocationTree(
    np.arange(10), np.array(PARENTS), np.array([len(ancestors(place)) - 1 for place in range(len(PARENTS))])
)

prices = st.tuples(
    st.integers(0, 2),
    st.sampled_from(PORTS),
    st.sampled_from(PORTS),
    st.sampled_from([1, 2, 99, 100, 12_345, MAX_PRICE_CENTS]),
)


def unpack(sets: Sets) -> dict[int, tuple[int, int, dict[int, int]]]:
    """Each code's count, total and entries."""
    ends = np.cumsum(sets.sizes)
    found = {}
    for code, count, total, size, end in zip(sets.codes, sets.counts, sets.totals, sets.sizes, ends, strict=True):
        numbers = sets.numbers[end - size : end]
        assert len(numbers) <= count
        entries: Counter[int] = Counter()
        cents, weights = read_set(int(count), numbers.tobytes())
        for price, weight in zip(cents.tolist(), weights.tolist(), strict=True):
            entries[price] += weight
        assert cents.tolist() == sorted(cents.tolist())
        found[int(code)] = (int(count), int(total), dict(entries))
    assert len(found) == len(sets.codes), "each code once"
    assert len(sets.numbers) == sets.sizes.sum()
    return found


def percentile(prices: Counter[int], fraction: Fraction) -> int:
    """SQL's continuous percentile, to the cent, half up."""
    ordered = sorted(prices.elements())
    position = fraction * (len(ordered) - 1)
    below, above = (ordered[min(int(position) + step, len(ordered) - 1)] for step in (0, 1))
    return int(below + (above - below) * (position - int(position)) + Fraction(1, 2))


def percentiles(prices: Counter[int]) -> Spread:
    return Spread(*(percentile(prices, Fraction(tenths, 10)) for tenths in (1, 5, 9)))


def own(rows: list[tuple[int, int, int, int]]) -> dict[int, Counter[int]]:
    """The prices of every lane."""
    found: dict[int, Counter[int]] = {}
    for day, origin, destination, cents in rows:
        found.setdefault((day * 10 + origin) * 10 + destination, Counter())[cents] += 1
    return found


def spreads(sets: Sets) -> dict[int, Spread]:
    return {code: Spread(*row) for code, row in zip(sets.codes.tolist(), sets.spreads.T.tolist(), strict=True)}


def plain(rows: Mapping[tuple[int, int, int, int], int]) -> dict[int, Counter[int]]:
    """The prices of every pair of locations above the lanes."""
    found: dict[int, Counter[int]] = {}
    for (day, origin, destination, cents), number in rows.items():
        for above in product(ancestors(origin), ancestors(destination)):
            if above != (origin, destination):
                found.setdefault((day * 10 + above[0]) * 10 + above[1], Counter())[cents] += number
    return found


def lanes(rows: list[tuple[int, int, int, int]]) -> LanePrices:
    columns = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    return LanePrices((columns[0] * 10 + columns[1]) * 10 + columns[2], columns[3])


@given(st.lists(prices, max_size=60))
def test_regions_hold_the_prices_of_every_lane_below_them(rows: list[tuple[int, int, int, int]]) -> None:
    expected = plain(Counter(rows))
    found = unpack(region_sets(lanes(rows), TREE))
    assert found == {
        code: (counter.total(), sum(cents * n for cents, n in counter.items()), counter)
        for code, counter in expected.items()
    }


@settings(max_examples=40)
@given(st.lists(st.tuples(prices, st.integers(1, 2 * EXACT_PRICES)), max_size=8))
def test_large_sets_are_rounded_and_stay_exact_in_count_and_total(
    weighted: list[tuple[tuple[int, int, int, int], int]],
) -> None:
    rows = [row for row, number in weighted for _ in range(number)]
    expected = plain(Counter(rows))
    sets = region_sets(lanes(rows), TREE)
    found = unpack(sets)
    assert found.keys() == expected.keys()
    assert spreads(sets) == {code: percentiles(counter) for code, counter in expected.items()}
    for code, counter in expected.items():
        count, total, entries = found[code]
        assert (count, total) == (counter.total(), sum(cents * n for cents, n in counter.items()))
        assert sum(entries.values()) == count
        if count <= EXACT_PRICES:
            assert entries == counter
        else:
            np.testing.assert_allclose(  # ascending, price by price
                sorted(Counter(entries).elements()), sorted(counter.elements()), rtol=0.0051, atol=0.5
            )


@given(st.lists(prices, max_size=60))
def test_a_lane_holds_its_own_prices(rows: list[tuple[int, int, int, int]]) -> None:
    assert unpack(lanes(rows).sets()) == {
        code: (counter.total(), sum(cents * n for cents, n in counter.items()), counter)
        for code, counter in own(rows).items()
    }


@given(st.lists(prices, max_size=60))
def test_spreads_are_exact(rows: list[tuple[int, int, int, int]]) -> None:
    made = lanes(rows)
    assert spreads(made.sets()) == {code: percentiles(counter) for code, counter in own(rows).items()}
    assert spreads(region_sets(made, TREE)) == {
        code: percentiles(counter) for code, counter in plain(Counter(rows)).items()
    }


@given(st.lists(st.dictionaries(st.integers(1, 300), st.integers(1, 9), min_size=1), min_size=1, max_size=5))
def test_the_spread_of_several_sets_is_that_of_all_their_prices(parts: list[dict[int, int]]) -> None:
    union: Counter[int] = sum(map(Counter, parts), Counter())
    assert spread((list(part.keys()), list(part.values())) for part in parts) == percentiles(union)


@pytest.mark.parametrize(
    ("prices", "numbers"),
    [([7], [7]), ([7, 7], [7, 7]), ([7, 7, 7], [7, 3]), ([7, 7, 8, 8], [7, 7, 8, 8]), ([7, 7, 8, 8, 8], [7, 2, 8, 3])],
)
def test_a_set_is_kept_in_the_shorter_form(prices: list[int], numbers: list[int]) -> None:
    sets = LanePrices(np.zeros(len(prices), dtype=np.int64), np.array(prices)).sets()
    assert sets.numbers.tolist() == numbers
    cents, weights = read_set(len(prices), sets.numbers.tobytes())
    assert np.repeat(cents, weights).tolist() == prices


def test_a_lane_of_many_prices_stays_exact_and_short() -> None:
    cents = np.tile([100, 101, 250], 10 * EXACT_PRICES)
    sets = LanePrices(np.zeros(len(cents), dtype=np.int64), cents).sets()
    assert sets.numbers.tolist() == [100, 10 * EXACT_PRICES, 101, 10 * EXACT_PRICES, 250, 10 * EXACT_PRICES]
