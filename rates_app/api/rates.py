"""Rates between two locations: ``/rates``, the contract of existing clients, and ``/v1/rates``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from flask import Blueprint

from rates_app.api.arguments import LatestArguments, RatesArguments, RatesV1Arguments
from rates_app.api.listing import invalid
from rates_app.api.models import DayRates, LatestRates, Rates
from rates_app.http.openapi import Content, operation
from rates_app.http.problems import Problem
from rates_app.http.responses import answer_question, choose_media_type
from rates_app.http.service import service
from rates_app.rates.answers import CONTENT_TYPES, OpenRatesQuestion, RatesQuestion, UnknownLocation
from rates_app.rates.latest import UnknownCodes, latest_body
from rates_app.rates.locations import is_exact
from rates_app.rates.model import Question, RangeError

if TYPE_CHECKING:
    from flask import Response

    from rates_app.store.databases import Connection

views = Blueprint("rates", __name__)


def _check_range(question: Question) -> None:
    days = (question.date_to - question.date_from).days + 1
    if days > (limit := service().settings.max_range_days):
        detail = f"the range has {days} days; request {limit} at most"
        raise Problem("invalid-arguments", detail, errors=[{"parameter": "date_to", "detail": detail}])


@views.get("/rates")
@operation(
    summary="Average price of each day",
    tag="Rates",
    query=RatesArguments,
    answers={200: Content("The averages", DayRates)},
)
def daily_rates(query: RatesArguments) -> Response:
    """Return the average of every day from `date_from` to `date_to`, newest first.

    An unknown location has no prices on any day. A range that ends before it begins has no days.
    """
    question = Question(query.orig_code, query.dest_code, query.date_from, query.date_to)
    _check_range(question)
    return _answer(RatesQuestion(question), query.orig_code, query.dest_code, vary="Accept-Encoding")


@views.get("/v1/rates/latest")
@operation(
    summary="Latest rate of several lanes",
    tag="Rates",
    query=LatestArguments,
    answers={200: Content("The latest rates", LatestRates, ("text/csv", "application/x-ndjson"))},
    problems=(406,),
)
def latest(query: LatestArguments) -> Response:
    """Return the latest rate of each lane, and its changes against 7 and 30 days before.

    A lane without a rate in the 90 days before its last price, or up to `date_to`, is omitted.
    """
    media_type = choose_media_type(query.format)
    wanted = []
    for lane in query.lanes.split(","):
        origin, _, destination = lane.strip().partition(":")
        wanted.append((origin, destination.removesuffix("/*"), destination.endswith("/*")))

    def render(connection: Connection) -> bytes:
        return latest_body(connection, wanted, media_type, query.date_to)

    question = orjson.dumps(["latest", wanted, media_type, query.date_to]).decode()
    try:
        return answer_question(question, CONTENT_TYPES[media_type], render, vary="Accept, Accept-Encoding")
    except UnknownCodes as error:
        details = [f"{code!r} is not a known port or region" for code in error.args]
        errors = [{"parameter": "lanes", "detail": detail} for detail in details]
        raise Problem("unknown-location", "; ".join(details), errors=errors) from None


@views.get("/v1/rates")
@operation(
    summary="Count, average and spread of each day, week or month",
    tag="Rates",
    query=RatesV1Arguments,
    answers={200: Content("The rates", Rates, ("text/csv", "application/x-ndjson"))},
    problems=(406,),
)
def interval_rates(query: RatesV1Arguments) -> Response:
    """Return the rate of every interval from `date_from` to `date_to`, oldest first.

    A region includes all ports below it. `low` and `high` are the 10th and 90th percentiles (p10, p90). An interval
    with fewer than 3 prices has a count only. `include=quartiles` adds the 25th and 75th percentiles (p25, p75).
    `include=port_pairs` adds the number of port pairs behind each rate, and an index that holds their mix constant.
    """
    media_type = choose_media_type(query.format)
    asked: RatesQuestion | OpenRatesQuestion
    if query.date_from and query.date_to and not query.period:
        question = Question(query.origin, query.destination, query.date_from, query.date_to)
        if question.date_to < question.date_from:
            raise invalid("date_to", "is before date_from")
        _check_range(question)
        asked = RatesQuestion(question, query.interval, media_type, query.include or ())
    elif query.date_from and query.period:
        raise invalid("period", "cannot be combined with date_from; send one of them")
    else:
        asked = OpenRatesQuestion(
            query.origin, query.destination, query.date_from, query.date_to, query.period, query.interval, media_type,
            service().settings.max_range_days, query.include or (),
        )  # fmt: skip
    try:
        return _answer(asked, query.origin, query.destination, vary="Accept, Accept-Encoding")
    except UnknownLocation as error:
        raise unknown_location(error) from None
    except RangeError as error:
        raise invalid("date_from", str(error)) from None


def _answer(asked: RatesQuestion | OpenRatesQuestion, *codes: str, vary: str) -> Response:
    # Only exact codes identify a lane's slot: the location of another spelling may change with any publication.
    lane = (codes[0], codes[1]) if all(is_exact(code) for code in codes) or asked.interval is None else None
    return answer_question(asked.canonical(), CONTENT_TYPES[asked.media_type], asked.render, lane=lane, vary=vary)


def unknown_location(error: UnknownLocation) -> Problem:
    """Return the problem of unknown locations, with similar ones."""
    errors = [
        {"parameter": role, "detail": f"{code!r} is not a known port or region", "near": near}
        for role, (code, near) in error.unknown.items()
    ]
    details = [
        f"{role}: {code!r} is not a known port or region" + (f"; did you mean {', '.join(near)}?" if near else "")
        for role, (code, near) in error.unknown.items()
    ]
    return Problem("unknown-location", " ".join(details), errors=errors)
