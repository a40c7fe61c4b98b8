"""Geometry of the chart: lines for averages and medians, a band from low to high, bars for the number of prices.

The chart is drawn on the server, so that it is the same on a page, on paper and as a picture. Horizontal positions are
in percent of the width, so that text has the same size on every screen; lines stretch in a square of :data:`SIDE`
units. The time axis is linear: an interval of any length is drawn in the middle of its days.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, NamedTuple

import orjson

from rates_app.rates.composition import Composition, IntervalComposition
from rates_app.rates.model import Interval, Rate, interval_end, interval_start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SIDE = 1000
#: Positions of the highest and the lowest price step; the days are below.
TOP, BOTTOM = 60, 880
#: Positions of the lowest price step and of the top of the bars, if bars are drawn below the prices.
BOTTOM_ABOVE_BARS, BARS = 740, 780

PRICE_LABELS = 5
MAX_DAY_LABELS = 7
#: Maximum number of dots; more of them merge into a thick line.
MAX_DOTS = 62
#: Maximum number of lanes with bands and medians; more of them cover each other.
MAX_BANDS = 2
#: Labels at the ends of lines are at least this far apart, in percent of the height.
LABEL_GAP = 5.5
#: An interval is thin if it has less than this share of the median number of prices.
THIN_SHARE = 0.25


class Mark(NamedTuple):
    """A label of an axis, its position in percent, and its anchor."""

    at: float
    text: str
    anchor: str = "middle"


class Dot(NamedTuple):
    """A rate's average in percent of width and height, and whether its interval is cut off by the range."""

    x: float
    y: float
    partial: bool


