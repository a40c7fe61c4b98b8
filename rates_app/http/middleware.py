"""Middleware of all requests: request id, limits, cache in process memory, metrics, log."""

from __future__ import annotations

import itertools
import os
import re
import time
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from werkzeug.sansio.utils import host_is_trusted

from rates_app.cache.process import CachedResponse
from rates_app.http.bodies import check_body
from rates_app.http.cors import cors_headers
from rates_app.http.exchange import Exchange, exchange_of
from rates_app.http.problems import KINDS, MEDIA_TYPE, problem_body
from rates_app.ops.logs import log_request
from rates_app.ops.metrics import CACHE, DURATION, IN_PROGRESS, REQUESTS, SHED, method_label

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from prometheus_client import Counter, Histogram

    from rates_app.cache.process import Key, ProcessAnswers
    from rates_app.http.exchange import Refusal
    from rates_app.http.limits import Limiter
    from rates_app.settings import Settings
    from rates_app.store.lease import Lease

    Headers = list[tuple[str, str]]

#: Health checks and metrics are not limited, logged or counted, so that objectives measure clients' requests only.
OPERATIONS = frozenset({"/healthz", "/readyz", "/metrics"})

#: Static files do not count towards a client's limit: a page loads several.
_UNLIMITED = "/static/"

#: The schemes that a proxy may report. Any other would end up in links and redirects.
_SCHEMES = frozenset({"http", "https"})

#: Request ids that are accepted from clients: harmless in logs and headers.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:+/=-]{1,128}")

#: Statuses of a response with an entity tag. If-None-Match takes precedence over Range (RFC 9110, 13.2.2).
_REPRESENTATIONS = frozenset({HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE})

#: Placeholder of the request id in a prepared page.
REQUEST_ID_MARK = b"{request-id}"

_MISS = CACHE.labels("process", "miss")
_HIT = CACHE.labels("process", "hit")

#: Distinguishes the request ids of one process; their other random bits are drawn once.
_count = itertools.count()
_random = int.from_bytes(os.urandom(8))


def new_request_id() -> str:
    """Create an id that sorts by time: a UUID of version 7 (RFC 9562, 5.7, with a counter as in 6.2)."""
    tail = (_random + next(_count) * 0x9E3779B97F4A7C15) & 0x3FFFFFFFFFFFFFFF | 0x8000000000000000
    milliseconds = f"{time.time_ns() // 1_000_000:012x}"
    digits = f"{tail:016x}"
    return f"{milliseconds[:8]}-{milliseconds[8:]}-7{os.getpid() & 0xFFF:03x}-{digits[:4]}-{digits[4:]}"


@cache
def _requests(method: str, route: str, status: int) -> Counter:
    return REQUESTS.labels(method, route, str(status))


@cache
def _duration(method: str, route: str) -> Histogram:
    return DURATION.labels(method, route)


class _Record:
    """Counts and logs one request when its response is complete."""

    def __init__(self, environ: WSGIEnvironment, exchange: Exchange) -> None:
        self.environ = environ
        self.exchange = exchange
        self.status = 500
        self.sent = 0
        self.not_modified = False
        self._done = False
        IN_PROGRESS.inc()

    def finish(self) -> None:
        """Count and log the request, once."""
        if self._done:
            return
        self._done = True
        exchange = self.exchange
        seconds = time.perf_counter() - exchange.received_at
        IN_PROGRESS.dec()
        path = self.environ["PATH_INFO"]
        if path in OPERATIONS:
            return
        method = method_label(self.environ["REQUEST_METHOD"])
        _requests(method, exchange.route, self.status).inc()
        if not exchange.streaming:
            _duration(method, exchange.route).observe(seconds)
        log_request(
            request_id=exchange.request_id,
            method=method,
            route=exchange.route,
            path=path[:200],
            status=self.status,
            duration_ms=round(seconds * 1000, 3),
            bytes=self.sent,
            client=self.environ.get("REMOTE_ADDR", ""),
            **exchange.served,
        )


class _Body:
    """A response body that counts the bytes sent, and finishes the record when the server closes it."""

    def __init__(self, chunks: Iterable[bytes], record: _Record) -> None:
        self._chunks = chunks
        self._record = record

    def __iter__(self) -> Iterator[bytes]:
        if self._record.not_modified:
            return
        for chunk in self._chunks:
            self._record.sent += len(chunk)
            yield chunk

    def close(self) -> None:
        """Close the application's response, whether or not all of it was sent."""
        try:
            if hasattr(self._chunks, "close"):
                self._chunks.close()
        finally:
            self._record.finish()


