"""The rates page: search, and the answer as a figure, key figures and a table; the figure as a picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import orjson
from flask import Response, render_template, request

from rates_app.http.responses import answer_question
from rates_app.http.service import service
from rates_app.rates.explore import priced_days, region_lanes
from rates_app.rates.locations import Location, search_locations
from rates_app.rates.model import MAX_CODE, Interval, Question, Rate
from rates_app.rates.queries import daily_averages, rates
from rates_app.web.chart import Chart, draw
from rates_app.web.rendering import DIGEST, cached_page, views
from rates_app.web.search import INTERVALS, MAX_LANES, SPANS, Search, label, resolve

if TYPE_CHECKING:
    from rates_app.rates.model import DayAverage
    from rates_app.store.databases import Connection

REGIONAL = 12
#: Locations that browsers offer without JavaScript.
OFFERED = 500
SUGGESTIONS = 8
DEFAULT_DAYS = 30
#: A change is told against a rate that is at most so much older than a week or a month.
SLACK_DAYS = 3
MONTH_DAYS = 30


@dataclass(frozen=True, slots=True)
class Figures:
    """What matters most about a lane: its newest rate and how that came about."""

    latest: Rate
    rated: int
    intervals: int
    prices: int
    day: date | None
    week: float | None
    month: float | None


@dataclass(frozen=True, slots=True)
class LaneRates:
    """A lane's answer."""

    origin: Location
    destination: Location
    rates: list[Rate]
    figures: Figures | None
    #: The days that have prices, whatever was asked for.
    priced: tuple[date, date] | None
    query: str

    @property
    def name(self) -> str:
        """The lane in words."""
        return f"{self.origin.name} → {self.destination.name}"


class _Misunderstood(Exception):
    """The question cannot be answered; the message is a sentence for the reader."""


@views.get("/")
def rates_page() -> Response:
    """Search, and the answer to it."""
    search = Search.parse(request.args)
    # The address to give to curl is the one that the reader has; a page of one host must not be given to another.
    base = request.url_root.rstrip("/")

    def values(connection: Connection) -> dict[str, Any]:
        return _answer(connection, search) | {
            "base": base,
            "intervals": INTERVALS,
            "spans": SPANS,
            "max_lanes": MAX_LANES,
            "offered": [label(place) for place in search_locations(connection, "", OFFERED)],
        }

    response = cached_page("rates.html", [base, *_key(search)], values)
    request.environ.pop("rates.kept", None)  # the nearest cache does not tell hosts apart
    return response


