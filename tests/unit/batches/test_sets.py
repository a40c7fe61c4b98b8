"""Sets by column say what plain arithmetic on every price says, and binary rows what PostgreSQL takes."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rates_app.batches.rollup import Tree, region_sets
from rates_app.batches.sets import EXACT_PRICES, Sets, select, sets_of
from rates_app.batches.validate import HIGHEST_PRICE_CENTS

if TYPE_CHECKING:
    from collections.abc import Mapping

# A world, two continents, a sub-region, ports at three depths and one outside of the tree.
PARENTS = [-1, 0, 0, 1, 3, 3, 1, 2, 2, -1]
PORTS = [4, 5, 6, 7, 8, 9]


def ancestors(place: int) -> list[int]:
    return [place, *(ancestors(PARENTS[place]) if PARENTS[place] >= 0 else [])]


TREE = Tree(np.arange(10), np.array(PARENTS), np.array([len(ancestors(place)) - 1 for place in range(len(PARENTS))]))

prices = st.tuples(
    st.integers(0, 2),
    st.sampled_from(PORTS),
    st.sampled_from(PORTS),
    st.sampled_from([1, 2, 99, 100, 12_345, HIGHEST_PRICE_CENTS]),
)


def unpack(sets: Sets) -> dict[int, tuple[int, int, dict[int, int]]]:
    """Each code's count, total and entries."""
    ends = np.cumsum(sets.sizes)
    found = {}
    for code, count, total, size, end in zip(sets.codes, sets.counts, sets.totals, sets.sizes, ends, strict=True):
        cents, weights = sets.cents[end - size : end].tolist(), sets.weights[end - size : end].tolist()
        assert cents == sorted(set(cents)), "ascending, each once"
        found[int(code)] = (int(count), int(total), dict(zip(cents, weights, strict=True)))
    assert len(found) == len(sets.codes), "each code once"
    assert len(sets.cents) == len(sets.weights) == sets.sizes.sum()
    return found


def plain(rows: Mapping[tuple[int, int, int, int], int]) -> dict[int, Counter[int]]:
    """The prices of every pair of locations above the lanes."""
    found: dict[int, Counter[int]] = {}
    for (day, origin, destination, cents), number in rows.items():
        for above in product(ancestors(origin), ancestors(destination)):
            if above != (origin, destination):
                found.setdefault((day * 10 + above[0]) * 10 + above[1], Counter())[cents] += number
    return found


def lanes(rows: list[tuple[int, int, int, int]]) -> Sets:
    columns = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    return sets_of((columns[0] * 10 + columns[1]) * 10 + columns[2], columns[3])


@settings(deadline=None)
@given(st.lists(prices, max_size=60))
def test_regions_hold_the_prices_of_every_lane_below_them(rows: list[tuple[int, int, int, int]]) -> None:
    expected = plain(Counter(rows))
    found = unpack(region_sets(lanes(rows), TREE))
    assert found == {
        code: (counter.total(), sum(cents * n for cents, n in counter.items()), counter)
        for code, counter in expected.items()
    }


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(prices, st.integers(1, 2 * EXACT_PRICES)), max_size=8))
def test_large_sets_are_rounded_and_stay_exact_in_count_and_total(
    weighted: list[tuple[tuple[int, int, int, int], int]],
) -> None:
    rows = [row for row, number in weighted for _ in range(number)]
    expected = plain(Counter(rows))
    found = unpack(region_sets(lanes(rows), TREE))
    assert found.keys() == expected.keys()
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


@settings(deadline=None)
@given(st.lists(prices, max_size=60))
def test_selecting_keeps_sets_whole(rows: list[tuple[int, int, int, int]]) -> None:
    sets = lanes(rows)
    odd = sets.codes % 2 == 1
    assert unpack(select(sets, odd)) == {code: value for code, value in unpack(sets).items() if code % 2}
