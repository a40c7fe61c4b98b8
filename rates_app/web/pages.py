"""The rates page and the page of lanes."""

from __future__ import annotations

import hashlib
from datetime import date, timedelta
from importlib.resources import files
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import orjson
from flask import Blueprint, Response, render_template, request
from werkzeug.exceptions import NotFound

from rates_app.api.arguments import MAX_CODE
from rates_app.api.responses import answer_question, send
from rates_app.api.service import service
from rates_app.cache.answer import Answer
from rates_app.rates.locations import find_locations, search_locations
from rates_app.rates.model import MIN_PRICES, Interval, Question, Rate
from rates_app.rates.queries import lanes, rates
from rates_app.web.chart import draw

if TYPE_CHECKING:
    from rates_app.store.databases import Connection

views = Blueprint("web", __name__, template_folder="templates")

HTML = "text/html; charset=utf-8"
POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
#: Locations that the fields offer; browsers search in these as one types.
OFFERED = 1000
BUSIEST = 12
INTERVALS: tuple[Interval, ...] = ("day", "week", "month")
YEAR = 365

STYLE = files("rates_app.web").joinpath("static/style.css").read_bytes()
STYLE_NAME = f"style.{hashlib.sha256(STYLE).hexdigest()[:12]}.css"


def _page(question: list[object], template: str, values: dict[str, object]) -> Response:
    """Answer with a page, from the caches while nothing has been published since."""

    def render(connection: Connection) -> bytes:
        offered = search_locations(connection, "", OFFERED)
        found = values | _answer(connection, values)
        return render_template(template, style=STYLE_NAME, offered=offered, **found).encode()

    response = answer_question(orjson.dumps(question).decode(), HTML, render)
    response.headers["Content-Security-Policy"] = POLICY
    return response


@views.get("/")
def rates_page() -> Response:
    """Search, and the answer to it: a figure, the key figures, a table, and ways to take it along."""
    asked = {name: request.args.get(name, "").strip() for name in ("origin", "destination", "date_from", "date_to")}
    interval = request.args.get("interval", "day")
    values: dict[str, object] = {**asked, "interval": interval, "intervals": INTERVALS, "min_prices": MIN_PRICES}
    values["base"] = request.url_root.rstrip("/")
    return _page(["page", *values.values()], "rates.html", values)


def _answer(connection: Connection, values: dict[str, object]) -> dict[str, object]:
    busiest = lanes(connection, None, None, BUSIEST)
    origin, destination = str(values["origin"]), str(values["destination"])
    if not origin and not destination:
        return {"busiest": busiest, "last_day": max((lane.last_day for lane in busiest), default=None)}
    question, problems = _question(values, max((lane.last_day for lane in busiest), default=None))
    codes = [code for code in (origin, destination) if "\0" not in code and len(code) <= MAX_CODE]
    known = find_locations(connection, codes)
    near = {code: search_locations(connection, code, 5) for code in codes if code and code not in known}
    problems += [f"“{code[:MAX_CODE]}” is not a port or region we know." for code in (origin, destination)
                 if code and code not in known]  # fmt: skip
    if question is None or problems:
        return {"busiest": busiest, "problems": problems, "near": near}
    found = rates(connection, question, _interval(values))
    arguments = {
        "origin": origin,
        "destination": destination,
        "date_from": question.date_from.isoformat(),
        "date_to": question.date_to.isoformat(),
        "interval": values["interval"],
    }
    return {
        **arguments,
        "from_place": known[origin],
        "to_place": known[destination],
        "rates": found,
        "chart": draw(found),
        "figures": _figures(found),
        "query": urlencode(arguments),
    }


def _interval(values: dict[str, object]) -> Interval:
    return next((interval for interval in INTERVALS if interval == values["interval"]), "day")


def _question(values: dict[str, object], last_day: date | None) -> tuple[Question | None, list[str]]:
    """Make a question of what somebody filled in; days that were left open are the last month with prices."""
    problems = [f"Please choose where it goes {side}." for side, name in (("from", "origin"), ("to", "destination"))
                if not values[name]]  # fmt: skip
    days: dict[str, date] = {}
    for name, fallback in (("date_to", last_day), ("date_from", None)):
        text = str(values[name])
        try:
            days[name] = date.fromisoformat(text) if text else fallback or days["date_to"] - timedelta(days=30)
        except (ValueError, KeyError, OverflowError):
            problems.append(f"“{text[:20]}” is not a day; write it as 2021-01-31.")
            return None, problems
    if days["date_to"] < days["date_from"]:
        problems.append("The last day is before the first.")
    elif (days["date_to"] - days["date_from"]).days >= (most := service().settings.max_range_days):
        problems.append(f"Please ask for at most {most:,} days.")
    if values["interval"] not in INTERVALS:
        problems.append("A row stands for a day, a week or a month.")
    question = Question(str(values["origin"]), str(values["destination"]), days["date_from"], days["date_to"])
    return question, problems


def _figures(found: list[Rate]) -> dict[str, object]:
    rated = [rate for rate in found if rate.average is not None]
    if not rated:
        return {}
    first, last = rated[0], rated[-1]
    change = (last.average or 0) / (first.average or 1) - 1
    return {"first": first, "last": last, "change": change, "rated": len(rated), "all": len(found),
            "prices": sum(rate.count for rate in found)}  # fmt: skip


@views.get("/lanes")
def lanes_page() -> Response:
    """The lanes with most prices."""

    def render(connection: Connection) -> bytes:
        return render_template("lanes.html", style=STYLE_NAME, lanes=lanes(connection, None, None, 200)).encode()

    response = answer_question('["page","lanes"]', HTML, render)
    response.headers["Content-Security-Policy"] = POLICY
    return response


@views.get("/static/<name>")
def static(name: str) -> Response:
    """Give an asset under the name that holds its content's hash: it can be kept for ever."""
    if name != STYLE_NAME:
        raise NotFound("There is no such asset; load the page again.")
    response = send(Answer.of(STYLE, "text/css; charset=utf-8", 0))
    response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    return response
