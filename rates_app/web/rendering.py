"""Rendering shared by all pages: the frame, the content security policy, error pages, number formats."""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import orjson
import structlog
from flask import Blueprint, Response, g, render_template, request
from markupsafe import Markup, escape
from werkzeug.exceptions import HTTPException, NotFound

from rates_app.http.problems import KINDS, MEDIA_TYPE, Problem, on_http_error
from rates_app.http.responses import answer_question
from rates_app.http.service import service
from rates_app.ops.text import counted
from rates_app.rates.model import MIN_PRICES, interval_end, interval_start
from rates_app.store.databases import QueryTooSlow, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import date, datetime

    from flask.blueprints import BlueprintSetupState
    from flask.typing import ResponseReturnValue

    from rates_app.rates.model import Interval
    from rates_app.store.databases import Connection

log = structlog.get_logger()
views = Blueprint("web", __name__, template_folder="templates")

HTML = "text/html; charset=utf-8"
#: Shown for a missing value.
NONE = "\N{EN DASH}"

#: Representations of an error; clients that accept anything get the first.
FORMS = (MEDIA_TYPE, "text/html")

#: Pages load from this origin only and run no inline scripts or styles.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class Period(Protocol):
    """A rate, change or other value that belongs to a range of days."""

    @property
    def date_from(self) -> date:
        """First day."""

    @property
    def date_to(self) -> date:
        """Last day, inclusive."""


def _digest() -> str:
    """Hash the code, templates and assets of pages: part of cache keys, so that a release never serves old pages."""
    files = sorted(path for path in Path(__file__).parent.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


DIGEST = _digest()


@views.record_once
def _prepare(setup: BlueprintSetupState) -> None:
    setup.app.jinja_env.trim_blocks = setup.app.jinja_env.lstrip_blocks = True


@views.app_context_processor
def _frame() -> dict[str, object]:
    settings = service().settings
    return {"min_prices": MIN_PRICES, "environment": settings.environment, "version": settings.version}


def cached_page(template: str, key: list[Any], values: Callable[[Connection], dict[str, Any]]) -> Response:
    """Respond with a page, from the caches if nothing was published since it was rendered.

    Args:
        template: The page's template.
        key: Everything that the page depends on except the data.
        values: Reads the template's variables.
    """

    def render(connection: Connection) -> bytes:
        return render_template(template, **values(connection)).encode()

    question = orjson.dumps(["page", DIGEST, service().settings.version, template, *key]).decode()
    response = answer_question(question, HTML, render)
    response.headers["Content-Security-Policy"] = POLICY
    return response


def live_page(template: str, status: int = 200, **values: Any) -> Response:
    """Respond with a page that must not be cached."""
    return uncached(render_template(template, **values), status)


def uncached(page: str, status: int = 200) -> Response:
    """Respond with a rendered page that must not be cached."""
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-store"}
    return Response(page, status, headers, content_type=HTML)


def _problem(status: int, title: str, detail: str, advice: str) -> Response:
    response = live_page("problem.html", status, title=title, detail=detail, advice=advice, request_id=g.request_id)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = "2"
    return response


@views.app_errorhandler(404)
def _not_found(error: NotFound) -> ResponseReturnValue:
    """Respond 404 with a page to browsers and with a problem object to programs."""
    if request.path.startswith("/v1/") or request.accept_mimetypes.best_match(FORMS) != "text/html":
        return on_http_error(error)
    given = error.description if error.description != NotFound.description else None
    detail = given or f"There is no page {request.path[:100]}."
    return _problem(404, "Page not found", detail, "Check the address, or use the menu above.")


@views.errorhandler(Unavailable)
def _unavailable(error: Unavailable) -> Response:
    log.warning("page_not_served", reason=str(error))
    if isinstance(error, QueryTooSlow):
        return _problem(
            503, "The query takes too long", "It was cancelled at its deadline.",
            "Choose fewer days or a longer interval, or try again later.",
        )  # fmt: skip
    return _problem(
        503, "Prices are temporarily unavailable", "No database is reachable.",
        "No data is lost. Reload the page in a few seconds. The status page shows the state of the service.",
    )  # fmt: skip


@views.errorhandler(Problem)
def _on_problem(problem: Problem) -> Response:
    """Respond to a form whose body is incomplete, for example."""
    kind = KINDS[problem.kind]
    response = _problem(kind.status, kind.title, problem.detail, "Go back, or use the menu above.")
    response.headers.update(problem.headers)
    return response


@views.errorhandler(HTTPException)
def _http_error(error: HTTPException) -> ResponseReturnValue:
    if error.code is None or error.code < HTTPStatus.BAD_REQUEST:
        return error
    return _problem(error.code, error.name, error.description or error.name, "Go back, or use the menu above.")


@views.errorhandler(Exception)
def _bug(_error: Exception) -> Response:
    log.exception("page_failed")
    return _problem(
        500, "Internal error", "The service failed to render this page.",
        "Try again. If the error persists, send the request id below to the operator.",
    )  # fmt: skip


@views.app_template_filter()
def code_spans(text: str) -> Markup:
    """Mark up text in single or double backticks as code."""
    parts = text.replace("``", "`").split("`")
    return Markup().join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part) for number, part in enumerate(parts)
    )


