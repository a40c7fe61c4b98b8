"""Judge every value of every row: known ports, real dates, positive bounded prices.

Values repeat (a few ports, days and prices make up most batches), so each distinct value is judged once and rows
look their verdict up.
"""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rates_app.batches.formats.base import Rows, shown
from rates_app.batches.model import COLUMNS, Reject

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

#: A price is above zero and at most this, in cents: a million USD for one container.
HIGHEST_PRICE_CENTS = 100_000_000

#: Days outside of this are typing errors.
FIRST_DAY, LAST_DAY = date(1970, 1, 1), date(2099, 12, 31)

#: PostgreSQL counts days from here in its binary form.
_POSTGRES_EPOCH = date(2000, 1, 1)

_PRICE = re.compile(rb"(\d{1,9})(?:\.(\d{1,2})0*)?", re.ASCII)
_DAY = re.compile(rb"\d{4}-\d{2}-\d{2}", re.ASCII)

#: Stands for "not valid" where valid values are numbers.
_BAD = np.iinfo(np.int32).min


class Prices(NamedTuple):
    """Valid prices, column by column: location ids, days since 2000-01-01, cents."""

    origin_ids: NDArray[np.int32]
    destination_ids: NDArray[np.int32]
    days: NDArray[np.int32]
    cents: NDArray[np.int32]


def by_day(prices: Prices) -> Prices:
    """Put prices in the order of their days."""
    if not len(prices.days):
        return prices
    offsets = (prices.days - prices.days.min()).astype(np.uint16)  # valid days span less; two bytes sort in linear time
    order = np.argsort(offsets, kind="stable")
    return Prices(*(column[order] for column in prices))


class Validator:
    """Judges the rows of a batch, chunk after chunk.

    Args:
        ports: The id of every known port by its code.
        regions: The slugs of regions, to tell a supplier who delivers one that ports are wanted.
    """

    def __init__(self, ports: Mapping[str, int], regions: frozenset[str]) -> None:
        self._ports = {code.encode(): number for code, number in ports.items()}
        self._regions = {slug.encode() for slug in regions}

    def validate(self, rows: Rows) -> tuple[Prices, list[Reject]]:
        """Separate good rows from bad ones.

        Returns:
            The good rows, and a reject for each bad value of each bad row.
        """
        judges: tuple[Callable[[bytes], int | str], ...] = (self._port, self._port, _day, _price)
        rejects: list[Reject] = []
        good = np.ones(len(rows.lines), dtype=bool)
        columns = []
        for name, column, judge in zip(COLUMNS, rows.columns, judges, strict=True):
            values, reasons = _judge(column, judge)
            bad = values == _BAD
            if bad.any():
                good &= ~bad
                for index in np.flatnonzero(bad):
                    value = column[int(index)].as_py()
                    reason = "is missing" if not value else reasons[value]
                    rejects.append(Reject(int(rows.lines[index]), name, reason, shown(value)))
            columns.append(values)
        if not good.all():
            columns = [column[good] for column in columns]
        return Prices(*columns), rejects

    def _port(self, code: bytes) -> int | str:
        if code in self._regions:
            return "is a region: prices are between ports"
        return self._ports.get(code, "is not a known port")


def _judge(column: pa.Array[Any], judge: Callable[[bytes], int | str]) -> tuple[NDArray[np.int32], dict[bytes, str]]:
    """Judge each distinct value of a column once; give the verdict of every row and the reasons of the bad ones."""
    encoded: Any = column.dictionary_encode()  # the stubs mistake it for an array of its values
    verdicts: list[int] = []
    reasons: dict[bytes, str] = {}
    for value in encoded.dictionary.to_pylist():
        verdict = judge(value) if value else "is missing"
        if isinstance(verdict, str):
            reasons[value] = verdict
            verdict = _BAD
        verdicts.append(verdict)
    indices = encoded.indices.fill_null(len(verdicts)).to_numpy(zero_copy_only=False)
    return np.array([*verdicts, _BAD], dtype=np.int32)[indices], reasons


def _day(text: bytes) -> int | str:
    if not _DAY.fullmatch(text):
        return "is not a date of the form YYYY-MM-DD"
    try:
        day = date.fromisoformat(text.decode())
    except ValueError:
        return "is a date that does not exist"
    if not FIRST_DAY <= day <= LAST_DAY:
        return f"is not between {FIRST_DAY} and {LAST_DAY}"
    return (day - _POSTGRES_EPOCH).days


def _price(text: bytes) -> int | str:
    found = _PRICE.fullmatch(text)
    if not found:
        return "is not a plain decimal number with at most two decimals"
    cents = int(found[1]) * 100 + int((found[2] or b"").ljust(2, b"0"))
    if not 0 < cents <= HIGHEST_PRICE_CENTS:
        return f"is not above 0 and at most {HIGHEST_PRICE_CENTS // 100} USD"
    return cents
