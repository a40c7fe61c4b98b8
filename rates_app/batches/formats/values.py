"""Read one value: a day, a price or a port's code, in the canonical form or in one that people's tools write.

A value in another form has *readings*, one for each date order or decimal sign under which it makes sense. Where they
differ, only the rest of the file (``survey.py``) or the supplier's profile can decide. Nothing is guessed.
"""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Literal
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Mapping

DateOrder = Literal["dmy", "mdy", "ymd"]
DecimalSign = Literal[".", ","]

#: Maximum price of one container in cents: a million USD. The minimum is one cent.
MAX_PRICE_CENTS = 100_000_000

#: Days outside of this range are typing errors.
MIN_DAY, MAX_DAY = date(1970, 1, 1), date(2099, 12, 31)

#: PostgreSQL counts days from here in its binary format.
POSTGRES_EPOCH = date(2000, 1, 1)

#: The key of a reading that depends on nothing else in the file.
CERTAIN = ""

NOT_A_DAY = "is not a date of the form YYYY-MM-DD"
NOT_A_PRICE = "is not a plain decimal number with at most two decimals"

_TWO_DIGITS = f"{NOT_A_DAY}: write the year with four digits, or set date_order in the supplier's profile"

#: Texts that programs write for a missing value.
_NO_VALUES = frozenset({b"\\N", b"NULL", b"NAN", b"NONE", b"N/A", b"#N/A", b"NA", b"-"})

#: Day 0 of Excel's numbers of days, from March 1900 on.
_SPREADSHEET_EPOCH = date(1899, 12, 30)

ORDER_NAMES: Mapping[str, str] = {"dmy": "day first", "mdy": "month first", "ymd": "year first"}
SIGN_NAMES: Mapping[str, str] = {".": "a decimal point", ",": "a decimal comma"}

#: The results of a survey of values in another form.
Assumption = Literal["blanks", "codes", "dates", "midnight", "time zone", "grouping", "currency"]


@dataclass(frozen=True, slots=True)
class Reading:
    """How a file's values are read, beyond the canonical form."""

    date_order: DateOrder | None = None
    decimal: DecimalSign | None = None
    #: Whether years of two digits are read: only if the supplier's profile states the date order.
    two_digit_years: bool = False
    #: IANA name of the zone whose days the supplier means, for times with an offset.
    time_zone: str | None = None
    #: The supplier's codes of ports, in upper case, and the code of each.
    aliases: Mapping[str, str] = field(default_factory=dict)
    #: Whether the whole file was surveyed. Until then, no value in another form is accepted.
    surveyed: bool = False


@dataclass(frozen=True, slots=True)
class Value:
    """The readings of a value: a number, or the reason why it cannot be accepted."""

    readings: Mapping[str, int | str]
    assumptions: tuple[Assumption, ...] = ()
    #: The digits that were read, to describe a reading that has no number.
    digits: str = ""

    @property
    def plain(self) -> bool:
        """Whether the value needs no assumption: only its digits differ from the canonical form, as in 1244.0000."""
        return not self.assumptions and self.readings.keys() <= {CERTAIN, "."}

    def resolve(self, choice: str | None, names: Mapping[str, str], fault: str) -> int | str:
        """Choose a reading.

        Args:
            choice: The date order or decimal sign of the file, if it is known.
            names: What to call each choice.
            fault: The reason if the value has no reading.

        Returns:
            The number, or the reason why there is none.
        """
        if CERTAIN in self.readings:
            return self.readings[CERTAIN]
        if choice is not None and choice in self.readings:
            return self.readings[choice]
        if not self.readings:
            return fault
        if choice is not None:
            return f"{fault}, nor one with {names[choice]}"
        if len(set(self.readings.values())) == 1:
            return next(iter(self.readings.values()))
        return f"{fault}: is it {self.describe(names)}?"

    def describe(self, names: Mapping[str, str]) -> str:
        """Return every reading with its name, for a message."""
        return " or ".join(f"{self._number(key)} ({names[key]})" for key in self.readings)

    def _number(self, key: str) -> str:
        number = self.readings[key]
        if isinstance(number, str):
            return self.digits.replace(key, ".") if key in SIGN_NAMES else "a date out of range"
        if key in ORDER_NAMES:
            return date.fromordinal(POSTGRES_EPOCH.toordinal() + number).isoformat()
        return f"{number // 100}.{number % 100:02}".removesuffix(".00")


def reject(reason: str) -> Value:
    """Return a value that cannot be accepted under any reading."""
    return Value({CERTAIN: reason})


