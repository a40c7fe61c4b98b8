"""Send answers: media types, content codings and entity tags."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from flask import Response, request

from rates_app.http.exchange import Cacheable, current_exchange
from rates_app.http.problems import Problem
from rates_app.http.service import service

if TYPE_CHECKING:
    from rates_app.cache.answer import Answer
    from rates_app.rates.answers import MediaType
    from rates_app.rates.reads import Lane, Render

#: At equal quality the smallest is sent.
CODINGS = ("br", "gzip", "identity")

#: Forms of a table by their names in the argument ``format``.
MEDIA_TYPES: dict[str, MediaType] = {"json": "application/json", "csv": "text/csv", "ndjson": "application/x-ndjson"}


def choose_coding(answer: Answer) -> str:
    """Choose the content coding that the client prefers (RFC 9110, 12.5.3)."""
    accepted = request.accept_encodings
    qualities = {coding: accepted.quality(coding) for coding in CODINGS if coding in answer.bodies}
    best = max(qualities, key=lambda coding: qualities[coding])  # the first of equals: CODINGS puts the smallest first
    return best if qualities[best] > 0 else "identity"


def choose_media_type(wanted: str | None) -> MediaType:
    """Choose how a table is written.

    Args:
        wanted: The argument ``format``; without it Accept decides, and without that it is JSON.

    Raises:
        Problem: The client accepts none of the forms there are.
    """
    if wanted is not None:
        return MEDIA_TYPES[wanted]
    if not request.accept_mimetypes:
        return "application/json"
    best = request.accept_mimetypes.best_match(MEDIA_TYPES.values())
    for media_type in MEDIA_TYPES.values():
        if media_type == best:
            return media_type
    raise Problem("not-acceptable", f"There are {', '.join(MEDIA_TYPES.values())}.")


def send(answer: Answer, *, vary: str = "Accept-Encoding") -> Response:
    """Make a response of an answer.

    ``no-cache`` lets clients and proxies store the answer but revalidate it each time, so that a publish is visible at
    once.
    """
    coding = choose_coding(answer)
    headers = {
        "Content-Type": answer.media_type,
        "ETag": answer.etag(coding),
        "Cache-Control": "no-cache",
        "Vary": vary,
    }
    if coding != "identity":
        headers["Content-Encoding"] = coding
    body = answer.bodies[coding]
    response = Response(body, headers=headers)
    if request.method in {"GET", "HEAD"}:
        response.accept_ranges = "bytes"
        _cut_to_range(response, len(body))
    return response


def _cut_to_range(response: Response, length: int) -> None:
    """Keep the bytes that the Range header asks for: status 206, or 416 for a range outside the body (RFC 9110, 14).

    If-Range with another entity tag than the response's gets the whole body. Of several ranges the whole body is sent,
    which RFC 9110 allows.
    """
    ranges = request.range
    if ranges is None or ranges.units != "bytes" or len(ranges.ranges) != 1:
        return
    if request.if_range.etag is not None and request.if_range.etag != response.get_etag()[0]:
        return
    if request.if_range.date is not None:  # responses have no Last-Modified
        return
    span = ranges.range_for_length(length)
    if span is None:
        response.status_code = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
        response.data = b""
        response.headers["Content-Range"] = f"bytes */{length}"
        return
    response.status_code = HTTPStatus.PARTIAL_CONTENT
    response.data = response.data[span[0] : span[1]]
    response.headers["Content-Range"] = f"bytes {span[0]}-{span[1] - 1}/{length}"


def answer_question(
    question: str, media_type: str, render: Render, *, lane: Lane | None = None, vary: str = "Accept-Encoding"
) -> Response:
    """Answer a question through the caches, and record for log and process cache where the answer came from.

    Args:
        question: Its canonical form.
        media_type: The answer's media type.
        render: Renders the body on a database connection.
        lane: The locations that it depends on alone; None if it depends on more.
        vary: The request headers that the answer depends on.
    """
    served = service().reads.answer(question, media_type, render, lane)
    response = send(served.answer, vary=vary)
    exchange = current_exchange()
    exchange.served = {"cache": served.source, "generation": served.generation}
    if response.status_code == HTTPStatus.OK:
        exchange.cacheable = Cacheable(served.slot, served.answer.version, question, response.data)
    return response
