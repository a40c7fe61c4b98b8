"""The figure of a lane's rates as an SVG's geometry: a line for the average, a band from low to high."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rates_app.rates.model import Rate

WIDTH, HEIGHT = 960, 320
LEFT, RIGHT, TOP, BOTTOM = 76, 8, 16, 28

#: Room that a day's label needs to the right of its mark.
LABEL_WIDTH = 120

#: About this many labels stand on each axis.
LABELS = 5


class Mark(NamedTuple):
    """A label of an axis and where it stands."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """What the template draws; lines and bands break where there are too few prices."""

    lines: list[str]
    bands: list[str]
    points: list[tuple[float, float, Rate]]
    days: list[Mark]
    prices: list[Mark]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    bottom: int = HEIGHT - BOTTOM


def price_steps(low: float, high: float) -> list[float]:
    """Choose round prices that span a range: steps of 1, 2 or 5 times a power of ten."""
    raw = max(high - low, high * 0.02, 1e-9) / LABELS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
    first = math.floor(low / step)
    return [step * number for number in range(first, math.ceil(high / step) + 1)]


def draw(rates: Sequence[Rate]) -> Chart | None:
    """Lay the figure out.

    Args:
        rates: Every interval, oldest first.

    Returns:
        The geometry in the SVG's own units; None when no interval has a rate.
    """
    rated = [rate for rate in rates if rate.low is not None and rate.high is not None]
    if not rated:
        return None
    steps = price_steps(min(rate.low or 0 for rate in rated), max(rate.high or 0 for rate in rated))
    span = (steps[-1] - steps[0]) or 1.0

    def x(index: int) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (index / (len(rates) - 1) if len(rates) > 1 else 0.5), 1)

    def y(price: float | None) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - ((price or 0) - steps[0]) / span), 1)

    lines: list[str] = []
    bands: list[str] = []
    points: list[tuple[float, float, Rate]] = []
    for has_rate, part in groupby(enumerate(rates), key=lambda item: item[1].average is not None):
        if not has_rate:
            continue
        run = list(part)
        lines.append(" ".join(f"{x(index)},{y(rate.average)}" for index, rate in run))
        upper = [f"{x(index)},{y(rate.high)}" for index, rate in run]
        lower = [f"{x(index)},{y(rate.low)}" for index, rate in reversed(run)]
        bands.append(" ".join(upper + lower))
        points.extend((x(index), y(rate.average), rate) for index, rate in run)
    every = max(1, math.ceil(len(rates) / (LABELS + 2)))
    marked = [index for index in range(0, len(rates), every) if x(index) <= WIDTH - LABEL_WIDTH]
    days = [Mark(x(index), f"{rates[index].date_from:%-d %b %Y}") for index in marked]
    prices = [Mark(y(step), f"{step:,.0f}") for step in steps]
    return Chart(lines, bands, points, days, prices)
