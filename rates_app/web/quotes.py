"""The page that compares a user's own rates with the market.

The rates are sent in the body of a request, so that no log and no browser history contains them, and are not stored.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, NamedTuple

import orjson
from flask import request
from werkzeug.exceptions import BadRequest

from rates_app.http.service import service
from rates_app.rates.locations import find_locations
from rates_app.rates.model import MAX_CODE, MIN_PRICES, Question
from rates_app.rates.quotes import MAX_QUOTES, Market, Quote, market_body, read_quotes
from rates_app.web.rendering import live_page, views

if TYPE_CHECKING:
    from flask import Response

    from rates_app.rates.locations import Location
    from rates_app.store.databases import Connection
    from rates_app.store.generation import Version

#: Maximum size of the form.
MAX_FORM_BYTES = 64_000
PERCENTS = (10, 25, 50, 75, 90)


class Placement(NamedTuple):
    """A quote in the market: the share of prices below it, and its differences from average and median."""

    quote: Quote
    below: float
    to_average: float
    to_median: float


class MarketFigures(NamedTuple):
    """Percentiles and average in USD, and the number of prices."""

    percentiles: list[tuple[int, float]]
    average: float
    prices: int


@views.route("/quotes", methods=["GET", "POST"])
def quotes_page() -> Response:
    """Show the form, and for a sent form where its rates are in the market."""
    request.max_content_length = MAX_FORM_BYTES
    question = _question()

    def locations(connection: Connection, _version: Version) -> dict[str, Location]:
        return find_locations(connection, [question.origin, question.destination])

    places, _ = service().reads.snapshot(locations)  # a replica may not have the newest locations yet
    if not {question.origin, question.destination} <= places.keys():
        raise BadRequest("The port or region is not known. Choose the lane on the rates page.")
    market = _market(question)
    text = request.form.get("quotes", "")
    quotes = read_quotes(text)
    enough = market is not None and market.prices.total >= MIN_PRICES
    return live_page(
        "quotes.html",
        origin=places[question.origin],
        destination=places[question.destination],
        question=question,
        figures=_figures(market) if market is not None and enough else None,
        text=text,
        placements=_place(market, quotes) if market is not None and enough else [],
        unreadable=[quote.text for quote in quotes if quote.cents is None],
        max_quotes=MAX_QUOTES,
    )


def _question() -> Question:
    """Read the lane and the days from the form or the address.

    Raises:
        BadRequest: They are missing or invalid.
    """
    origin, destination = (request.values.get(name, "")[:MAX_CODE] for name in ("origin", "destination"))
    first, _, last = request.values.get("days", "").partition("/")
    try:
        question = Question(origin, destination, date.fromisoformat(first), date.fromisoformat(last))
    except ValueError:
        raise BadRequest("The days are missing. Choose them on the rates page.") from None
    if not origin or not destination or "\0" in origin + destination:
        raise BadRequest("The lane is missing. Choose it on the rates page.")
    if not 0 <= (question.date_to - question.date_from).days < service().settings.max_range_days:
        raise BadRequest("The range of days is empty or too long. Choose it on the rates page.")
    return question


def _market(question: Question) -> Market | None:
    def render(connection: Connection) -> bytes:
        return market_body(connection, question)

    key = ["market", question.origin, question.destination, question.date_from, question.date_to]
    lane = (question.origin, question.destination)
    served = service().reads.answer(orjson.dumps(key).decode(), "application/json", render, lane)
    return Market.parse(served.answer.bodies["identity"])


def _figures(market: Market) -> MarketFigures:
    cents = market.prices.percentiles(PERCENTS)
    percentiles = [(percent, value / 100) for percent, value in zip(PERCENTS, cents, strict=True)]
    return MarketFigures(percentiles, market.average_cents / 100, market.prices.total)


def _place(market: Market, quotes: list[Quote]) -> list[Placement]:
    median = market.prices.percentiles((50,))[0]
    return [
        Placement(
            quote,
            market.prices.share_below(quote.cents),
            quote.cents / market.average_cents - 1,
            quote.cents / median - 1,
        )
        for quote in quotes
        if quote.cents is not None
    ]
