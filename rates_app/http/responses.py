"""Create responses: media types, content codings and entity tags."""

from __future__ import annotations

import zlib
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson
from flask import Response, request

from rates_app.http.exchange import Cacheable, current_exchange
from rates_app.http.problems import Problem
from rates_app.http.service import service

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping

    from rates_app.cache.answer import Answer
    from rates_app.rates.answers import MediaType
    from rates_app.rates.reads import LaneCodes, Render

#: Content codings, smallest first: the order decides if the client accepts several with equal quality.
CODINGS = ("br", "gzip", "identity")

#: Compression level of streamed bodies, and the window of zlib's gzip format.
STREAM_LEVEL = 5
_GZIP_WINDOW = 16 + zlib.MAX_WBITS

#: Media types by their names in the parameter ``format``.
MEDIA_TYPES: dict[str, MediaType] = {"json": "application/json", "csv": "text/csv", "ndjson": "application/x-ndjson"}


def choose_coding(available: Container[str]) -> str:
    """Choose the available content coding that the client prefers (RFC 9110, 12.5.3)."""
    accepted = request.accept_encodings
    qualities = {coding: accepted.quality(coding) for coding in CODINGS if coding in available}
    best = max(qualities, key=lambda coding: qualities[coding])  # the first of equals
    return best if qualities[best] > 0 else "identity"


def choose_media_type(wanted: str | None, types: Mapping[str, MediaType] = MEDIA_TYPES) -> MediaType:
    """Choose a response's media type.

    Args:
        wanted: The parameter ``format``. If it is None, Accept decides; without Accept, it is the first type.
        types: The supported media types by their names in the parameter.

    Raises:
        Problem: The client accepts no supported media type.
    """
    if wanted is not None:
        return types[wanted]
    if not request.accept_mimetypes:
        return next(iter(types.values()))
    best = request.accept_mimetypes.best_match(types.values())
    for media_type in types.values():
        if media_type == best:
            return media_type
    supported = ", ".join(types.values())
    raise Problem("not-acceptable", f"Unsupported media type in Accept. Supported: {supported}.")


def send(answer: Answer, *, vary: str = "Accept-Encoding") -> Response:
    """Create a response from an answer.

    ``no-cache`` allows clients and proxies to store the response, but they revalidate it each time. So a publication
    is visible immediately.
    """
    coding = choose_coding(answer.bodies)
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


def send_stream(chunks: Iterable[bytes], media_type: str, tag: str, headers: Mapping[str, str]) -> Response:
    """Create a response whose body is generated while the client reads it, compressed if the client accepts gzip.

    The body has no Content-Length. A client detects a body that was cut: the last chunk of HTTP/1.1 is missing, or
    HTTP/2 resets the stream.

    Args:
        chunks: The parts of the body.
        media_type: Value of Content-Type.
        tag: Equal for equal bodies; the entity tag is made from it.
        headers: Further headers.
    """
    coding = choose_coding(("gzip", "identity"))
    etag = f'"{tag}"' if coding == "identity" else f'"{tag}-{coding}"'
    sent = {"ETag": etag, "Cache-Control": "no-cache", "Vary": "Accept, Accept-Encoding", **headers}
    if coding == "gzip":
        sent["Content-Encoding"] = coding
        chunks = _gzip(chunks)
    return Response(chunks, headers=sent, content_type=media_type)


def _gzip(chunks: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(STREAM_LEVEL, wbits=_GZIP_WINDOW)
    for chunk in chunks:
        if packed := packer.compress(chunk):
            yield packed
    yield packer.flush()


def _cut_to_range(response: Response, length: int) -> None:
    """Reduce the body to the requested byte range: status 206, or 416 for a range outside the body (RFC 9110, 14).

    The whole body is sent if If-Range has a different entity tag, or for several ranges, which RFC 9110 allows.
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


def send_json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a JSON body that caches do not store.

    Args:
        body: What orjson can write.
        status: The HTTP status.
        headers: Further headers.
    """
    return Response(
        orjson.dumps(body), status, {"Cache-Control": "no-store", **(headers or {})}, content_type="application/json"
    )


def answer_question(
    question: str,
    media_type: str,
    render: Render,
    *,
    lane: LaneCodes | None = None,
    vary: str = "Accept-Encoding",
    describe: Callable[[Answer], Mapping[str, str]] | None = None,
) -> Response:
    """Respond to a query through the caches, and record the source of the answer for the log and the process cache.

    Args:
        question: The query in its canonical form.
        media_type: The response's media type.
        render: Renders the body, with a database connection.
        lane: Origin and destination if the response depends on their prices and names only; otherwise None.
        vary: The request headers that the response depends on.
        describe: Returns further headers that the answer determines.
    """
    served = service().reads.answer(question, media_type, render, lane)
    response = send(served.answer, vary=vary)
    if describe is not None:
        response.headers.update(describe(served.answer))
    exchange = current_exchange()
    exchange.served = {"cache": served.source, "generation": served.generation}
    if response.status_code == HTTPStatus.OK:
        exchange.cacheable = Cacheable(served.slot, served.answer.version, question, response.data)
    return response