def is_missing(text: bytes) -> bool:
    """Return whether a value is blank, or a text that programs write for a missing value."""
    return not text or text.isspace() or text.strip().upper() in _NO_VALUES


# Days

_DAY = re.compile(rb"\d{4}-\d{2}-\d{2}", re.ASCII)
_YEAR_FIRST = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})", re.ASCII)
#: ISO 8601 without separators. No other order of days, months and years has a valid date in the same digits.
_DIGITS_ONLY = re.compile(r"((?:19|20)\d{2})(\d{2})(\d{2})", re.ASCII)
_YEAR_LAST = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4}|\d{2})", re.ASCII)
_MONTH_NAMED = (
    re.compile(
        r"(?P<day>\d{1,2})[-/. ]?(?P<month>[a-z]{3,9})[-/., ]{0,2}(?P<year>\d{4}|\d{2})", re.ASCII | re.IGNORECASE
    ),
    re.compile(r"(?P<month>[a-z]{3,9})[-/. ]?(?P<day>\d{1,2}),? (?P<year>\d{4})", re.ASCII | re.IGNORECASE),
)
_TIME = re.compile(
    r"(?P<day>.{6,12}?)[T ]\s?(?P<time>\d{1,2}:\d{2}(:\d{2}(\.\d{1,9})?)?)\s?(?P<half>[AP]M)?"
    r"(?P<zone>Z|UTC|[+-]\d{2}:?\d{2})?",
    re.ASCII | re.IGNORECASE,
)
_MIDNIGHT = re.compile(r"[0:.]+", re.ASCII)
_MONTHS = tuple(calendar.month_name[number].lower() for number in range(1, 13))


def read_iso_day(text: bytes) -> int | str | None:
    """Read a day in the canonical form.

    Returns:
        Days since 2000-01-01, or a reason; None if the value has another form.
    """
    if not _DAY.fullmatch(text):
        return None
    return _day(int(text[:4]), int(text[5:7]), int(text[8:]))


def read_day(text: bytes, reading: Reading) -> Value:
    """Read a day in any other form."""
    decoded = _decode(text)
    if decoded is None:
        return Value({})
    stripped = decoded.strip()
    assumptions: tuple[Assumption, ...] = ("blanks",) if stripped != decoded else ()
    if timed := _TIME.fullmatch(stripped):
        return _read_time(timed, reading, assumptions)
    return _read_date(stripped, reading, assumptions)


def _read_date(text: str, reading: Reading, assumptions: tuple[Assumption, ...]) -> Value:
    if found := _YEAR_FIRST.fullmatch(text):
        day = _day(int(found[1]), int(found[3]), int(found[4]))
        iso = found[2] == "-" and len(text) == len("YYYY-MM-DD")
        return Value({CERTAIN: day}, assumptions if iso else (*assumptions, "dates"))
    if found := _DIGITS_ONLY.fullmatch(text):
        return Value({CERTAIN: _day(*map(int, found.groups()))}, (*assumptions, "dates"))
    if found := _YEAR_LAST.fullmatch(text):
        return _read_year_last(found, reading, (*assumptions, "dates"))
    for pattern in _MONTH_NAMED:
        if found := pattern.fullmatch(text):
            name, year = found["month"].lower(), found["year"]
            month = next((n for n, full in enumerate(_MONTHS, 1) if name in {full, full[:3], full[:4]}), None)
            if month is None:
                break
            if len(year) == 2 and not reading.two_digit_years:  # noqa: PLR2004
                return reject(_TWO_DIGITS)
            return Value({CERTAIN: _day(_year(year), month, int(found["day"]))}, (*assumptions, "dates"))
    return _read_day_number(text)


def _read_day_number(text: str) -> Value:
    """Explain the numbers that programs write for days. None is accepted: programs count from different days."""
    if re.fullmatch(r"\d{5}(\.0+)?", text, re.ASCII):
        day = date.fromordinal(_SPREADSHEET_EPOCH.toordinal() + int(text[:5]))
        if MIN_DAY <= day <= MAX_DAY:
            return reject(f"is a number, perhaps a spreadsheet's for {day}: format the column as dates, as YYYY-MM-DD")
    if re.fullmatch(r"\d{10}|\d{13}", text, re.ASCII):
        day = datetime.fromtimestamp(int(text[:10]), UTC).date()
        return reject(f"is a number, perhaps the Unix time of {day}: write days as YYYY-MM-DD")
    return Value({})


