"""The chart's geometry: round steps, gaps, a linear time scale, positions inside the chart."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import date, timedelta

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rates_app.rates.model import Rate
from rates_app.web.chart import BARS, BOTTOM, MAX_BANDS, SIDE, TOP, draw, price_steps

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


def test_without_rates_there_is_no_chart() -> None:
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
    assert chart.days[0].text.endswith("2021")
    assert 1 <= len(chart.days) <= 7
    assert all(0 <= mark.at <= 100 for mark in (*chart.days, *chart.prices))
    for bar in chart.bars:
        assert 0 <= bar.x <= bar.x + bar.width <= SIDE
        assert BARS - 0.5 <= bar.y <= bar.y + bar.height <= BOTTOM + 0.5
    assert all(later.at - former.at >= 5 for former, later in itertools.pairwise(chart.labels))


@pytest.mark.parametrize(
    ("first", "last", "labels"),
    [
        ("2021-01-01", "2021-01-05", ["1 Jan 2021", "2 Jan", "3 Jan", "4 Jan", "5 Jan"]),
        ("2021-01-01", "2021-01-31", ["4 Jan 2021", "11 Jan", "18 Jan", "25 Jan"]),
        ("2020-11-15", "2021-03-31", ["Dec 2020", "Jan 2021", "Feb", "Mar"]),
        ("2019-06-01", "2021-06-30", ["Jul 2019", "Jan 2020", "Jul", "Jan 2021"]),
        ("2012-01-01", "2021-12-31", ["2012", "2014", "2016", "2018", "2020"]),
        ("0001-01-01", "9999-12-31", ["1280", "2560", "3840", "5120", "6400", "7680", "8960"]),
    ],
)
def test_labels_are_on_round_days(first: str, last: str, labels: list[str]) -> None:
    span = Rate(date.fromisoformat(first), date.fromisoformat(last), 3, 1.0, 1.0, 1.0, 1.0)
    chart = draw([("lane", [span])], "month")
    assert chart is not None
    assert [mark.text for mark in chart.days] == labels


def test_time_runs_to_scale_and_cut_intervals_are_marked() -> None:
    days = [(date(2021, 1, 1), date(2021, 1, 3)), (date(2021, 1, 4), date(2021, 1, 10)), (date(2021, 1, 11),) * 2]
    chart = draw([("lane", [Rate(first, last, 3, 1.0, 1.0, 1.0, 1.0) for first, last in days])], "week")
    assert chart is not None
    assert [round(dot.x * 11 / 100, 2) for dot in chart.curves[0].dots] == [1.5, 6.5, 10.5]
    assert [dot.partial for dot in chart.curves[0].dots] == [True, False, True]
    assert chart.partial
    assert orjson.loads(chart.series)["partial"] == [0, 2]


def test_a_line_is_dashed_where_there_are_few_prices() -> None:
    counts = (100, 100, 24, 100, 100)
    rated = [replace(rate, count=count) for rate, count in zip(rates(*[1000.0] * 5), counts, strict=True)]
    chart = draw([("lane", rated)])
    assert chart is not None
    assert chart.thin
    assert [len(line.split()) for line in chart.curves[0].thin] == [3]
    assert [len(line.split()) for line in chart.curves[0].lines] == [2, 2]


def test_many_lanes_have_lines_and_a_scale_but_no_bands() -> None:
    few = draw([("lane", rates(1000, 1010))] * MAX_BANDS)
    many = draw([("lane", rates(1000, 1010))] * (MAX_BANDS + 1))
    assert few is not None
    assert many is not None
    assert all(curve.bands for curve in few.curves)
    assert not any(curve.bands for curve in many.curves)
    assert float(many.prices[0].text.replace(",", "")) > float(few.prices[0].text.replace(",", ""))


@pytest.mark.parametrize("average", [None, 1234.5])
def test_the_script_gets_the_values_it_shows(average: float | None) -> None:
    chart = draw([("A → B", rates(1000, average))])
    assert chart is not None
    series = orjson.loads(chart.series)
    assert series["from"] == series["to"] == ["2021-01-01", "2021-01-02"]
    values = series["lanes"][0]["rates"][1]
    assert values == [0] if average is None else values[:5] == [3, 1111.05, 1234.5, 1234.5, 1357.95]