@views.get("/rates.svg")
def picture() -> Response:
    """Give the figure as a picture to take along."""
    search = Search.parse(request.args)

    def render(connection: Connection) -> bytes:
        return render_template("picture.svg", **_answer(connection, search)).encode()

    question = orjson.dumps(["picture", DIGEST, *_key(search)]).decode()
    response = answer_question(question, "image/svg+xml; charset=utf-8", render)
    response.headers["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'"
    return response


@views.get("/locations/options")
def location_options() -> Response:
    """Give the locations that match what is being typed, as options of a list."""
    text = request.args.get("q", "").replace("\0", "").strip()[:MAX_CODE]

    def values(connection: Connection) -> dict[str, Any]:
        return {"places": [(place, label(place)) for place in search_locations(connection, text, SUGGESTIONS)]}

    return cached_page("options.html", [text], values)


def _key(search: Search) -> list[object]:
    return [search.lanes, search.date_from, search.date_to, search.interval, search.span]


def _answer(connection: Connection, search: Search) -> dict[str, Any]:
    rows = search.lanes or (("", ""),)
    if not search.asked:
        return {"search": search, "rows": rows, "regional": region_lanes(connection, REGIONAL)}
    texts = [text for lane in search.lanes for text in lane if text]
    known = resolve(connection, texts)
    shown = {text: label(place) for text, place in known.items()}
    rows = tuple((shown.get(origin, origin), shown.get(destination, destination)) for origin, destination in rows)
    values: dict[str, Any] = {"search": search, "rows": rows}
    suggestions = {
        text: _suggest(search, text, search_locations(connection, text, 5)) for text in texts if text not in known
    }
    if suggestions:
        return values | {"problems": (), "suggestions": suggestions}
    try:
        interval = _interval(search)
        chosen = _chosen(search, known)
        priced = [priced_days(connection, origin.code, destination.code) for origin, destination in chosen]
        first, last = _days(search, [days for days in priced if days])
    except _Misunderstood as misunderstood:
        return values | {"problems": misunderstood.args, "suggestions": {}}
    asked = replace(
        search,
        lanes=tuple((origin.code, destination.code) for origin, destination in chosen),
        date_from=first.isoformat(),
        date_to=last.isoformat(),
    )
    answers = [_lane(connection, asked, interval, places, days) for places, days in zip(chosen, priced, strict=True)]
    return values | {"search": asked, "answers": answers, "chart": _chart(answers)}


def _interval(search: Search) -> Interval:
    for interval in INTERVALS:
        if interval == search.interval:
            return interval
    raise _Misunderstood("A row stands for a day, a week or a month; choose one of them.")


def _chosen(search: Search, places: dict[str, Location]) -> list[tuple[Location, Location]]:
    chosen = []
    for origin, destination in search.lanes:
        if not origin and not destination:
            continue  # a row that was added to be filled in
        if not origin or not destination:
            missing, given = ("from", destination) if not origin else ("to", origin)
            raise _Misunderstood(f"Choose where the lane with {places[given].name} goes {missing}.")
        chosen.append((places[origin], places[destination]))
    return chosen


def _suggest(search: Search, text: str, found: list[Location]) -> list[tuple[str, str]]:
    """Offer what somebody may have meant, as links that ask with it instead."""
    return [
        (
            label(place),
            replace(
                search,
                lanes=tuple(
                    tuple(place.code if part == text else part for part in lane)  # type: ignore[misc]
                    for lane in search.lanes
                ),
            ).address(),
        )
        for place in found
    ]


def _days(search: Search, priced: list[tuple[date, date]]) -> tuple[date, date]:
    """Settle on the days: as asked for, or the last ones that have prices."""
    earliest = min((first for first, _ in priced), default=None)
    latest = max((last for _, last in priced), default=date.today())  # noqa: DTZ011 - no lane has a zone
    if search.span:
        span = int(search.span)
        first = latest - timedelta(days=span - 1) if span else earliest or latest
        return max(first, latest - timedelta(days=service().settings.max_range_days - 1)), latest
    last = _day(search.date_to) or latest
    try:
        first = _day(search.date_from) or last - timedelta(days=DEFAULT_DAYS)
    except OverflowError:
        raise _Misunderstood("There are no days before the year 1.") from None
    if last < first:
        raise _Misunderstood("The last day is before the first: swap the two dates.")
    if (last - first).days >= (most := service().settings.max_range_days):
        raise _Misunderstood(f"That is {(last - first).days + 1:,} days; ask for at most {most:,}.")
    return first, last


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise _Misunderstood(f"“{text[:20]}” is not a day; write it as 2021-01-31.") from None


def _lane(
    connection: Connection,
    asked: Search,
    interval: Interval,
    places: tuple[Location, Location],
    priced: tuple[date, date] | None,
) -> LaneRates:
    origin, destination = places
    question = Question(
        origin.code, destination.code, date.fromisoformat(asked.date_from), date.fromisoformat(asked.date_to)
    )
    found = rates(connection, question, interval)
    query = urlencode(
        {
            "origin": origin.code,
            "destination": destination.code,
            "date_from": asked.date_from,
            "date_to": asked.date_to,
            "interval": asked.interval,
        }
    )
    figures = _figures(connection, question, found, interval)
    return LaneRates(origin, destination, found, figures, priced, query)


def _figures(connection: Connection, question: Question, found: list[Rate], interval: Interval) -> Figures | None:
    rated = [rate for rate in found if rate.average is not None]
    if not rated:
        return None
    latest = rated[-1]
    before = latest.date_from - timedelta(days=MONTH_DAYS + SLACK_DAYS)
    # Changes are told from day to day, whatever a row stands for: an interval that is cut off compares with nothing.
    daily = daily_averages(connection, replace(question, date_from=before, date_to=latest.date_to))
    known = [day for day in daily if day.price is not None]
    return Figures(
        latest,
        len(rated),
        len(found),
        sum(rate.count for rate in found),
        known[0].day if known and interval != "day" else None,
        _change(known, 7),
        _change(known, MONTH_DAYS),
    )


def _change(known: list[DayAverage], days: int) -> float | None:
    """Compare the newest day's average with that of the given number of days before, or shortly before that."""
    if not known:
        return None
    newest = known[0]
    oldest, youngest = newest.day - timedelta(days=days + SLACK_DAYS), newest.day - timedelta(days=days)
    earlier = next((day for day in known if oldest <= day.day <= youngest), None)
    return newest.price / earlier.price - 1 if earlier and earlier.price and newest.price else None


def _chart(answers: list[LaneRates]) -> Chart | None:
    return draw([(answer.name, answer.rates) for answer in answers]) if answers else None
