"""The rates between two locations: ``/rates`` as existing clients know it, and ``/v1/rates``."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict
from typing import TYPE_CHECKING

import orjson
from flask import Blueprint

from rates_app.api.arguments import RatesArguments, RatesV1Arguments
from rates_app.api.models import DayRates, Rates
from rates_app.api.openapi import Content, operation
from rates_app.api.problems import Problem
from rates_app.api.responses import MEDIA_TYPES, answer_question, choose_media_type
from rates_app.api.service import service
from rates_app.rates.locations import Location, find_locations, search_locations
from rates_app.rates.model import Question
from rates_app.rates.queries import daily_averages, rates

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Response

    from rates_app.rates.model import Rate
    from rates_app.store.databases import Connection

views = Blueprint("rates", __name__)

COLUMNS = ("date_from", "date_to", "count", "low", "average", "median", "high")
SUGGESTIONS = 3


def _check_range(question: Question) -> None:
    days = (question.date_to - question.date_from).days + 1
    if days > (most := service().settings.max_range_days):
        detail = f"{days} days are too many; ask for {most} at most"
        raise Problem("invalid-arguments", detail, errors=[{"parameter": "date_to", "detail": detail}])


@views.get("/rates")
@operation(
    summary="Average price of each day",
    tag="Rates",
    query=RatesArguments,
    answers={200: Content("The averages", DayRates)},
)
def daily_rates(query: RatesArguments) -> Response:
    """Every day from `date_from` to `date_to`, newest first.

    An unknown location has no prices on any day; a range whose end is before its beginning has no days.
    """
    question = Question(query.orig_code, query.dest_code, query.date_from, query.date_to)
    _check_range(question)

    def render(connection: Connection) -> tuple[bytes, str]:
        days = [
            {"count": each.count, "day": each.day, "price": each.price} for each in daily_averages(connection, question)
        ]
        return orjson.dumps({"rates": days}), "application/json"

    return answer_question(_canonical("rates", question), render)


@views.get("/v1/rates")
@operation(
    summary="Count, average and spread of each day, week or month",
    tag="Rates",
    query=RatesV1Arguments,
    answers={200: Content("The rates", Rates, ("text/csv", "application/x-ndjson"))},
    problems=(406,),
)
def interval_rates(query: RatesV1Arguments) -> Response:
    """Every interval from `date_from` to `date_to`, oldest first; a region stands for all ports under it.

    Low and high are the 10th and the 90th percentile. An interval with fewer than 3 prices has a count only.
    """
    question = Question(query.origin, query.destination, query.date_from, query.date_to)
    if question.date_to < question.date_from:
        errors = [{"parameter": "date_to", "detail": "is before date_from"}]
        raise Problem("invalid-arguments", "date_to is before date_from", errors=errors)
    _check_range(question)
    media_type = MEDIA_TYPES[query.format] if query.format else choose_media_type(list(MEDIA_TYPES.values()))

    def render(connection: Connection) -> tuple[bytes, str]:
        origin, destination = _places(connection, {"origin": query.origin, "destination": query.destination})
        found = rates(connection, question, query.interval)
        return _FORMS[media_type](query, origin, destination, found), media_type

    canonical = _canonical("v1", question, query.interval, query.currency, media_type)
    return answer_question(canonical, render, vary="Accept, Accept-Encoding")


def _canonical(resource: str, question: Question, *rest: str) -> str:
    parts = (resource, question.origin, question.destination, question.date_from, question.date_to, *rest)
    return orjson.dumps(parts).decode()


def _places(connection: Connection, codes: dict[str, str]) -> list[Location]:
    """Look the locations up.

    Raises:
        Problem: One is not known; near ones are suggested.
    """
    found = find_locations(connection, list(codes.values()))
    errors = [
        {
            "parameter": parameter,
            "detail": f"{code!r} is not a known port or region",
            "near": [near.code for near in search_locations(connection, code, SUGGESTIONS)],
        }
        for parameter, code in codes.items()
        if code not in found
    ]
    if errors:
        details = []
        for error in errors:
            near = f"; did you mean {', '.join(error['near'])}?" if error["near"] else ""
            details.append(f"{error['parameter']}: {error['detail']}{near}")
        raise Problem("unknown-location", " ".join(details), errors=errors)
    return [found[code] for code in codes.values()]


def _json(query: RatesV1Arguments, origin: Location, destination: Location, found: list[Rate]) -> bytes:
    return orjson.dumps(
        {
            "origin": origin._asdict(),
            "destination": destination._asdict(),
            "currency": query.currency,
            "interval": query.interval,
            "rates": found,
        }
    )


def _csv(_query: RatesV1Arguments, _origin: Location, _destination: Location, found: list[Rate]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)  # RFC 4180: lines end with CR LF
    writer.writerow(COLUMNS)
    writer.writerows([getattr(rate, column) for column in COLUMNS] for rate in found)
    return text.getvalue().encode()


def _ndjson(query: RatesV1Arguments, _origin: Location, _destination: Location, found: list[Rate]) -> bytes:
    lane = {"origin": query.origin, "destination": query.destination, "currency": query.currency}
    return b"".join(orjson.dumps({**lane, **asdict(rate)}) + b"\n" for rate in found)


_FORMS: dict[str, Callable[[RatesV1Arguments, Location, Location, list[Rate]], bytes]] = {
    "application/json": _json,
    "text/csv": _csv,
    "application/x-ndjson": _ndjson,
}
