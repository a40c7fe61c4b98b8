"""Find out how a file's values are written, before its rows are staged.

A file in the canonical form is sampled only, which costs a few milliseconds. A value in another form makes the survey
read the whole file, because one value may be ambiguous while another is not. A worker that finds such a value after the
survey of a sample stops with :class:`SurveyRequired`. So the evidence of the whole file determines each reading.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rates_app.batches.formats.base import shown
from rates_app.batches.formats.values import (
    CERTAIN,
    ORDER_NAMES,
    SIGN_NAMES,
    Assumption,
    is_missing,
    read_code,
    read_day,
    read_iso_day,
    read_plain_price,
    read_price,
)
from rates_app.batches.model import BatchError, Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import pyarrow as pa

    from rates_app.batches.formats.base import FileFormat, Rows
    from rates_app.batches.formats.layout import Layout
    from rates_app.batches.formats.values import Reading, Value

_SENTENCES: Mapping[Assumption, str] = {
    "blanks": "Blanks around values were ignored, as around {}.",
    "codes": "Codes in lower case or with blanks were read as codes, such as {}.",
    "dates": "Dates in other forms were read, such as {}.",
    "midnight": "Times at midnight were read as days, such as {}.",
    "time zone": "Times with a UTC offset were read as days in the profile's time zone, such as {}.",
    "grouping": "Thousands separators in prices were ignored, such as in {}.",
    "currency": "The currency of prices was read as USD, such as in {}.",
}


class SurveyRequired(BatchError):
    """A worker met a value in another form in a file of which only a sample was surveyed."""


class Example(NamedTuple):
    """A value, and the line it is on."""

    value: bytes
    line: int

    def __str__(self) -> str:
        return f"{shown(self.value)!r} on line {self.line}"


@dataclass
class _Evidence:
    """The evidence of one column's values for a choice: the order of dates, or the decimal sign."""

    #: Whether a value is in the canonical form.
    canonical: bool = False
    #: By choice, the first value that has no other reading.
    decisive: dict[str, Example] = field(default_factory=dict)
    #: The first values that have several readings, by their form and readings.
    open: dict[tuple[str, str], tuple[Example, Value]] = field(default_factory=dict)
    #: Forms of the values that have no other reading.
    decided: set[str] = field(default_factory=set)

    def add(self, value: Value, example: Example, form: str = "") -> None:
        """Take a value. Values of one form, such as dates with slashes, are assumed to be written in one way."""
        readings = value.readings
        if not readings or CERTAIN in readings:
            return
        if len(readings) == 1:
            self.decisive.setdefault(next(iter(readings)), example)
            self.decided.add(form)
        elif len(set(readings.values())) > 1:
            self.open.setdefault((form, "".join(readings)), (example, value))

    def decide(self, subject: str, setting: str, names: Mapping[str, str]) -> str | None:
        """Return the choice that all values agree with, or None if it makes no difference.

        Raises:
            Unreadable: Values contradict each other, or none of them decides.
        """
        if len(self.decisive) > 1:
            both = " and ".join(f"{example} has {names[choice]}" for choice, example in self.decisive.items())
            raise Unreadable(
                f"{subject} are written in two ways: {both}. Write them in one way, or set {setting} in the "
                "supplier's profile"
            )
        undecided = [each for (form, _), each in self.open.items() if form not in self.decided]
        if undecided and (self.decisive or not self.canonical):
            listed = "; ".join(f"{example} is {value.describe(names)}" for example, value in undecided)
            other = "no other value of that form" if self.decisive else "no other value in the file"
            raise Unreadable(
                f"{subject} are ambiguous: {listed}, and {other} decides. Write days as YYYY-MM-DD "
                f"and prices as 1234.50, or set {setting} in the supplier's profile"
            )
        return next(iter(self.decisive), None)


