"""Cacheable queries of rates, and their rendered answers.

The canonical form of a query contains everything that its answer depends on except the data. So both the service and
a publisher, which warms the cache, can compute the answer from it.
"""

from __future__ import annotations

import csv
import io
from dataclasses import astuple, dataclass, field, replace
from datetime import date
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import orjson

from rates_app.rates.details import MEMBERS, details
from rates_app.rates.explore import priced_days
from rates_app.rates.locations import Location, resolve_codes, search_locations
from rates_app.rates.model import MAX_CODE, Include, Interval, Question, RangeError
from rates_app.rates.queries import daily_averages, rates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rates_app.rates.model import Rate
    from rates_app.store.databases import Connection

MediaType = Literal["application/json", "text/csv", "application/x-ndjson"]

#: Values of Content-Type. A CSV response declares its header (RFC 4180), which some programs require.
CONTENT_TYPES: dict[MediaType, str] = {
    "application/json": "application/json",
    "text/csv": "text/csv; charset=utf-8; header=present",
    "application/x-ndjson": "application/x-ndjson",
}

COLUMNS = ("date_from", "date_to", "count", "low", "average", "median", "high")
SUGGESTIONS = 3
#: Days of a range without a first day.
DEFAULT_DAYS = 30


class UnknownLocation(Exception):
    """A query names locations that do not exist.

    Attributes:
        unknown: For origin or destination: the unknown code, and similar codes.
    """

    def __init__(self, unknown: dict[str, tuple[str, list[str]]]) -> None:
        super().__init__("unknown location")
        self.unknown = unknown


@dataclass(frozen=True, slots=True)
class RatesQuestion:
    """A query of rates and the format of its answer.

    Attributes:
        question: The locations and days.
        interval: Length of an interval of ``/v1/rates``; None for the averages of ``/rates``.
        media_type: Format of the answer.
        include: Optional members of ``/v1/rates``.
    """

    question: Question
    interval: Interval | None = None
    media_type: MediaType = "application/json"
    include: tuple[Include, ...] = ()

    def canonical(self) -> str:
        """Return the same string for equal queries."""
        asked = self.question
        key = [asked.origin, asked.destination, asked.date_from, asked.date_to, self.interval, self.media_type]
        return orjson.dumps([*key, *self.include]).decode()

    @classmethod
    def parse(cls, canonical: str) -> Self:
        """Read the canonical form.

        Raises:
            ValueError: The text is not a canonical form, or no valid request has it.
        """
        try:
            origin, destination, first, last, interval, media_type, *include = orjson.loads(canonical)
            question = Question(origin, destination, date.fromisoformat(first), date.fromisoformat(last))
        except (TypeError, AttributeError) as error:
            raise ValueError(f"not a query: {canonical[:100]!r}") from error
        for code in (origin, destination):
            if not isinstance(code, str) or not 0 < len(code) <= MAX_CODE or "\0" in code:
                raise ValueError(f"not a location: {code!r:.100}")
        if (interval is not None and interval not in get_args(Interval)) or media_type not in get_args(MediaType):
            raise ValueError(f"unknown interval or media type: {interval!r:.100}, {media_type!r:.100}")
        if any(part not in get_args(Include) for part in include):
            raise ValueError(f"unknown members: {include!r:.100}")
        return cls(question, interval, media_type, tuple(include))

    def render(self, connection: Connection) -> bytes:
        """Compute and render the answer.

        Args:
            connection: A connection, in a transaction with one snapshot.

        Raises:
            UnknownLocation: A location of a query of ``/v1/rates`` does not exist.
            RangeError: There are too many intervals for an included member.
        """
        if self.interval is None:
            days = daily_averages(connection, self.question)
            return orjson.dumps({"rates": [{"count": d.count, "day": d.day, "price": d.price} for d in days]})
        origin, destination = _locations(connection, self.question)
        resolved = replace(self.question, origin=origin.code, destination=destination.code)
        found = rates(connection, resolved, self.interval)
        answer = _Answer(origin, destination, self.interval, found)
        if self.include:
            members, port_pairs = details(connection, resolved, self.interval, self.include)
            answer = replace(answer, members=members, port_pairs=port_pairs, include=self.include)
        return _FORMS[self.media_type](answer)


