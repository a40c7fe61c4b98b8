"""What every request passes before and after the application: identity, limits, metrics, log, common headers."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, Any

import structlog

from rates_app.api.problems import KINDS, MEDIA_TYPE, problem_body
from rates_app.ops.metrics import DURATION, IN_PROGRESS, REQUESTS, method_label

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from rates_app.api.limits import Limiter
    from rates_app.settings import Settings

log = structlog.get_logger()

#: Asked by kubelets and scrapers, all the time: neither limited nor logged.
OPERATIONS = frozenset({"/healthz", "/readyz", "/metrics"})

#: A client's own request id is taken when it cannot do harm in a log or a header.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:+/=-]{1,128}")


def new_request_id() -> str:
    """Make an id that sorts by time: a UUID of version 7 (RFC 9562, 5.7)."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


class _Exchange:
    """One request and its answer, from the first byte to the last."""

    def __init__(self, environ: WSGIEnvironment, request_id: str) -> None:
        self.environ = environ
        self.request_id = request_id
        self.started = time.perf_counter()
        self.status = 500
        self.sent = 0
        self._done = False
        IN_PROGRESS.inc()

    def finish(self) -> None:
        """Count and log the request, once."""
        if self._done:
            return
        self._done = True
        seconds = time.perf_counter() - self.started
        IN_PROGRESS.dec()
        method = method_label(self.environ["REQUEST_METHOD"])
        route = self.environ.get("rates.route", "other")
        REQUESTS.labels(method, route, str(self.status)).inc()
        DURATION.labels(method, route).observe(seconds)
        if self.environ["PATH_INFO"] not in OPERATIONS:
            log.info(
                "request",
                request_id=self.request_id,
                method=method,
                route=route,
                path=self.environ["PATH_INFO"][:200],
                status=self.status,
                duration_ms=round(seconds * 1000, 3),
                bytes=self.sent,
                client=self.environ.get("REMOTE_ADDR", ""),
                **self.environ.get("rates.served", {}),
            )


class _Body:
    """An answer's body that notes what was sent and when the server was done with it."""

    def __init__(self, chunks: Iterable[bytes], exchange: _Exchange) -> None:
        self._chunks = chunks
        self._exchange = exchange

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self._exchange.sent += len(chunk)
            yield chunk

    def close(self) -> None:
        """Let go of the application's answer, whether or not all of it was sent."""
        try:
            if hasattr(self._chunks, "close"):
                self._chunks.close()
        finally:
            self._exchange.finish()


class Edge:
    """WSGI middleware around the whole service.

    Args:
        application: The service itself.
        limiter: Decides how many requests a client may make.
        settings: Whether to insist on TLS.
    """

    def __init__(self, application: WSGIApplication, limiter: Limiter, settings: Settings) -> None:
        self._application = application
        self._limiter = limiter
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
        given = environ.get("HTTP_X_REQUEST_ID", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else new_request_id()
        environ["rates.request_id"] = request_id
        exchange = _Exchange(environ, request_id)
        extra = {"X-Request-ID": request_id}
        allowed = True
        if environ["PATH_INFO"] not in OPERATIONS:
            allowed, remaining, reset = self._limiter.hit(environ.get("REMOTE_ADDR", ""))
            extra["RateLimit-Policy"] = self._limiter.policy
            extra["RateLimit"] = f'"default";r={remaining};t={reset}'
            if not allowed:
                extra["Retry-After"] = str(reset)

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            exchange.status = int(status[:3])
            present = {name.lower() for name, _ in headers}
            headers += [(name, value) for name, value in self._headers.items() if name.lower() not in present]
            headers += extra.items()
            return start_response(status, headers, exc_info) if exc_info else start_response(status, headers)

        try:
            application = self._application if allowed else _too_many
            return _Body(application(environ, start), exchange)
        except BaseException:
            exchange.finish()
            raise


def _too_many(environ: WSGIEnvironment, start: StartResponse) -> list[bytes]:
    kind = KINDS["too-many-requests"]
    body = problem_body(
        kind.status,
        kind.title,
        "The limit of requests for this client is reached.",
        kind="too-many-requests",
        instance=environ["PATH_INFO"],
        request_id=environ["rates.request_id"],
    )
    start(
        "429 Too Many Requests",
        [("Content-Type", MEDIA_TYPE), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")],
    )
    return [body]
