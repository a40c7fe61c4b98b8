"""Place a user's own rates among the market's prices. Nothing of them is stored."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import orjson

from rates_app.rates.model import average_cents
from rates_app.rates.queries import AVERAGES, SETS, query_parameters
from rates_app.rates.sets import read_set
from rates_app.rates.spread import OrderedPrices

if TYPE_CHECKING:
    from rates_app.rates.model import Question
    from rates_app.store.databases import Connection

#: Maximum number of quotes per request.
MAX_QUOTES = 1000
#: Maximum of a quote in USD: the highest price that a batch may have is of the same order.
MAX_USD = 10_000_000

_CELLS = re.compile(r"[\n\r\t;]+")
_CURRENCY = re.compile(r"USD|US\$|\$|\s|'", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]+([.,][0-9]+)*")
#: A comma or point before three digits at the end separates thousands, unless another one separates decimals.
_THOUSANDS = re.compile(r"[0-9]{1,3}([.,][0-9]{3})+")


class Quote(NamedTuple):
    """A quote as it was typed, and its value in cents; None if it is not a number."""

    text: str
    cents: int | None


class Market(NamedTuple):
    """The prices of a lane in some days.

    Attributes:
        prices: The prices.
        average_cents: Their average.
    """

    prices: OrderedPrices
    average_cents: int

    @classmethod
    def parse(cls, body: bytes) -> Self | None:
        """Read the result of :func:`market_body`; None without prices."""
        found = orjson.loads(body)
        if not found["prices"]:
            return None
        return cls(OrderedPrices(np.array(found["prices"]), np.array(found["ends"])), found["average"])


def market_body(connection: Connection, question: Question) -> bytes:
    """Read the prices of all days of a query as JSON, for :meth:`Market.parse`.

    Args:
        connection: A connection, in a transaction with one snapshot.
        question: The locations, by their exact codes, and the days.
    """
    sums = connection.execute(AVERAGES, query_parameters(question)).fetchall()
    if not sums:
        return orjson.dumps({"prices": [], "ends": [], "average": None})
    # The sums are exact; sets of many prices are rounded.
    count, total = sum(row[1] for row in sums), sum(row[2] for row in sums)
    sets = connection.execute(SETS, query_parameters(question) | {"days": [row[0] for row in sums]}, binary=True)
    merged = OrderedPrices.merge(read_set(*packed) for _, *packed in sets)
    return orjson.dumps(
        {"prices": merged.prices.tolist(), "ends": merged.ends.tolist(), "average": average_cents(total, count)}
    )


def read_quotes(text: str) -> list[Quote]:
    """Read numbers from a text: one per line or cell, with a currency sign, thousands and decimals of any locale.

    Args:
        text: The text as typed or pasted. Cells beyond :data:`MAX_QUOTES` are left out.
    """
    cells = [cell.strip() for cell in _CELLS.split(text) if cell.strip()]
    return [Quote(cell, _cents(cell)) for cell in cells[:MAX_QUOTES]]


def _cents(cell: str) -> int | None:
    number = _CURRENCY.sub("", cell)
    if not number.isascii() or not _NUMBER.fullmatch(number):
        return None
    if _THOUSANDS.fullmatch(number) and len(set(re.findall("[.,]", number))) == 1:
        whole, decimals = number, ""
    else:
        whole, _, decimals = number.replace(",", ".").rpartition(".")
        if not whole:
            whole, decimals = decimals, ""
    digits = re.sub("[.,]", "", whole)
    if len(digits) > len(str(MAX_USD)) or int(digits) > MAX_USD:
        return None
    return int(digits) * 100 + int(f"{decimals}00"[:2])