@dataclass(frozen=True, slots=True)
class OpenRatesQuestion:
    """A query of rates up to the last day that has prices.

    The range is resolved in the snapshot of the answer, so a publication changes it immediately.

    Attributes:
        origin: Code or slug.
        destination: Code or slug.
        date_from: First day, if given.
        date_to: Last day, if given.
        period: Range up to the last day instead of a first day: ``30d`` or ``ytd``.
        interval: Length of an interval.
        media_type: Format of the response.
        max_days: Maximum number of days.
        include: Optional members.
    """

    origin: str
    destination: str
    date_from: date | None
    date_to: date | None
    period: str | None
    interval: Interval
    media_type: MediaType
    max_days: int
    include: tuple[Include, ...] = ()

    def canonical(self) -> str:
        """Return the same string for equal queries."""
        return orjson.dumps(["open", *astuple(self)]).decode()

    def render(self, connection: Connection) -> bytes:
        """Compute and render the answer; without prices and without a last day, it has no intervals.

        Args:
            connection: A connection, in a transaction with one snapshot.

        Raises:
            UnknownLocation: A location does not exist.
            RangeError: The resolved range is empty or too long.
        """
        any_day = date.min
        origin, destination = _locations(connection, Question(self.origin, self.destination, any_day, any_day))
        priced = None if self.date_to else priced_days(connection, origin.code, destination.code)
        last = self.date_to or (priced[1] if priced else None)
        if last is None:
            return _FORMS[self.media_type](_Answer(origin, destination, self.interval, [], include=self.include))
        first = self._first(last)
        days = (last - first).days + 1
        if days < 1:
            raise RangeError(f"is after the last day with prices, {last}")
        if days > self.max_days:
            raise RangeError(f"is {days} days before the last day, {last}; send {self.max_days} days at most")
        question = Question(origin.code, destination.code, first, last)
        return RatesQuestion(question, self.interval, self.media_type, self.include).render(connection)

    def _first(self, last: date) -> date:
        if self.date_from:
            return self.date_from
        if self.period == "ytd":
            return last.replace(month=1, day=1)
        days = int(self.period.removesuffix("d")) if self.period else DEFAULT_DAYS
        return date.fromordinal(max(last.toordinal() - days + 1, 1))


def find_asked(connection: Connection, asked: dict[str, str]) -> dict[str, Location]:
    """Look up the locations that a query names.

    Args:
        connection: A connection to any server.
        asked: Codes as users enter them, by parameter.

    Returns:
        The location by parameter.

    Raises:
        UnknownLocation: A location does not exist.
    """
    found = resolve_codes(connection, asked.values())
    unknown = {
        role: (code, [near.code for near in search_locations(connection, code, SUGGESTIONS)])
        for role, code in asked.items()
        if code not in found
    }
    if unknown:
        raise UnknownLocation(unknown)
    return {role: found[code] for role, code in asked.items()}


def _locations(connection: Connection, question: Question) -> list[Location]:
    asked = {"origin": question.origin, "destination": question.destination}
    return list(find_asked(connection, asked).values())


@dataclass(frozen=True, slots=True)
class _Answer:
    """Rates and their optional members, before they are rendered."""

    origin: Location
    destination: Location
    interval: Interval
    rates: list[Rate]
    members: dict[date, dict[str, Any]] = field(default_factory=dict)
    port_pairs: int | None = None
    include: tuple[Include, ...] = ()

    @property
    def columns(self) -> list[str]:
        return [*COLUMNS, *(member for part in self.include for member in MEMBERS[part])]

    def records(self) -> Iterator[dict[str, Any]]:
        for rate in self.rates:
            yield {name: getattr(rate, name) for name in COLUMNS} | self.members.get(rate.date_from, {})


def _json(answer: _Answer) -> bytes:
    head: dict[str, Any] = {
        "origin": answer.origin._asdict(),
        "destination": answer.destination._asdict(),
        "currency": "USD",
        "interval": answer.interval,
    }
    if answer.port_pairs is not None:
        head["port_pairs"] = answer.port_pairs
    return orjson.dumps(head | {"rates": list(answer.records()) if answer.include else answer.rates})


def _csv(answer: _Answer) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, answer.columns)  # RFC 4180: lines end with CR LF
    writer.writeheader()
    writer.writerows(answer.records())
    return text.getvalue().encode()


def _ndjson(answer: _Answer) -> bytes:
    lane = {"origin": answer.origin.code, "destination": answer.destination.code, "currency": "USD"}
    return b"".join(orjson.dumps(lane | record) + b"\n" for record in answer.records())


_FORMS: dict[MediaType, Callable[[_Answer], bytes]] = {
    "application/json": _json,
    "text/csv": _csv,
    "application/x-ndjson": _ndjson,
}
