"""The rates page: search form, chart, key figures and table; and the chart as a picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import orjson
from flask import Response, render_template, request

from rates_app.http.exchange import current_exchange
from rates_app.http.responses import answer_question
from rates_app.http.service import service
from rates_app.rates.board import board
from rates_app.rates.changes import Change, changes
from rates_app.rates.composition import Composition, composition
from rates_app.rates.explore import counterparts, priced_days
from rates_app.rates.locations import Location, search_locations
from rates_app.rates.model import MAX_CODE, Interval, Question, Rate
from rates_app.rates.queries import rates
from rates_app.rates.quotes import MAX_QUOTES
from rates_app.web.board import overview
from rates_app.web.chart import draw
from rates_app.web.lane_map import BOARD_LANES, pinned_lanes
from rates_app.web.rendering import DIGEST, cached_page, views
from rates_app.web.search import INTERVALS, MAX_LANES, SPANS, Search, label, resolve

if TYPE_CHECKING:
    from typing import Literal

    from rates_app.rates.queries import Lane
    from rates_app.store.databases import Connection

#: Number of lanes offered for a query with one end only.
COUNTERPARTS = 24
#: Locations that browsers offer without JavaScript.
OFFERED = 500
SUGGESTIONS = 8
DEFAULT_DAYS = 30
#: Longest range whose port pairs the page shows; the API includes them for longer ones on request.
MAX_COMPOSITION_DAYS = 366


@dataclass(frozen=True, slots=True)
class Figures:
    """Key figures of a lane: its latest rate, the changes up to it, and the coverage of the range."""

    latest: Rate
    rated: int
    intervals: int
    prices: int
    changes: list[Change]


@dataclass(frozen=True, slots=True)
class LaneRates:
    """A lane with its rates in the range."""

    origin: Location
    destination: Location
    rates: list[Rate]
    figures: Figures | None
    #: First and last day with prices, inside the range or not.
    priced: tuple[date, date] | None
    #: Whether there are prices in the opposite direction; looked up only if this direction has none.
    reverse_priced: bool
    query: str
    interval: Interval
    #: The port pairs behind the rates, if a location is a region.
    composition: Composition | None = None

    @property
    def prices(self) -> int:
        """Number of prices in the range."""
        return sum(rate.count for rate in self.rates)

    @property
    def range(self) -> Question:
        """The lane and all days of the range."""
        return Question(self.origin.code, self.destination.code, self.rates[0].date_from, self.rates[-1].date_to)

    @property
    def has_port(self) -> bool:
        """Whether a region could be tried instead of one of the locations."""
        return "port" in {self.origin.kind, self.destination.kind}

    @property
    def name(self) -> str:
        """Names of both locations."""
        return f"{self.origin.name} → {self.destination.name}"


class _InvalidSearch(Exception):
    """The query cannot be answered; the message is a sentence for the page."""


class _OneEnded(Exception):
    """A lane has an origin or a destination only.

    Attributes:
        place: The location that is given.
        role: Whether it is the lane's origin or its destination.
    """

    def __init__(self, place: Location, role: Literal["origin", "destination"]) -> None:
        super().__init__(f"Choose {'a destination' if role == 'origin' else 'an origin'} for {place.name}.")
        self.place = place
        self.role = role


@views.get("/")
def rates_page() -> Response:
    """Show the search form and its result."""
    search = Search.parse(request.args)
    # The curl commands on the page contain the host, so a cached page must not be sent for another host.
    base = request.url_root.rstrip("/")

    def values(connection: Connection) -> dict[str, Any]:
        return _answer(connection, search) | {
            "base": base,
            "intervals": INTERVALS,
            "spans": SPANS,
            "max_lanes": MAX_LANES,
            "max_quotes": MAX_QUOTES,
            "offered": [label(place) for place in search_locations(connection, "", OFFERED)],
        }

    # The board says how old its prices are.
    key = [base, *search_key(search)] if search.asked else [base, _today(), service().settings.board_lanes]
    response = cached_page("rates.html", key, values)
    current_exchange().cacheable = None  # the key of the process cache has no host
    return response


@views.get("/rates.svg")
def picture() -> Response:
    """Return the chart as an SVG picture."""
    search = Search.parse(request.args)

    def render(connection: Connection) -> bytes:
        return render_template("picture.svg", **_answer(connection, search)).encode()

    question = orjson.dumps(["picture", DIGEST, *search_key(search)]).decode()
    response = answer_question(question, "image/svg+xml; charset=utf-8", render)
    response.headers["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'"
    return response


@views.get("/locations/options")
def location_options() -> Response:
    """Return the locations that match the typed text, as options of a list box."""
    text = request.args.get("q", "").replace("\0", "").strip()[:MAX_CODE]

    def values(connection: Connection) -> dict[str, Any]:
        return {"places": [(place, label(place)) for place in search_locations(connection, text, SUGGESTIONS)]}

    return cached_page("options.html", [text], values)


def _today() -> date:
    return datetime.now(UTC).date()


def search_key(search: Search) -> list[object]:
    """Return everything that the result of a search depends on except the data, for cache keys."""
    return [search.lanes, search.date_from, search.date_to, search.interval, search.span]


def _answer(connection: Connection, search: Search) -> dict[str, Any]:
    rows = search.lanes or (("", ""),)
    if not search.asked:
        found = board(connection, pinned_lanes(), BOARD_LANES)
        return {"search": search, "rows": rows, "board": overview(found, _today()) if found else None}
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
    except _InvalidSearch as invalid:
        return values | {"problems": invalid.args, "suggestions": {}}
    except _OneEnded as one_ended:
        lanes = counterparts(connection, one_ended.place.code, one_ended.role, COUNTERPARTS)
        return values | {"problems": one_ended.args, "suggestions": {}, "offers": _offers(search, lanes)}
    asked = replace(
        search,
        lanes=tuple((origin.code, destination.code) for origin, destination in chosen),
        date_from=first.isoformat(),
        date_to=last.isoformat(),
    )
    answers = [_lane(connection, asked, interval, places, days) for places, days in zip(chosen, priced, strict=True)]
    if len(answers) == 1:
        answers = [_with_composition(connection, answers[0])]
    drawn = [(answer.name, answer.rates) for answer in answers]
    chart = draw(drawn, interval, answers[0].composition) if answers else None
    return values | {"search": asked, "answers": answers, "chart": chart}


def find_answers(connection: Connection, search: Search) -> tuple[Search, list[LaneRates]]:
    """Return the resolved search and its lanes with their rates; no lanes if it cannot be answered."""
    values = _answer(connection, search)
    return values["search"], values.get("answers", [])


def _interval(search: Search) -> Interval:
    for interval in INTERVALS:
        if interval == search.interval:
            return interval
    raise _InvalidSearch("Choose day, week or month as the interval.")


def _chosen(search: Search, places: dict[str, Location]) -> list[tuple[Location, Location]]:
    chosen = []
    for origin, destination in search.lanes:
        if not origin and not destination:
            continue  # a row that was added to be filled in
        if not origin or not destination:
            raise _OneEnded(places[origin or destination], "origin" if origin else "destination")
        chosen.append((places[origin], places[destination]))
    return chosen


def _suggest(search: Search, text: str, found: list[Location]) -> list[tuple[str, str]]:
    """Link to the same query with similar locations in place of an unknown one."""
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
    """Return the range: as given, or the last days that have prices."""
    earliest = min((first for first, _ in priced), default=None)
    latest = max((last for _, last in priced), default=_today())
    if search.span:
        span = int(search.span)
        first = latest - timedelta(days=span - 1) if span else earliest or latest
        return max(first, latest - timedelta(days=service().settings.max_range_days - 1)), latest
    last = _day(search.date_to) or latest
    try:
        first = _day(search.date_from) or last - timedelta(days=DEFAULT_DAYS)
    except OverflowError:
        raise _InvalidSearch("Days before the year 1 are not supported. Choose later dates.") from None
    if last < first:
        raise _InvalidSearch("The last day is before the first. Swap the two dates.")
    if (last - first).days >= (most := service().settings.max_range_days):
        raise _InvalidSearch(f"The range has {(last - first).days + 1:,} days. Choose at most {most:,}.")
    return first, last


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise _InvalidSearch(f"“{text[:20]}” is not a day. Write it as 2021-01-31.") from None


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
    reverse_priced = priced is None and priced_days(connection, destination.code, origin.code) is not None
    return LaneRates(origin, destination, found, figures, priced, reverse_priced, query, interval)


def _with_composition(connection: Connection, answer: LaneRates) -> LaneRates:
    """Add the port pairs behind the rates of a region, unless the range is too long."""
    if not answer.prices or "region" not in {answer.origin.kind, answer.destination.kind}:
        return answer
    if len(answer.range.days()) > MAX_COMPOSITION_DAYS:
        return answer
    return replace(answer, composition=composition(connection, answer.range, answer.interval))


def _figures(connection: Connection, question: Question, found: list[Rate], interval: Interval) -> Figures | None:
    rated = [rate for rate in found if rate.average is not None]
    if not rated:
        return None
    latest = rated[-1]
    prices = sum(rate.count for rate in found)
    return Figures(latest, len(rated), len(found), prices, changes(connection, question, latest, interval))


def _offers(search: Search, lanes: list[Lane]) -> list[tuple[Lane, str]]:
    """Link each lane to the same query with both of its ends in place of the one-ended lane."""
    index = next(number for number, lane in enumerate(search.lanes) if any(lane) and not all(lane))
    offers = []
    for lane in lanes:
        chosen = list(search.lanes)
        chosen[index] = (lane.origin, lane.destination)
        offers.append((lane, replace(search, lanes=tuple(chosen)).address()))
    return offers
