"""Rates as people type and paste them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rates_app.rates.quotes import MAX_QUOTES, read_quotes
from rates_app.rates.spread import OrderedPrices


@pytest.mark.parametrize(
    ("text", "cents"),
    [
        ("1250", 125_000),
        ("1,250", 125_000),
        ("1.250", 125_000),
        ("$1,250.50", 125_050),
        ("1.250,50 USD", 125_050),
        ("US$ 1 250,5", 125_050),
        ("1'250.75", 125_075),
        ("950.00", 95_000),
        ("950,4", 95_040),
        ("1,234,567", 123_456_700),
        ("0", 0),
        ("abc", None),
        ("-5", None),
        ("1250 EUR", None),
        ("12e3", None),
        ("\N{ARABIC-INDIC DIGIT FIVE}", None),
        ("1" * 30, None),
    ],
)
def test_a_number_of_any_locale_is_read(text: str, cents: int | None) -> None:
    assert [quote.cents for quote in read_quotes(text)] == [cents]


def test_a_pasted_column_is_read_cell_by_cell() -> None:
    assert [quote.cents for quote in read_quotes("1000\r\n\r\n 1100\t1200;1300\n")] == [
        100_000,
        110_000,
        120_000,
        130_000,
    ]
    assert len(read_quotes("1\n" * 5000)) == MAX_QUOTES


@given(st.text(max_size=50))
def test_any_text_is_read_without_an_error(text: str) -> None:
    assert all(quote.cents is None or quote.cents >= 0 for quote in read_quotes(text))


@given(st.lists(st.integers(0, 50), min_size=1), st.integers(-5, 55))
def test_the_share_below_counts_equal_prices_half(prices: list[int], cents: int) -> None:
    merged = OrderedPrices.merge([(prices, [1] * len(prices))])

    below = sum(price < cents for price in prices) + sum(price == cents for price in prices) / 2
    assert merged.share_below(cents) == pytest.approx(below / len(prices))