def _read_year_last(found: re.Match[str], reading: Reading, assumptions: tuple[Assumption, ...]) -> Value:
    first, second, last = int(found[1]), int(found[3]), found[4]
    if len(last) == 2 and not reading.two_digit_years:  # noqa: PLR2004
        return reject(_TWO_DIGITS)
    orders = {"dmy": (_year(last), second, first), "mdy": (_year(last), first, second)}
    if len(last) == 2:  # noqa: PLR2004
        orders["ymd"] = (2000 + first, second, int(last))
    days = {order: _day(*parts) for order, parts in orders.items() if _exists(*parts)}
    return Value(days, assumptions) if days else reject("is a date that does not exist")


def _read_time(timed: re.Match[str], reading: Reading, assumptions: tuple[Assumption, ...]) -> Value:
    value = _read_date(timed["day"].rstrip(), reading, assumptions)
    zone = timed["zone"]
    if zone in {None, "Z", "UTC", "+00:00", "+0000", "-00:00", "-0000"} and not (zone and reading.time_zone):
        if not _is_midnight(timed["time"], timed["half"]):
            return reject("has a time of day: deliver the day alone, as YYYY-MM-DD") if value.readings else value
        return Value(value.readings, (*value.assumptions, "midnight"))
    if reading.time_zone is None or timed["half"]:
        return reject("has a UTC offset, and its day depends on the time zone: deliver the day alone, as YYYY-MM-DD")
    try:
        moment = datetime.fromisoformat(f"{timed['day']}T{timed['time']}{zone or ''}".upper().replace("UTC", "Z"))
        local = moment.astimezone(ZoneInfo(reading.time_zone))
    except (ValueError, OverflowError):
        return Value({})
    if (local.hour, local.minute, local.second, local.microsecond) != (0, 0, 0, 0):
        return reject(f"is not midnight in {reading.time_zone}: deliver the day alone, as YYYY-MM-DD")
    return Value({CERTAIN: _day(local.year, local.month, local.day)}, (*assumptions, "time zone"))


def _is_midnight(time: str, half: str | None) -> bool:
    if half:
        return half.upper() == "AM" and time.startswith("12") and _MIDNIGHT.fullmatch(time[2:]) is not None
    return _MIDNIGHT.fullmatch(time) is not None


def _exists(year: int, month: int, day: int) -> bool:
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True


def _day(year: int, month: int, day: int) -> int | str:
    try:
        found = date(year, month, day)
    except ValueError:
        return "is a date that does not exist"
    if not MIN_DAY <= found <= MAX_DAY:
        return f"is not between {MIN_DAY} and {MAX_DAY}"
    return (found - POSTGRES_EPOCH).days


def _year(text: str) -> int:
    return int(text) if len(text) == 4 else 2000 + int(text)  # noqa: PLR2004


# Prices

_PRICE = re.compile(rb"(\d{1,9})(?:\.(\d{1,2}))?", re.ASCII)
_NUMBER = r"(?P<number>[0-9.,'\u2019\s]*[0-9])"
_DOLLARS = r"US\$|USD|\$"
_OTHERS = r"[A-Z]{3}|(?!US\$)[A-Z]{1,3}\$|[€£¥￥₹₩₽₺₪฿₫₦₱¢元円]"
_IN_DOLLARS = re.compile(rf"(?P<before>{_DOLLARS})?\s*{_NUMBER}\s*(?P<after>{_DOLLARS})?", re.IGNORECASE)
_IN_OTHERS = re.compile(rf"(?P<before>{_OTHERS})?\s*{_NUMBER}\s*(?P<after>{_OTHERS})?", re.IGNORECASE)
_ONE_SIGN = re.compile(r"(\d{1,18})([.,])(\d{1,12})", re.ASCII)
_NEGATIVE = re.compile(r"-\s*[\d.,]+|\([\d.,]+\)|[\d.,]*\d-", re.ASCII)
_SCIENTIFIC = re.compile(r"\d+([.,]\d+)?E[+-]?\d+", re.ASCII | re.IGNORECASE)
_GROUPS = re.compile(r"(\d{1,3})(?:([.,])(\d{3}(?:\2\d{3})*))([.,])?(\d{1,12})?", re.ASCII)
#: Blanks, narrow blanks and apostrophes group digits and are never a decimal sign.
_NEUTRAL = re.compile(r"(\d{1,3})(?:([ \u00a0\u2009\u202f'\u2019])(\d{3}(?:\2\d{3})*))([.,]\d{1,12})?", re.ASCII)
_MAX_DIGITS = 9
_OUT_OF_RANGE = f"is not above 0 and at most {MAX_PRICE_CENTS // 100} USD"


