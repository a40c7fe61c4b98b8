"""The figure's geometry: round steps, gaps, positions that stay inside."""

from __future__ import annotations

import itertools
from datetime import date, timedelta

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rates_app.rates.model import Rate
from rates_app.web.chart import BOTTOM, MAX_BANDS, SIDE, TOP, draw, price_steps

FIRST = date(2021, 1, 1)


def rates(*averages: float | None) -> list[Rate]:
    return [
        Rate(day, day, 0)
        if average is None
        else Rate(day, day, 3, round(average * 0.9, 2), average, average, round(average * 1.1, 2))
        for number, average in enumerate(averages)
        for day in [FIRST + timedelta(days=number)]
    ]


@given(st.floats(0.01, 1e6), st.floats(0, 1e6))
def test_steps_are_round_and_span_the_prices(low: float, span: float) -> None:
    steps = price_steps(low, low + span)
    assert steps[0] <= low * (1 + 1e-9)
    assert steps[-1] >= (low + span) * (1 - 1e-9)
    assert len(steps) <= 12
    assert all(later > earlier for earlier, later in itertools.pairwise(steps))


def test_lines_break_where_there_is_no_rate() -> None:
    chart = draw([("lane", rates(1000, 1100, None, 1200, None, None, 1300, 1250))])
    assert chart is not None
    assert [len(line.split()) for line in chart.curves[0].lines] == [2, 1, 2]
    assert [len(band.split()) for band in chart.curves[0].bands] == [4, 2, 4]
    assert len(chart.curves[0].dots) == 5


def test_no_rate_is_no_figure() -> None:
    assert draw([("lane", rates(None, None))]) is None


@given(st.lists(st.one_of(st.none(), st.floats(1, 1e5)), min_size=1, max_size=80))
def test_everything_stays_inside(averages: list[float | None]) -> None:
    chart = draw([("lane", rates(*averages))])
    if chart is None:
        assert set(averages) == {None}
        return
    for points in (*chart.curves[0].lines, *chart.curves[0].bands):
        for point in points.split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= SIDE
            assert TOP - 0.5 <= y <= BOTTOM + 0.5
    assert chart.days[0].text == "1 Jan 2021"
    assert len(chart.days) <= 7


def test_many_lanes_have_lines_and_a_scale_of_their_own_but_no_bands() -> None:
    few = draw([("lane", rates(1000, 1010))] * MAX_BANDS)
    many = draw([("lane", rates(1000, 1010))] * (MAX_BANDS + 1))
    assert few is not None
    assert many is not None
    assert all(curve.bands for curve in few.curves)
    assert not any(curve.bands for curve in many.curves)
    assert float(many.prices[0].text.replace(",", "")) > float(few.prices[0].text.replace(",", ""))


@pytest.mark.parametrize("average", [None, 1234.5])
def test_the_script_gets_what_it_tells(average: float | None) -> None:
    chart = draw([("A → B", rates(1000, average))])
    assert chart is not None
    series = orjson.loads(chart.series)
    assert series["from"] == series["to"] == ["2021-01-01", "2021-01-02"]
    told = series["lanes"][0]["rates"][1]
    assert told == [0] if average is None else told[:5] == [3, 1111.05, 1234.5, 1234.5, 1357.95]
