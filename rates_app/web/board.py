"""The board of the home page, for the template: a sparkline and a sentence for each lane, and the age of prices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rates_app.rates.board import BOARD_DAYS, Board, BoardLane

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

#: Age in days from which the board, or a lane that is behind the others, shows how old its prices are.
STALE_DAYS = 7
#: Size of a sparkline's coordinates; it is stretched to the room it gets.
WIDTH, HEIGHT = 300, 60
MARGIN = 4
#: A change that rounds to 0.0%.
_UNCHANGED = 0.0005


@dataclass(frozen=True, slots=True)
class BoardRow:
    """A lane of the board.

    Attributes:
        found: The lane with its rates.
        lines: Polyline points of the sparkline, one for each run of days with a rate.
        end: Position of the latest rate in percent of the sparkline's width and height.
        sentence: The change over a week, and the spread.
        late: Whether the lane's prices end earlier than the board's.
    """

    found: BoardLane
    lines: list[str]
    end: tuple[float, float] | None
    sentence: str
    late: bool


@dataclass(frozen=True, slots=True)
class Overview:
    """The board's rows and days, and the age of the newest prices if it is too high."""

    rows: list[BoardRow]
    date_from: date
    date_to: date
    stale_days: int | None


def overview(board: Board, today: date) -> Overview:
    """Lay the board out.

    Args:
        board: The lanes and their averages.
        today: The current day, which the age of prices is counted to.
    """
    age = (today - board.date_to).days
    rows = [_row(board, found) for found in board.lanes]
    return Overview(rows, board.date_from, board.date_to, age if age > STALE_DAYS else None)


def _row(board: Board, found: BoardLane) -> BoardRow:
    lines, end = _sparkline(board, found)
    behind = (board.date_to - found.lane.last_day).days
    return BoardRow(found, lines, end, _sentence(found), behind > STALE_DAYS)


def _sentence(found: BoardLane) -> str:
    if found.latest is None:
        return f"No day of the latest {BOARD_DAYS} has enough prices for a rate."
    parts = []
    ratio = found.changes[0].ratio
    if ratio is not None and abs(ratio) < _UNCHANGED:
        parts.append("Unchanged in a week")
    elif ratio is not None:
        parts.append(f"{'Up' if ratio > 0 else 'Down'} {abs(ratio):.1%} in a week")
    parts.append(f"8 of 10 prices are {found.latest.low:,.0f}\N{EN DASH}{found.latest.high:,.0f}")
    sentence = "; ".join(parts)
    return f"{sentence}."


def _sparkline(board: Board, found: BoardLane) -> tuple[list[str], tuple[float, float] | None]:
    if not found.averages:
        return [], None
    low, high = min(found.averages.values()), max(found.averages.values())

    def point(day: date) -> tuple[float, float]:
        across = (day - board.date_from).days / (BOARD_DAYS - 1)
        up = (found.averages[day] - low) / (high - low) if high > low else 0.5
        return round(WIDTH * across, 1), round(HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * up, 1)

    lines = [" ".join("{},{}".format(*point(day)) for day in run) for run in _runs(found.averages)]
    x, y = point(max(found.averages))
    return lines, (round(x / WIDTH * 100, 1), round(y / HEIGHT * 100, 1))


def _runs(averages: dict[date, float]) -> Iterator[list[date]]:
    """Split days with a rate where a day lacks one."""
    run: list[date] = []
    for day in averages:
        if run and (day - run[-1]).days > 1:
            yield run
            run = []
        run.append(day)
    yield run
