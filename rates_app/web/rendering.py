"""What all pages have in common: the frame, the policy, the words for errors, the way figures are written."""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import structlog
from flask import Blueprint, Response, g, render_template, request
from werkzeug.exceptions import HTTPException, NotFound

from rates_app.http.problems import MEDIA_TYPE, on_http_error
from rates_app.http.responses import answer_question
from rates_app.http.service import service
from rates_app.rates.model import MIN_PRICES
from rates_app.store.databases import QueryTooSlow, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import date, datetime

    from flask.blueprints import BlueprintSetupState
    from flask.typing import ResponseReturnValue

    from rates_app.store.databases import Connection

log = structlog.get_logger()
views = Blueprint("web", __name__, template_folder="templates")

HTML = "text/html; charset=utf-8"
#: Stands where there is no value.
NONE = "\N{EN DASH}"

#: What an error can be told in: programs, which take anything, get the first.
FORMS = (MEDIA_TYPE, "text/html")

#: Everything comes from here, and nothing that stands in a page's own text is run.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def _digest() -> str:
    """Hash all that pages are made by, so that no cache gives a page of another version."""
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
    """Answer with a page, from the caches while nothing has been published since.

    Args:
        template: The page's template.
        key: All that the page depends on besides the data.
        values: Reads what the template shows.
    """

    def render(connection: Connection) -> bytes:
        return render_template(template, **values(connection)).encode()

    question = orjson.dumps(["page", DIGEST, service().settings.version, template, *key]).decode()
    response = answer_question(question, HTML, render)
    response.headers["Content-Security-Policy"] = POLICY
    return response


def live_page(template: str, status: int = 200, **values: Any) -> Response:
    """Answer with a page that is true at this moment alone."""
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-store"}
    return Response(render_template(template, **values), status, headers, content_type=HTML)


def _problem(status: int, title: str, detail: str, advice: str) -> Response:
    response = live_page("problem.html", status, title=title, detail=detail, advice=advice, request_id=g.request_id)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = "2"
    return response


@views.app_errorhandler(404)
def _not_found(error: NotFound) -> ResponseReturnValue:
    """Tell people in a page and programs in a problem object that there is nothing."""
    if request.path.startswith("/v1/") or request.accept_mimetypes.best_match(FORMS) != "text/html":
        return on_http_error(error)
    given = error.description if error.description != NotFound.description else None
    detail = given or f"There is no page {request.path[:100]}."
    return _problem(404, "There is nothing here", detail, "Go on from the menu above, or search for a lane.")


@views.errorhandler(Unavailable)
def _unavailable(error: Unavailable) -> Response:
    log.warning("page not answered", reason=str(error))
    if isinstance(error, QueryTooSlow):
        return _problem(
            503, "That takes too long", "The question was given up after its deadline.",
            "Ask for fewer days, or for weeks or months instead of days; or try again in a moment.",
        )  # fmt: skip
    return _problem(
        503, "Prices cannot be read at the moment", "No database can answer.",
        "Nothing is lost. Load the page again in a few seconds; the status page tells how things stand.",
    )  # fmt: skip


@views.errorhandler(HTTPException)
def _http_error(error: HTTPException) -> ResponseReturnValue:
    if error.code is None or error.code < HTTPStatus.BAD_REQUEST:
        return error
    return _problem(error.code, error.name, error.description or error.name, "Go back, or begin again from the menu.")


@views.errorhandler(Exception)
def _bug(_error: Exception) -> Response:
    log.exception("unexpected error")
    return _problem(
        500, "Something went wrong here", "This is a fault of the service, not of what you did.",
        "Try again; if it stays, tell whoever runs the service the request id below.",
    )  # fmt: skip


@views.app_template_filter()
def money(value: float | None) -> str:
    """Write USD with cents; a dash for none."""
    return NONE if value is None else f"{value:,.2f}"


@views.app_template_filter()
def whole(value: float | None) -> str:
    """Write a number without decimals; a dash for none."""
    return NONE if value is None else f"{value:,.0f}"


@views.app_template_filter()
def change(value: float | None) -> str:
    """Write a relative change in percent, with its sign; a dash for none."""
    if value is None:
        return NONE
    return "0.0%" if abs(value) < 0.0005 else f"{value:+.1%}".replace("-", "\N{MINUS SIGN}")  # noqa: PLR2004 - rounds to 0


@views.app_template_filter()
def short_day(value: date) -> str:
    """Write a day as people read it."""
    return f"{value:%-d %b %Y}"


@views.app_template_filter()
def moment(value: datetime) -> str:
    """Write a point in time, in UTC as the database gives it."""
    return f"{value:%-d %b %Y, %H:%M:%S} UTC"


@views.app_template_filter()
def size(value: float) -> str:
    """Write a number of bytes."""
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:  # noqa: PLR2004 - SI prefixes
            return f"{value:,.0f} {unit}" if unit == "bytes" else f"{value:,.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} GB"


@views.app_template_filter()
def duration(seconds: float | None) -> str:
    """Write a time span; a dash for none."""
    if seconds is None:
        return NONE
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"  # noqa: PLR2004 - an hour
