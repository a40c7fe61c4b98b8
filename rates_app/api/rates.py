"""The rates between two locations: ``/rates`` as existing clients know it, and ``/v1/rates``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint

from rates_app.api.arguments import RatesArguments, RatesV1Arguments
from rates_app.api.models import DayRates, Rates
from rates_app.http.openapi import Content, operation
from rates_app.http.problems import Problem
from rates_app.http.responses import answer_question, choose_media_type
from rates_app.http.service import service
from rates_app.rates.answers import RatesQuestion, UnknownLocation
from rates_app.rates.locations import is_exact
from rates_app.rates.model import Question

if TYPE_CHECKING:
    from flask import Response

views = Blueprint("rates", __name__)


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
    return _answer(RatesQuestion(question), vary="Accept-Encoding")


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
    asked = RatesQuestion(question, query.interval, choose_media_type(query.format))
    try:
        return _answer(asked, vary="Accept, Accept-Encoding")
    except UnknownLocation as error:
        raise _unknown(error) from None


def _answer(asked: RatesQuestion, vary: str) -> Response:
    codes = (asked.question.origin, asked.question.destination)
    # A version of a lane is known by its exact codes only: what another spelling names may change with every publish.
    lane = codes if all(is_exact(code) for code in codes) or asked.interval is None else None
    return answer_question(asked.canonical(), asked.media_type, asked.render, lane=lane, vary=vary)


def _unknown(error: UnknownLocation) -> Problem:
    errors = [
        {"parameter": role, "detail": f"{code!r} is not a known port or region", "near": near}
        for role, (code, near) in error.unknown.items()
    ]
    details = [
        f"{role}: {code!r} is not a known port or region" + (f"; did you mean {', '.join(near)}?" if near else "")
        for role, (code, near) in error.unknown.items()
    ]
    return Problem("unknown-location", " ".join(details), errors=errors)