class Bar(NamedTuple):
    """The number of prices of an interval, as a rectangle in units."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Curve:
    """A lane: its lines and bands in units, its dots in percent."""

    lines: list[str] = field(default_factory=list)
    #: Parts of the line where an interval is thin.
    thin: list[str] = field(default_factory=list)
    medians: list[str] = field(default_factory=list)
    bands: list[str] = field(default_factory=list)
    #: The average for a constant mix of port pairs.
    index: list[str] = field(default_factory=list)
    dots: list[Dot] = field(default_factory=list)


class Label(NamedTuple):
    """The text at the end of a line: its height in percent, and the number of its lane."""

    at: float
    text: str
    lane: int


@dataclass(frozen=True, slots=True)
class Chart:
    """The elements of the chart, for the template."""

    curves: list[Curve]
    days: list[Mark]
    prices: list[Mark]
    bars: list[Bar]
    #: The highest bar's number of prices; None without bars.
    most: Mark | None
    labels: list[Label]
    thin: bool
    partial: bool
    #: The same data for the script that reads values out.
    series: str


def price_steps(low: float, high: float) -> list[float]:
    """Choose round prices that span a range: steps of 1, 2 or 5 times a power of ten."""
    raw = max(high - low, high * 0.02, 1e-9) / PRICE_LABELS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
    first = math.floor(low / step)
    return [step * number for number in range(first, math.ceil(high / step) + 1)]


def draw(
    lanes: Sequence[tuple[str, Sequence[Rate]]], interval: Interval = "day", composition: Composition | None = None
) -> Chart | None:
    """Lay the chart out.

    Args:
        lanes: Each lane's name and its rates: every interval, oldest first, the same ones for all.
        interval: Length of an interval.
        composition: The port pairs behind the rates of a single lane.

    Returns:
        The geometry; None if no interval of any lane has a rate.
    """
    banded = len(lanes) <= MAX_BANDS
    prices = [
        price
        for _, rates in lanes
        for rate in rates
        for price in ((rate.low, rate.high, rate.average) if banded else (rate.average,))
        if price is not None
    ]
    if not prices:
        return None
    index = {} if composition is None else composition.indexes()
    prices += index.values()
    steps = price_steps(min(prices), max(prices))
    slots = lanes[0][1]
    first = slots[0].date_from
    total = (slots[-1].date_to - first).days + 1
    bottom = BOTTOM_ABOVE_BARS if len(lanes) == 1 else BOTTOM

    def x(rate: Rate) -> float:
        middle = ((rate.date_from - first).days + (rate.date_to - first).days + 1) / 2
        return round(SIDE * middle / total, 1)

    def y(price: float | None) -> float:
        fraction = ((price or 0) - steps[0]) / ((steps[-1] - steps[0]) or 1)
        return round(bottom - (bottom - TOP) * fraction, 1)

    partial = [_is_partial(rate, interval) for rate in slots]
    curves = [_curve(rates, partial, x, y, banded=banded) for _, rates in lanes]
    for has_index, part in groupby(slots, key=lambda rate: rate.date_from in index):
        if has_index:
            points = [f"{x(rate)},{y(index[rate.date_from])}" for rate in part]
            curves[0].index.append(" ".join(points))
    bars = _bars(slots, first, total) if len(lanes) == 1 else []
    most = max(rate.count for rate in slots)
    return Chart(
        curves,
        [Mark(SIDE * ((day - first).days + 0.5) / total / SIDE * 100, text) for day, text in _ticks(first, total)],
        [Mark(y(step) / SIDE * 100, f"{step:,.0f}") for step in steps],
        bars,
        Mark(BARS / SIDE * 100, f"{most:,}") if bars else None,
        _labels(lanes, y),
        any(curve.thin for curve in curves),
        any(partial),
        _series(lanes, interval, composition, x, y),
    )


def _is_partial(rate: Rate, interval: Interval) -> bool:
    start = interval_start(rate.date_from, interval)
    return (rate.date_from, rate.date_to) != (start, interval_end(start, interval))


def _curve(
    rates: Sequence[Rate],
    partial: Sequence[bool],
    x: Callable[[Rate], float],
    y: Callable[[float | None], float],
    *,
    banded: bool,
) -> Curve:
    drawn = Curve()
    rated = [rate for rate in rates if rate.average is not None]
    least = THIN_SHARE * statistics.median(rate.count for rate in rated) if rated else 0

    def line(run: Sequence[Rate]) -> str:
        return " ".join(f"{x(rate)},{y(rate.average)}" for rate in run)

    for has_rate, part in groupby(zip(rates, partial, strict=True), key=lambda item: item[0].average is not None):
        if not has_rate:
            continue
        items = list(part)
        run = [rate for rate, _ in items]
        if len(run) == 1:
            drawn.lines.append(line(run))
        for thin, segments in groupby(pairwise(run), key=lambda ends: any(rate.count < least for rate in ends)):
            ends = list(segments)
            (drawn.thin if thin else drawn.lines).append(line([ends[0][0], *(end for _, end in ends)]))
        if banded:
            upper = [f"{x(rate)},{y(rate.high)}" for rate in run]
            lower = [f"{x(rate)},{y(rate.low)}" for rate in reversed(run)]
            drawn.bands.append(" ".join(upper + lower))
            drawn.medians.append(" ".join(f"{x(rate)},{y(rate.median)}" for rate in run))
        if len(rated) <= MAX_DOTS or len(run) == 1:  # a line through one point cannot be seen
            drawn.dots.extend(Dot(x(rate) / SIDE * 100, y(rate.average) / SIDE * 100, cut) for rate, cut in items)
    return drawn


def _bars(rates: Sequence[Rate], first: date, total: int) -> list[Bar]:
    most = max(rate.count for rate in rates)
    bars = []
    for rate in rates:
        if not rate.count:
            continue
        start = SIDE * (rate.date_from - first).days / total
        width = SIDE * ((rate.date_to - rate.date_from).days + 1) / total
        height = (BOTTOM - BARS) * rate.count / most
        bars.append(
            Bar(round(start + width * 0.1, 1), round(BOTTOM - height, 1), round(width * 0.8, 2), round(height, 1))
        )
    return bars


def _labels(lanes: Sequence[tuple[str, Sequence[Rate]]], y: Callable[[float | None], float]) -> list[Label]:
    """Label the end of each line, moved apart where they would overlap."""
    wanted = []
    for number, (name, rates) in enumerate(lanes, start=1):
        latest = next((rate for rate in reversed(rates) if rate.average is not None), None)
        if latest is None:
            continue
        if len(lanes) > 1:
            wanted.append(Label(y(latest.average) / SIDE * 100, name, number))
        else:
            wanted += [
                Label(y(price) / SIDE * 100, text, number)
                for text, price in (("High", latest.high), ("Average", latest.average), ("Median", latest.median),
                                    ("Low", latest.low))
            ]  # fmt: skip
    placed: list[Label] = []
    for label in sorted(wanted):
        least = placed[-1].at + LABEL_GAP if placed else 0
        placed.append(label._replace(at=round(max(label.at, least), 2)))
    return placed


def _ticks(first: date, total: int) -> list[tuple[date, str]]:
    """Choose calendar days to label: as many as fit, on round days, Mondays, months or years."""
    for days in (1, 2, 7, 14):
        start = first if days < 7 else first + timedelta(days=-first.weekday() % 7)  # noqa: PLR2004 - a week
        chosen = [start + timedelta(days=offset) for offset in range(0, total - (start - first).days, days)]
        if 0 < len(chosen) <= MAX_DAY_LABELS:
            return list(_with_years(chosen, "%-d %b"))
    last = first + timedelta(days=total - 1)
    for months in (1, 2, 3, 6, 12, 24, 60, 120, 240, 480, 960, 1920, 3840, 7680, 15360):
        chosen = [day for day in _month_starts(first, last, months) if day >= first]
        if len(chosen) <= MAX_DAY_LABELS:
            break
    return [(day, f"{day.year}") for day in chosen] if months >= 12 else list(_with_years(chosen, "%b"))  # noqa: PLR2004


def _month_starts(first: date, last: date, months: int) -> Iterator[date]:
    number = first.year * 12 + first.month - 1
    number -= number % months
    while number // 12 <= last.year:
        if number >= 12 and (day := date(number // 12, number % 12 + 1, 1)) <= last:  # noqa: PLR2004 - the year 1
            yield day
        number += months


def _with_years(days: Sequence[date], form: str) -> Iterator[tuple[date, str]]:
    """Name the year on the first label, and where it changes."""
    year = None
    for day in days:
        yield day, f"{day:{form}}" if day.year == year else f"{day:{form} %Y}"
        year = day.year


def _series(
    lanes: Sequence[tuple[str, Sequence[Rate]]],
    interval: Interval,
    composition: Composition | None,
    x: Callable[[Rate], float],
    y: Callable[[float | None], float],
) -> str:
    slots = lanes[0][1]
    pairs = {}
    if composition is not None:
        found = [composition.intervals.get(rate.date_from) for rate in slots]
        pairs["pairs"] = {"all": composition.port_pairs, "intervals": [each or IntervalComposition() for each in found]}
    return orjson.dumps(
        {
            "from": [rate.date_from for rate in slots],
            "to": [rate.date_to for rate in slots],
            "x": [round(x(rate) / SIDE * 100, 2) for rate in slots],
            "partial": [index for index, rate in enumerate(slots) if _is_partial(rate, interval)],
            "lanes": [
                {
                    "name": name,
                    "rates": [
                        [rate.count]
                        if rate.average is None
                        else [rate.count, rate.low, rate.average, rate.median, rate.high, y(rate.average) / SIDE * 100]
                        for rate in rates
                    ],
                }
                for name, rates in lanes
            ],
            **pairs,
        }
    ).decode()