class Survey:
    """Collects evidence from the rows of a file.

    Args:
        reading: The reading that the supplier's profile determines.
        header_lines: Lines before the first row.
    """

    def __init__(self, reading: Reading, header_lines: int) -> None:
        self._reading = reading
        self._header_lines = header_lines
        self._lines = 0
        self._dates = _Evidence()
        self._signs = _Evidence()
        self._assumed: dict[Assumption, Example] = {}
        #: Whether every value so far is in the canonical form.
        self.plain = True

    def add(self, rows: Rows) -> None:
        """Take the next rows."""
        origins, destinations, days, prices = rows.columns
        self._each(rows, origins, self._add_code)
        self._each(rows, destinations, self._add_code)
        self._each(rows, days, self._add_day)
        texts = None if rows.numbers is None else ~rows.numbers
        self._each(rows, prices, self._add_price, texts)

    def _each(
        self,
        rows: Rows,
        column: pa.Array[Any],
        add: Callable[[bytes, Callable[[], Example]], None],
        where: np.ndarray[Any, np.dtype[np.bool_]] | None = None,
    ) -> None:
        """Pass on each distinct value of a column."""
        lines = rows.lines
        if where is not None:
            if not where.any():
                return
            column, lines = column.filter(where), lines[where]
        encoded: Any = column.dictionary_encode()
        indices: Any = encoded.indices

        def example_at(number: int, value: bytes) -> Example:
            index = int(np.flatnonzero(indices.fill_null(-1).to_numpy(zero_copy_only=False) == number)[0])
            return Example(value, int(lines[index]) + self._header_lines)

        for number, value in enumerate(encoded.dictionary.to_pylist()):
            if value and not is_missing(value):
                add(value, lambda number=number, value=value: example_at(number, value))  # type: ignore[misc]

    def _add_code(self, text: bytes, example: Callable[[], Example]) -> None:
        if "codes" not in self._assumed and (code := read_code(text)) is not None and code != text:
            self._assume(("codes",), example)

    def _add_day(self, text: bytes, example: Callable[[], Example]) -> None:
        if read_iso_day(text) is not None:
            self._dates.canonical = True
            return
        value = read_day(text, self._reading)
        if value.readings:
            self._dates.add(value, example(), next(filter(text.decode().__contains__, "/-."), ""))
            self._assume(value.assumptions, example)

    def _add_price(self, text: bytes, example: Callable[[], Example]) -> None:
        if read_plain_price(text) is not None:
            self._signs.canonical = True
            if b"." in text and "." not in self._signs.decisive:
                self._signs.decisive["."] = example()
                self._signs.decided.add("")
            return
        value = read_price(text)
        if not value.readings:
            return
        self._signs.add(value, example())
        self._assume(value.assumptions, example)
        self.plain = self.plain and value.plain

    def _assume(self, assumptions: Iterable[Assumption], example: Callable[[], Example]) -> None:
        for assumption in assumptions:
            self.plain = False
            if assumption not in self._assumed:
                self._assumed[assumption] = example()

    def conclude(self, layout: Layout) -> Layout:
        """Return the layout with the reading that the whole file determines.

        Raises:
            Unreadable: The values leave open how they are read, or contradict each other.
        """
        order: Any = self._reading.date_order or self._dates.decide("dates", "date_order", ORDER_NAMES)
        sign: Any = self._reading.decimal or self._signs.decide("prices", "decimal", SIGN_NAMES)
        sentences = [_SENTENCES[assumption].format(example) for assumption, example in self._assumed.items()]
        if not self._reading.date_order and order:
            sentences.append(f"Dates are {ORDER_NAMES[order]}, because of {self._dates.decisive[order]}.")
        if not self._reading.decimal and sign and (sign != "." or self._signs.open):
            sentences.append(f"Prices have {SIGN_NAMES[sign]}, because of {self._signs.decisive[sign]}.")
        reading = replace(self._reading, date_order=order, decimal=sign, surveyed=True)
        return replace(layout, reading=reading).assuming(*sentences)


def survey_sample(file_format: FileFormat, uri: str, layout: Layout) -> Layout:
    """Survey the first rows of a file, and the whole file if they are not all in the canonical form.

    Raises:
        Unreadable: As :meth:`Survey.conclude`.
    """
    sample = Survey(layout.reading, layout.header_lines)
    for rows in file_format.sample(uri, layout):
        sample.add(rows)
    return layout if sample.plain else survey_file(file_format, uri, layout)


def survey_file(file_format: FileFormat, uri: str, layout: Layout) -> Layout:
    """Survey a whole file.

    Raises:
        Unreadable: As :meth:`Survey.conclude`.
    """
    survey = Survey(layout.reading, layout.header_lines)
    for rows in file_format.read_all(uri, layout):
        survey.add(rows)
    return survey.conclude(layout)