@views.app_template_filter()
def money(value: float | None) -> str:
    """Format USD with cents; a dash for None."""
    return NONE if value is None else f"{value:,.2f}"


@views.app_template_filter()
def whole(value: float | None) -> str:
    """Format a number without decimals; a dash for None."""
    return NONE if value is None else f"{value:,.0f}"


@views.app_template_filter()
def change(value: float | None) -> str:
    """Format a relative change in percent, with its sign; a dash for None."""
    if value is None:
        return NONE
    return "0.0%" if abs(value) < 0.0005 else f"{value:+.1%}".replace("-", "\N{MINUS SIGN}")  # noqa: PLR2004 - rounds to 0


@views.app_template_filter()
def short_day(value: date) -> str:
    """Format a day, for example `31 Jan 2021`."""
    return f"{value:%-d %b %Y}"


@views.app_template_filter()
def period(value: Period, *, year: bool = True) -> str:
    """Format the days of a rate or change: with the month and year once where they are the same.

    Args:
        value: First and last day.
        year: Whether to name the year; leave it out where the context names it.
    """
    full = "%-d %b %Y" if year else "%-d %b"
    first, last = value.date_from, value.date_to
    if first == last:
        return f"{last:{full}}"
    if (first.year, first.month) == (last.year, last.month):
        return f"{first.day}\N{EN DASH}{last:{full}}"
    return f"{first:{full if first.year != last.year else '%-d %b'}} \N{EN DASH} {last:{full}}"


@views.app_template_filter()
def partial(value: Period, interval: Interval) -> str:
    """Say how much of a calendar interval the days are; empty for all of it."""
    start = interval_start(value.date_from, interval)
    days = (interval_end(start, interval) - start).days + 1
    given = (value.date_to - value.date_from).days + 1
    return "" if given == days else f"{given} of {days} days"


views.add_app_template_filter(counted)


@views.app_template_filter()
def moment(value: datetime) -> str:
    """Format a timestamp in UTC."""
    return f"{value:%-d %b %Y, %H:%M:%S} UTC"


@views.app_template_filter()
def size(value: float) -> str:
    """Format a number of bytes."""
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:  # noqa: PLR2004 - SI prefixes
            return f"{value:,.0f} {unit}" if unit == "bytes" else f"{value:,.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} GB"


@views.app_template_filter()
def duration(seconds: float | None) -> str:
    """Format a duration; a dash for None."""
    if seconds is None:
        return NONE
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"  # noqa: PLR2004 - an hour
