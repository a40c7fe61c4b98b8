"""Error responses as application/problem+json (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
import structlog
from flask import Blueprint, Response, g, request
from werkzeug.exceptions import HTTPException, NotFound, RequestEntityTooLarge

from rates_app.store.databases import QueryTooSlow, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flask import Flask
    from flask.typing import ResponseReturnValue

log = structlog.get_logger()
pages = Blueprint("problems", __name__)

MEDIA_TYPE = "application/problem+json"


class Kind(NamedTuple):
    """A kind of problem that clients can distinguish by its ``type``, and the advice on its page."""

    status: int
    title: str
    advice: str


KINDS = {
    "invalid-arguments": Kind(
        400, "Invalid request parameters", "Correct the parameters; the member `errors` lists each with the reason."
    ),
    "unknown-location": Kind(
        400,
        "Unknown location",
        "Correct the location; the member `errors` suggests similar ones. `/v1/locations?q=` searches by code or name.",
    ),
    "not-acceptable": Kind(
        406,
        "Unsupported media type in Accept",
        "Accept application/json, text/csv or application/x-ndjson, or set `format`.",
    ),
    "incomplete-body": Kind(400, "The request body is incomplete", "Nothing was stored. Send the request again."),
    "malformed-body": Kind(
        400,
        "The request body is malformed",
        "Nothing was stored. Send a Content-Length, or chunks (RFC 9112, 7.1).",
    ),
    "digest-mismatch": Kind(
        400,
        "The content does not match its digest",
        "Nothing was stored. Compute Content-Digest (RFC 9530) over the bytes that you send, and send them again.",
    ),
    "unreadable": Kind(
        422, "The delivery is not a batch", "Deliver CSV, JSON, Parquet or a workbook; plain, gzip, zstd or zip."
    ),
    "not-found": Kind(
        404,
        "Not found",
        "Check the address: `/docs` lists endpoints. `/v1/locations?q=` searches codes, `/v1/batches` lists batches.",
    ),
    "method-not-allowed": Kind(405, "Method not allowed", "Use a method of the header Allow. `/docs` lists them."),
    "too-large": Kind(413, "The request body is too large", "Send less. Deliver a large batch in several files."),
    "key-reused": Kind(422, "The Idempotency-Key was used before", "Use a new key for new content."),
    "wrong-state": Kind(
        409, "The batch's state does not allow this", "Read the batch's state from `/v1/batches/{batch}`."
    ),
    "unauthorized": Kind(
        401, "A valid token is required", "Send `Authorization: Bearer TOKEN`. Ask your operator for a token."
    ),
    "forbidden": Kind(
        403, "The token lacks a scope", "Ask your operator for a token with the scope that `detail` names."
    ),
    "too-many-requests": Kind(
        429,
        "Too many requests",
        "Wait for the seconds in Retry-After. RateLimit headers report the rest of the limit.",
    ),
    "quota-exceeded": Kind(
        429,
        "The supplier's quota is used up",
        "Nothing was stored. Wait for the seconds in Retry-After. If the limit is the number, deliver larger files.",
    ),
    "too-many-alerts": Kind(
        409, "The maximum number of lane alerts is reached", "Delete a lane alert first; `/v1/alerts` lists yours."
    ),
    "no-confirmation": Kind(
        409,
        "No confirmation message is sent",
        "Read `state` and `confirmation` of the lane alert from `/v1/alerts`; ask the owner of the address.",
    ),
    "too-slow": Kind(503, "The query takes too long", "Request fewer days or a longer interval, or try again later."),
    "unavailable": Kind(503, "No database is reachable", "Try again after the seconds in Retry-After."),
    "unknown-host": Kind(400, "Unknown host", "Send requests to the service's own address; the Host header differs."),
    "old-http-version": Kind(
        505,
        "HTTP/1.0 is not supported here",
        "Send HTTP/1.1 or HTTP/2: in HTTP/1.0, a response that is cut looks complete.",
    ),
    "overloaded": Kind(503, "The service is overloaded", "Try again after the seconds in Retry-After."),
}


class Problem(Exception):
    """An error of a kind in :data:`KINDS`.

    Args:
        kind: The kind's name.
        detail: The cause in this case, with the value and the next step.
        errors: One object for each invalid parameter.
        headers: Further headers of the response.
    """

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.errors = errors
        self.headers = headers or {}


def problem_body(
    status: int,
    title: str,
    detail: str,
    *,
    kind: str | None = None,
    instance: str | None,
    request_id: str,
    errors: Sequence[Mapping[str, Any]] = (),
) -> bytes:
    """Render the problem object of RFC 9457, 3.1.

    Args:
        status: The status code.
        title: The kind of problem, in words.
        detail: The cause in this case.
        kind: The kind's name; None if the status says it all.
        instance: The path of the request; None if it is not known.
        request_id: The request's id.
        errors: One object for each invalid parameter.
    """
    body: dict[str, Any] = {
        "type": f"/problems/{kind}" if kind else "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        "request_id": request_id,
    }
    if instance is not None:
        body["instance"] = instance
    if errors:
        body["errors"] = errors
    return orjson.dumps(body)


def _respond(
    status: int,
    title: str,
    detail: str,
    *,
    kind: str | None = None,
    errors: Sequence[Mapping[str, Any]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    body = problem_body(status, title, detail, kind=kind, instance=request.path, request_id=g.request_id, errors=errors)
    response = Response(body, status, content_type=MEDIA_TYPE)
    response.headers.update(headers or {})
    response.headers["Cache-Control"] = "no-store"
    return response


def _on_problem(problem: Problem) -> Response:
    kind = KINDS[problem.kind]
    return _respond(
        kind.status, kind.title, problem.detail, kind=problem.kind, errors=problem.errors, headers=problem.headers
    )


def _on_unavailable(error: Unavailable) -> Response:
    name = "too-slow" if isinstance(error, QueryTooSlow) else "unavailable"
    log.warning("request_not_served", reason=str(error))
    return _on_problem(Problem(name, str(error), headers={"Retry-After": "2"}))


def on_http_error(error: HTTPException) -> ResponseReturnValue:
    """Respond to an HTTP error of the framework or a view with a problem object."""
    if error.code is None or error.code < HTTPStatus.BAD_REQUEST:  # a redirect is no error
        return error
    if isinstance(error, RequestEntityTooLarge):
        return _on_problem(Problem("too-large", f"The body has more than {request.max_content_length} bytes."))
    kind = {404: "not-found", 405: "method-not-allowed"}.get(error.code)
    title = KINDS[kind].title if kind else error.name
    response = _respond(error.code, title, error.description or error.name, kind=kind)
    for name, value in error.get_headers():
        if name.lower() not in {"content-type", "content-length"}:
            response.headers[name] = value
    return response


def _on_bug(_error: Exception) -> Response:
    log.exception("request_failed")
    return _respond(
        500, "Internal Server Error", f"The request failed. Send the request id {g.request_id} to your operator."
    )


@pages.get("/problems/<name>")
def explain(name: str) -> Response:
    """Show the advice for a kind of problem; the member `type` of problem objects links here."""
    kind = KINDS.get(name)
    if kind is None:
        raise NotFound(f"Unknown kind of problem. Known kinds: {', '.join(KINDS)}.")
    return Response(f"{kind.title} (status {kind.status})\n\n{kind.advice}\n", content_type="text/plain; charset=utf-8")


def register(app: Flask) -> None:
    """Respond to every error of an application with a problem object."""
    app.register_blueprint(pages)
    app.register_error_handler(Problem, _on_problem)
    app.register_error_handler(Unavailable, _on_unavailable)
    app.register_error_handler(HTTPException, on_http_error)
    app.register_error_handler(Exception, _on_bug)