class Middleware:
    """WSGI middleware around the whole service.

    Args:
        application: The service itself.
        settings: Whether TLS is required, the allowed hosts, and when to shed load.
        limiter: Limits the requests of each client.
        lease: Returns the current version of the data while it is valid.
        answers: The responses in process memory.
        find_route: Finds the route pattern of a refused request.
        refusal_pages: For browsers, a page for each reason to refuse, with :data:`REQUEST_ID_MARK` in it.
        page_headers: Headers of those pages.
    """

    def __init__(
        self,
        application: WSGIApplication,
        settings: Settings,
        limiter: Limiter,
        lease: Lease,
        answers: ProcessAnswers,
        *,
        find_route: Callable[[WSGIEnvironment], str] = lambda _environ: "other",
        refusal_pages: Mapping[Refusal, bytes] | None = None,
        page_headers: Headers | None = None,
    ) -> None:
        self._application = application
        self._limiter = limiter
        self._lease = lease
        self._answers = answers
        self._find_route = find_route
        self._refusal_pages = refusal_pages or {}
        self._page_headers = page_headers or []
        self._shed_seconds = settings.shed_seconds
        self._allowed_hosts = settings.allowed_hosts
        self._headers = {
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "strict-origin-when-cross-origin",
            "X-Frame-Options": "DENY",
            "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
            "Cross-Origin-Resource-Policy": "cross-origin",
        }
        if settings.require_https:
            self._headers["Strict-Transport-Security"] = "max-age=63072000; includeSubDomains"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request (PEP 3333)."""
        exchange = exchange_of(environ)
        given = environ.get("HTTP_X_REQUEST_ID")
        exchange.request_id = given if given and _REQUEST_ID.fullmatch(given) else new_request_id()
        record = _Record(environ, exchange)
        extra = [("X-Request-ID", exchange.request_id)]
        check_body(environ)
        try:
            path = environ["PATH_INFO"]
            if path in OPERATIONS:
                return self._call_application(environ, start_response, record, extra)
            extra += self._admit(environ, exchange, path)
            if exchange.refusal is None and environ["REQUEST_METHOD"] == "GET" and "HTTP_RANGE" not in environ:
                cached = self._from_memory(environ, start_response, record, extra)
                if cached is not None:
                    return cached
            return self._call_application(environ, start_response, record, extra)
        except BaseException:
            record.finish()
            raise

    def _admit(self, environ: WSGIEnvironment, exchange: Exchange, path: str) -> Headers:
        """Set ``exchange.refusal`` if the request is refused, and return the headers of the decision."""
        if environ.get("wsgi.url_scheme") not in _SCHEMES:
            environ["wsgi.url_scheme"] = "http"
        if self._allowed_hosts and not host_is_trusted(environ.get("HTTP_HOST", "").lower(), self._allowed_hosts):
            exchange.refusal = "unknown-host"
            return []
        if exchange.refusal is None and exchange.queue_seconds > self._shed_seconds:
            exchange.refusal = "overloaded"
        if exchange.refusal is not None:
            SHED.inc()
            return [("Retry-After", "1")]
        if path.startswith(_UNLIMITED):
            return []
        client = self._limiter.client(environ.get("REMOTE_ADDR", ""), environ.get("HTTP_AUTHORIZATION"))
        allowed, remaining, reset = self._limiter.hit(client)
        headers = [
            ("RateLimit-Policy", self._limiter.policy),
            ("RateLimit", f'"default";r={remaining};t={reset}'),
        ]
        if not allowed:
            exchange.refusal = "too-many-requests"
            headers.append(("Retry-After", str(reset)))
        return headers

    def _from_memory(
        self, environ: WSGIEnvironment, start_response: StartResponse, record: _Record, extra: Headers
    ) -> Iterable[bytes] | None:
        """Respond from process memory if the response is there and current; None otherwise."""
        versions = self._lease.versions()
        cached = self._answers.get(_key(environ), versions) if versions is not None else None
        if cached is None or versions is None:
            _MISS.inc()
            return None
        _HIT.inc()
        headers = cached.headers + extra
        if "HTTP_X_RATES_EXPLAIN" in environ:
            headers.append(_explain("process", versions.generation))
        body = cached.body
        record.status = 200
        if (known := environ.get("HTTP_IF_NONE_MATCH")) and _matches(known, cached.tag):
            record.status = 304
            body = b""
            headers = [each for each in headers if not each[0].startswith("Content-")]
            start_response("304 NOT MODIFIED", headers)
        else:
            start_response("200 OK", headers)
        record.sent = len(body)
        record.exchange.route = cached.route
        record.exchange.served = {"cache": "process", "generation": versions.generation}
        record.finish()
        return (body,)

    def _call_application(
        self, environ: WSGIEnvironment, start_response: StartResponse, record: _Record, extra: Headers
    ) -> Iterable[bytes]:
        """Call the application; cache its response if allowed, and send 304 if the client has it already."""
        known = environ.pop("HTTP_IF_NONE_MATCH", None)
        exchange = record.exchange

        def start(status: str, headers: Headers, exc_info: Any = None) -> Any:
            record.status = int(status[:3])
            present = {name.lower() for name, _ in headers}
            headers = headers + [(name, value) for name, value in self._headers.items() if name.lower() not in present]
            tag = next((value for name, value in headers if name == "ETag"), None)
            if tag is not None and record.status in _REPRESENTATIONS:
                cacheable = exchange.cacheable if record.status == HTTPStatus.OK else None
                if cacheable and environ["REQUEST_METHOD"] == "GET":
                    slot, version, question, body = cacheable
                    entry = CachedResponse(slot, version, question, exchange.route, headers, body, tag)
                    self._answers.put(_key(environ), entry)
                if known and _matches(known, tag):
                    record.not_modified, record.status, status = True, 304, "304 NOT MODIFIED"
                    headers = [each for each in headers if not each[0].startswith("Content-")]
            headers = headers + extra
            if "HTTP_X_RATES_EXPLAIN" in environ and "cache" in exchange.served:
                headers.append(_explain(exchange.served["cache"], exchange.served["generation"]))
            return start_response(status, headers, exc_info) if exc_info else start_response(status, headers)

        if exchange.refusal is not None:
            return _Body(self._refuse(environ, start, exchange, exchange.refusal), record)
        return _Body(self._application(environ, start), record)

    def _refuse(
        self, environ: WSGIEnvironment, start: StartResponse, exchange: Exchange, refusal: Refusal
    ) -> list[bytes]:
        """Refuse a request without calling the application, which may be overloaded."""
        exchange.route = self._find_route(environ)
        kind = KINDS[refusal]
        headers = cors_headers(environ["REQUEST_METHOD"])
        page = self._refusal_pages.get(refusal)
        if page is not None and "text/html" in environ.get("HTTP_ACCEPT", ""):
            body = page.replace(REQUEST_ID_MARK, exchange.request_id.encode())
            headers += [("Content-Type", "text/html; charset=utf-8"), *self._page_headers]
        else:
            body = problem_body(
                kind.status,
                kind.title,
                kind.advice,
                kind=refusal,
                instance=environ["PATH_INFO"],
                request_id=exchange.request_id,
            )
            headers.append(("Content-Type", MEDIA_TYPE))
        headers += [("Content-Length", str(len(body))), ("Cache-Control", "no-store"), ("Vary", "Accept")]
        start(f"{kind.status} {kind.title}", headers)
        return [body]


def _key(environ: WSGIEnvironment) -> Key:
    return (
        environ["PATH_INFO"],
        environ.get("QUERY_STRING", ""),
        environ.get("HTTP_ACCEPT"),
        environ.get("HTTP_ACCEPT_ENCODING"),
    )


def _matches(known: str, tag: str) -> bool:
    """Compare entity tags weakly (RFC 9110, 8.8.3.2); the tags of two content codings differ."""
    return known.strip() == "*" or any(each.strip().removeprefix("W/") == tag for each in known.split(","))


def _explain(source: str, generation: int) -> tuple[str, str]:
    """Describe where the response came from, in the terms of RFC 9211."""
    how = "hit" if source in {"process", "redis"} else "fwd=miss"
    return "Cache-Status", f'rates; {how}; detail="{source}, generation {generation}"'
