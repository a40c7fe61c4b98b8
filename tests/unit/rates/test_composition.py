"""The index for a constant mix of port pairs contains changes of prices, and none of the mix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rates_app.rates.composition import constant_composition
from rates_app.rates.model import MIN_PRICES


@given(st.data(), st.integers(2, 6), st.integers(2, 8))
def test_a_movement_that_is_common_to_all_pairs_is_found_whatever_the_mix(
    data: st.DataObject, pairs: int, intervals: int
) -> None:
    movements = np.array(data.draw(st.lists(st.floats(0.5, 2), min_size=intervals, max_size=intervals)))
    levels = np.array(data.draw(st.lists(st.floats(50_000, 500_000), min_size=pairs, max_size=pairs)))
    cells = st.lists(st.sampled_from([0, 0, 1, 5, 40]), min_size=intervals, max_size=intervals)
    counts = np.array(data.draw(st.lists(cells, min_size=pairs, max_size=pairs)), dtype=float)
    counts[0] = MIN_PRICES  # so that all intervals have a rate and are connected

    index = constant_composition(counts, counts * np.outer(levels, movements))

    assert index == pytest.approx(index[-1] * movements / movements[-1])
    assert index[-1] == pytest.approx((counts[:, -1] * levels * movements[-1]).sum() / counts[:, -1].sum())


def test_intervals_without_a_rate_or_a_common_pair_have_no_index() -> None:
    counts = np.array([[5, 0, 0, 2, 0], [0, 0, 5, 0, 5]], dtype=float)

    index = constant_composition(counts, counts * 100_000)

    assert np.isnan(index).tolist() == [True, True, False, True, False]
    assert index[4] == pytest.approx(100_000)


def test_without_any_rate_there_is_no_index() -> None:
    assert np.isnan(constant_composition(np.ones((2, 3)), np.ones((2, 3)))).all()
