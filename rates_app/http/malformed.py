"""Respond to requests that never reach the application, and to those that it fails to answer."""

from __future__ import annotations

from http import HTTPStatus

import structlog
from gunicorn.http.errors import (
    ExpectationFailed,
    InvalidResponseHeader,
    InvalidResponseHeaderName,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
    UnsupportedTransferCoding,
)

from rates_app.http.middleware import new_request_id
from rates_app.http.problems import MEDIA_TYPE, problem_body

log = structlog.get_logger()

#: Statuses of the parser's errors. Any other is 400.
_STATUSES: dict[type[ParseException], HTTPStatus] = {
    LimitRequestLine: HTTPStatus.REQUEST_URI_TOO_LONG,
    LimitRequestHeaders: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    ExpectationFailed: HTTPStatus.EXPECTATION_FAILED,
    UnsupportedTransferCoding: HTTPStatus.NOT_IMPLEMENTED,
}


def error_response(error: Exception, client: str) -> bytes:
    """Log the error that is being handled, and return the response to it.

    Args:
        error: The parser's error if the request is malformed, else an internal error.
        client: The client's address.

    Returns:
        A response with a problem object, after which the connection has to be closed.
    """
    request_id = new_request_id()
    # The application has set such a header.
    internal = isinstance(error, (InvalidResponseHeader, InvalidResponseHeaderName))
    if isinstance(error, ParseException) and not internal:
        status = _STATUSES.get(type(error), HTTPStatus.BAD_REQUEST)
        detail = f"The request is malformed: {error}."
        log.warning("request_malformed", request_id=request_id, status=int(status), reason=str(error), client=client)
    else:
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        detail = f"The request failed. Send the request id {request_id} to your operator."
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            log.exception("request_failed")
    body = problem_body(status, status.phrase, detail, instance=None, request_id=request_id)
    head = [
        f"HTTP/1.1 {int(status)} {status.phrase}",
        "Connection: close",
        f"Content-Type: {MEDIA_TYPE}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        f"X-Request-ID: {request_id}",
    ]
    return "\r\n".join([*head, "", ""]).encode() + body
