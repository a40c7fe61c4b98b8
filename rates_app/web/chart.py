"""The figure of one or several lanes' rates: a line for the average, a band from low to high, gaps where neither is.

It is drawn once, here: on a page, on paper and as a picture it is the same. Positions across are in percent of the
width, so that text keeps its size on every screen; the lines stretch in a square of :data:`SIDE` units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rates_app.rates.model import Rate

SIDE = 1000
#: Where the highest and the lowest price step stand; below are the days.
TOP, BOTTOM = 30, 880

PRICE_LABELS = 5
DAY_LABELS = 6
#: More dots than this merge into a thick line.
MAX_DOTS = 62
#: Bands of more lanes than this cover each other.
MAX_BANDS = 2


class Mark(NamedTuple):
    """A label of an axis, where it stands in percent, and which side of that it begins on."""

    at: float
    text: str
    anchor: str = "middle"


class Curve(NamedTuple):
    """A lane: its lines and bands in units, its dots in percent."""

    lines: list[str]
    bands: list[str]
    dots: list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Chart:
    """What the template draws."""

    curves: list[Curve]
    days: list[Mark]
    prices: list[Mark]
    #: The same figures for the script that tells them under the pointer.
    series: str


def price_steps(low: float, high: float) -> list[float]:
    """Choose round prices that span a range: steps of 1, 2 or 5 times a power of ten."""
    raw = max(high - low, high * 0.02, 1e-9) / PRICE_LABELS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
    first = math.floor(low / step)
    return [step * number for number in range(first, math.ceil(high / step) + 1)]


def draw(lanes: Sequence[tuple[str, Sequence[Rate]]]) -> Chart | None:
    """Lay the figure out.

    Args:
        lanes: Each lane's name and its rates: every interval, oldest first, the same ones for all.

    Returns:
        The geometry; None when no interval of any lane has a rate.
    """
    banded = len(lanes) <= MAX_BANDS
    prices = [
        price
        for _, rates in lanes
        for rate in rates
        for price in ((rate.low, rate.high) if banded else (rate.average,))
        if price is not None
    ]
    if not prices:
        return None
    steps = price_steps(min(prices), max(prices))
    count = len(lanes[0][1])

    def x(index: int) -> float:
        return round(SIDE * index / (count - 1), 1) if count > 1 else SIDE / 2

    def y(price: float | None) -> float:
        fraction = ((price or 0) - steps[0]) / ((steps[-1] - steps[0]) or 1)
        return round(BOTTOM - (BOTTOM - TOP) * fraction, 1)

    def curve(rates: Sequence[Rate]) -> Curve:
        drawn = Curve([], [], [])
        rated = sum(rate.average is not None for rate in rates)
        for has_rate, part in groupby(enumerate(rates), key=lambda item: item[1].average is not None):
            if not has_rate:
                continue
            run = list(part)
            drawn.lines.append(" ".join(f"{x(index)},{y(rate.average)}" for index, rate in run))
            if banded:
                upper = [f"{x(index)},{y(rate.high)}" for index, rate in run]
                lower = [f"{x(index)},{y(rate.low)}" for index, rate in reversed(run)]
                drawn.bands.append(" ".join(upper + lower))
            if rated <= MAX_DOTS or len(run) == 1:  # a line through one point cannot be seen
                drawn.dots.extend((x(index) / SIDE * 100, y(rate.average) / SIDE * 100) for index, rate in run)
        return drawn

    return Chart(
        [curve(rates) for _, rates in lanes],
        _days(lanes[0][1], x),
        [Mark(y(step) / SIDE * 100, f"{step:,.0f}") for step in steps],
        _series(lanes, y),
    )


def _days(rates: Sequence[Rate], x: Callable[[int], float]) -> list[Mark]:
    last = len(rates) - 1
    every = max(1, math.ceil(last / (DAY_LABELS - 1)))
    chosen = [index for index in range(0, last + 1, every) if last - index >= every / 2 or index == 0]
    marks = [Mark(x(index) / SIDE * 100, f"{rates[index].date_from:%-d %b %Y}") for index in [*chosen, last]]
    if last == 0:
        return marks[:1]
    return [marks[0]._replace(anchor="start"), *marks[1:-1], marks[-1]._replace(anchor="end")]


def _series(lanes: Sequence[tuple[str, Sequence[Rate]]], y: Callable[[float | None], float]) -> str:
    return orjson.dumps(
        {
            "from": [rate.date_from for rate in lanes[0][1]],
            "to": [rate.date_to for rate in lanes[0][1]],
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
        }
    ).decode()