def read_plain_price(text: bytes) -> int | str | None:
    """Read a price in the canonical form: digits, with a point before one or two decimals.

    Returns:
        Cents, or a reason; None if the value has another form.
    """
    found = _PRICE.fullmatch(text)
    if not found:
        return None
    cents = int(found[1]) * 100 + int((found[2] or b"").ljust(2, b"0"))
    return cents if 0 < cents <= MAX_PRICE_CENTS else _price(cents)


def read_number(text: bytes) -> int | str:
    """Read the price that a typed column or a JSON number holds: its point is always a decimal point."""
    plain = read_plain_price(text)
    if plain is not None:
        return plain
    decoded = text.decode("ascii", "replace")
    if _NEGATIVE.fullmatch(decoded):
        return _OUT_OF_RANGE
    found = _ONE_SIGN.fullmatch(decoded)
    return _decimal(found[1], found[3]) if found and found[2] == "." else NOT_A_PRICE


def read_price(text: bytes) -> Value:
    """Read a price in any other form."""
    decoded = _decode(text)
    if decoded is None:
        return Value({})
    stripped = decoded.strip()
    assumptions: list[Assumption] = ["blanks"] if stripped != decoded else []
    found = _IN_DOLLARS.fullmatch(stripped)
    if not found:
        foreign = _IN_OTHERS.fullmatch(stripped)
        if currency := foreign and (foreign["before"] or foreign["after"]):
            return reject(f"is in {currency}: prices are in USD")
        if _NEGATIVE.fullmatch(stripped):
            return reject(_OUT_OF_RANGE)
        if _SCIENTIFIC.fullmatch(stripped):
            return reject(f"{NOT_A_PRICE}: numbers with an exponent may be rounded")
        return Value({})
    if found["before"] or found["after"]:
        assumptions.append("currency")
    number = found["number"]
    neutral = _NEUTRAL.fullmatch(number)
    if neutral:
        assumptions.append("grouping")
        number = re.sub(r"[^\d.,]", "", number)
    readings = _read_digits(number, grouped=neutral is not None)
    if any(sign != CERTAIN for sign in readings) and _grouped(number):
        assumptions.append("grouping")
    return Value(readings, tuple(assumptions), number)


def _grouped(number: str) -> bool:
    found = _GROUPS.fullmatch(number)
    return found is not None and (found[4] is not None or len(found[3]) > 3)  # noqa: PLR2004


def _read_digits(number: str, *, grouped: bool) -> dict[str, int | str]:
    """Return the price by decimal sign, for digits with points and commas."""
    if number.isdecimal():
        return {CERTAIN: _decimal(number, "")}
    if found := _ONE_SIGN.fullmatch(number):
        whole, sign, decimals = found.groups()
        readings: dict[str, int | str] = {sign: _decimal(whole, decimals)}
        if len(decimals) == 3 and len(whole) <= 3 and whole[0] != "0" and not grouped:  # noqa: PLR2004
            readings[_other(sign)] = _decimal(whole + decimals, "")
        return readings
    if (found := _GROUPS.fullmatch(number)) and not grouped:
        first, separator, groups, sign, decimals = found.groups()
        if (sign is None) == (decimals is None) and sign != separator and first[0] != "0":
            whole = first + groups.replace(separator, "")
            return {_other(separator): _decimal(whole, decimals or "")}
    return {}


def _other(sign: str) -> str:
    return "," if sign == "." else "."


def _decimal(whole: str, decimals: str) -> int | str:
    whole, decimals = whole.lstrip("0") or "0", decimals.rstrip("0")
    if len(decimals) > 2 or len(whole) > _MAX_DIGITS:  # noqa: PLR2004
        return NOT_A_PRICE
    return _price(int(whole) * 100 + int(decimals.ljust(2, "0")))


def _price(cents: int) -> int | str:
    if not 0 < cents <= MAX_PRICE_CENTS:
        return _OUT_OF_RANGE
    return cents


# Codes

_CODE = re.compile(r"[A-Z]{2}\s?[A-Z0-9]{3}", re.ASCII)


def read_code(text: bytes) -> bytes | None:
    """Return the UN/LOCODE that a value in lower case, or with blanks around or inside it, stands for."""
    decoded = _decode(text)
    if decoded is None:
        return None
    code = decoded.strip().upper()
    return re.sub(r"\s", "", code).encode() if decoded.strip().isascii() and _CODE.fullmatch(code) else None


def _decode(text: bytes) -> str | None:
    """Return a value as text, or None if it is longer than any value in any form, or not UTF-8."""
    try:
        return text.decode() if len(text) <= 64 else None  # noqa: PLR2004
    except UnicodeDecodeError:
        return None
