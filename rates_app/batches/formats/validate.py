"""Judge every value of every row: known ports, real dates, positive bounded prices.

Values repeat (a few ports, days and prices make up most batches), so each distinct value is judged once and rows
look their verdict up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rates_app.batches.formats import base
from rates_app.batches.formats.base import shown
from rates_app.batches.formats.suggest import Suggestions
from rates_app.batches.formats.survey import SurveyRequired
from rates_app.batches.formats.values import (
    NOT_A_DAY,
    NOT_A_PRICE,
    ORDER_NAMES,
    SIGN_NAMES,
    Reading,
    Value,
    is_missing,
    read_code,
    read_day,
    read_iso_day,
    read_number,
    read_plain_price,
    read_price,
)
from rates_app.batches.model import COLUMNS, Reject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

    from rates_app.batches.formats.base import Rows

#: Represents "invalid" where valid values are numbers.
_INVALID = np.iinfo(np.int32).min

#: Unknown codes for which a worker looks for the nearest known one.
_MAX_SUGGESTIONS = 200

#: Longer values are no mistyped code: sentences, for example.
_MAX_CODE_CHARACTERS = 2 * len("CNSGH")

_DOLLARS = frozenset({b"USD", b"US$", b"$"})


class Port(NamedTuple):
    """A known port."""

    code: str
    id: int
    name: str


class Prices(NamedTuple):
    """Valid prices, column by column: location ids, days since 2000-01-01, cents."""

    origin_ids: NDArray[np.int32]
    destination_ids: NDArray[np.int32]
    days: NDArray[np.int32]
    cents: NDArray[np.int32]


class Verdict(NamedTuple):
    """The result of validating a chunk of rows."""

    prices: Prices
    #: A reject for each invalid value of each invalid row, in the order of the columns; a bounded number of them.
    rejects: list[Reject]
    #: Number of invalid rows.
    invalid: int


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
        ports: Every known port.
        regions: The slugs of regions, to report a region as such where a port is required.
        reading: How values in other forms than the canonical one are read.
    """

    def __init__(self, ports: Iterable[Port], regions: frozenset[str], reading: Reading | None = None) -> None:
        self._reading = reading or Reading()
        names = {port.code: port.name for port in ports}
        self._ports = {port.code.encode(): port.id for port in ports}
        self._ports |= {
            alias.encode(): self._ports[code.encode()]
            for alias, code in self._reading.aliases.items()
            if code.encode() in self._ports
        }
        self._regions = {slug.encode() for slug in regions}
        self._suggestions = Suggestions(names)
        self._suggested = 0

    def validate(self, rows: Rows) -> Verdict:
        """Separate valid rows from invalid ones.

        Raises:
            SurveyRequired: A value is in another form than the canonical one, and the file has not been surveyed.
        """
        rejects: list[Reject] = []
        valid = np.ones(len(rows.lines), dtype=bool)
        columns = []
        for name, judged in (
            (COLUMNS[0], _judge(rows.columns[0], self._port)),
            (COLUMNS[1], _judge(rows.columns[1], self._port)),
            (COLUMNS[2], _judge(rows.columns[2], self._day)),
            (COLUMNS[3], self._judge_prices(rows)),
        ):
            columns.append(judged.numbers)
            self._collect(rows, name, judged, valid, rejects)
        if rows.currency is not None:
            self._collect(rows, "currency", _judge(rows.currency, _currency), valid, rejects)
        invalid = len(valid) - int(np.count_nonzero(valid))
        if invalid:
            columns = [column[valid] for column in columns]
        return Verdict(Prices(*columns), rejects, invalid)

    def _collect(self, rows: Rows, name: str, judged: _Judged, valid: NDArray[np.bool_], rejects: list[Reject]) -> None:
        """Remove the rows with an invalid value in a column, and list these values."""
        bad = judged.numbers == _INVALID
        if not bad.any():
            return
        valid &= ~bad
        room = base.MAX_CHUNK_REJECTS - len(rejects)
        for index in np.flatnonzero(bad)[: max(room, 0)]:
            value = judged.column[int(index)].as_py()
            reason = judged.reasons[value] if value else "is missing"
            rejects.append(Reject(int(rows.lines[index]), name, reason, shown(value)))

    def _judge_prices(self, rows: Rows) -> _Judged:
        """Judge numbers and texts apart: the point of a number is a decimal point, that of a text may be another."""
        column, numbers = rows.columns[3], rows.numbers
        if numbers is None or not numbers.any():
            return _judge(column, self._price)
        typed = _judge(column, read_number)
        if numbers.all():
            return typed
        text = _judge(column, self._price)
        merged = np.where(numbers, typed.numbers, text.numbers)
        return _Judged(column, merged, {**typed.reasons, **text.reasons})

    def _port(self, text: bytes) -> int | str:
        found = self._ports.get(text)
        if found is not None:
            return found
        if text in self._regions:
            return "is a region: prices are between ports"
        code = read_code(text) or text.decode("utf-8", "replace").strip().upper().encode()
        found = self._ports.get(code)
        if found is None:
            return self._unknown(text)
        self._require_survey(code != text)
        return found

    def _unknown(self, text: bytes) -> str:
        reason = "is not a known port"
        code = text.decode("utf-8", "replace")
        blanks = "".join("␣" if c.isspace() else c for c in code)
        if blanks != code and len(code) <= _MAX_CODE_CHARACTERS:
            reason += f" (with its blanks: {shown(blanks)})"
        alias = self._reading.aliases.get(code.strip().upper())
        if alias is not None:
            return f"{reason}: the supplier's profile has it as an alias of {alias}, which is not known either"
        if len(code) > _MAX_CODE_CHARACTERS or self._suggested >= _MAX_SUGGESTIONS:
            return reason
        self._suggested += 1
        nearest = self._suggestions.nearest("".join(code.split()).upper())
        return f"{reason}: did you mean {nearest}?" if nearest else reason

    def _day(self, text: bytes) -> int | str:
        found = read_iso_day(text)
        if found is not None:
            return found
        value = read_day(text, self._reading)
        return self._resolve(value, self._reading.date_order, ORDER_NAMES, NOT_A_DAY)

    def _price(self, text: bytes) -> int | str:
        found = read_plain_price(text)
        if found is not None:
            return found
        return self._resolve(read_price(text), self._reading.decimal, SIGN_NAMES, NOT_A_PRICE)

    def _resolve(self, value: Value, choice: str | None, names: Mapping[str, str], fault: str) -> int | str:
        self._require_survey(not value.plain)
        return value.resolve(choice, names, fault)

    def _require_survey(self, assuming: bool) -> None:
        if assuming and not self._reading.surveyed:
            raise SurveyRequired("a value is in another form than the canonical one: survey the file")


class _Judged(NamedTuple):
    """The verdicts on a column: a number for each row, and the reasons for those that have none."""

    column: pa.Array[Any]
    numbers: NDArray[np.int32]
    reasons: dict[bytes, str]


def _judge(column: pa.Array[Any], judge: Callable[[bytes], int | str]) -> _Judged:
    """Judge each distinct value of a column once."""
    encoded: Any = column.dictionary_encode()  # the stubs mistake it for an array of its values
    verdicts: list[int] = []
    reasons: dict[bytes, str] = {}
    for value in encoded.dictionary.to_pylist():
        verdict = "is missing" if value is None or is_missing(value) else judge(value)
        if isinstance(verdict, str):
            reasons[value] = verdict
            verdict = _INVALID
        verdicts.append(verdict)
    indices = encoded.indices.fill_null(len(verdicts)).to_numpy(zero_copy_only=False)
    return _Judged(column, np.array([*verdicts, _INVALID], dtype=np.int32)[indices], reasons)


def _currency(text: bytes) -> int | str:
    code = text.strip().upper()
    return 0 if code in _DOLLARS else "is another currency than USD: prices are in USD"
