"""What every request passes before and after the application: identity, limits, the nearest cache, metrics, log."""

from __future__ import annotations

import itertools
import os
import re
import time
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from rates_app.cache.process import Kept
from rates_app.http.bodies import check_body
from rates_app.http.problems import KINDS, MEDIA_TYPE, problem_body
from rates_app.http.queueing import waited
from rates_app.ops.logs import log_request
from rates_app.ops.metrics import CACHE, DURATION, IN_PROGRESS, REQUESTS, SHED, method_label

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from prometheus_client import Counter, Histogram

    from rates_app.cache.process import Key, ProcessAnswers
    from rates_app.http.limits import Limiter
    from rates_app.settings import Settings
    from rates_app.store.lease import Lease

    Headers = list[tuple[str, str]]

#: Asked by kubelets and scrapers, all the time: neither limited nor logged.
OPERATIONS = frozenset({"/healthz", "/readyz", "/metrics"})

#: A client's own request id is taken when it cannot do harm in a log or a header.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:+/=-]{1,128}")

_MISS = CACHE.labels("process", "miss")
_HIT = CACHE.labels("process", "hit")

#: Tells the request ids of one process apart; the rest of their random bits are drawn once.
_count = itertools.count()
_random = int.from_bytes(os.urandom(8))


def new_request_id() -> str:
    """Make an id that sorts by time: a UUID of version 7 (RFC 9562, 5.7, with a counter as in 6.2)."""
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


def _tag(value: str) -> str:
    """Take an entity tag down to what it says of the content: weak or strong, in whatever coding."""
    return value.strip().removeprefix("W/").strip('"').partition("-")[0]


class _Exchange:
    """One request and its answer, from the first byte to the last."""

    def __init__(self, environ: WSGIEnvironment) -> None:
        self.environ = environ
        self.started = time.perf_counter()
        given = environ.get("HTTP_X_REQUEST_ID")
        self.request_id = given if given and _REQUEST_ID.fullmatch(given) else new_request_id()
        self.status = 500
        self.sent = 0
        self.not_modified = False
        self._done = False
        IN_PROGRESS.inc()

    def finish(self, route: str, served: dict[str, Any]) -> None:
        """Count and log the request, once."""
        if self._done:
            return
        self._done = True
        seconds = time.perf_counter() - self.started
        IN_PROGRESS.dec()
        method = method_label(self.environ["REQUEST_METHOD"])
        _requests(method, route, self.status).inc()
        if not self.environ.get("rates.stream"):  # how long a stream stays open says nothing about how fast answers are
            _duration(method, route).observe(seconds)
        if (path := self.environ["PATH_INFO"]) not in OPERATIONS:
            log_request(
                request_id=self.request_id,
                method=method,
                route=route,
                path=path[:200],
                status=self.status,
                duration_ms=round(seconds * 1000, 3),
                bytes=self.sent,
                client=self.environ.get("REMOTE_ADDR", ""),
                **served,
            )


class _Body:
    """An answer's body that notes what was sent and when the server was done with it."""

    def __init__(self, chunks: Iterable[bytes], exchange: _Exchange) -> None:
        self._chunks = chunks
        self._exchange = exchange

    def __iter__(self) -> Iterator[bytes]:
        if self._exchange.not_modified:
            return
        for chunk in self._chunks:
            self._exchange.sent += len(chunk)
            yield chunk

    def close(self) -> None:
        """Let go of the application's answer, whether or not all of it was sent."""
        try:
            if hasattr(self._chunks, "close"):
                self._chunks.close()
        finally:
            environ = self._exchange.environ
            self._exchange.finish(environ.get("rates.route", "other"), environ.get("rates.served", {}))


class Edge:
    """WSGI middleware around the whole service.

    Args:
        application: The service itself.
        settings: Whether to insist on TLS, and when to refuse.
        limiter: Decides how many requests a client may make.
        lease: Tells which of the kept answers are true.
        answers: What this process keeps.
    """

    def __init__(
        self,
        application: WSGIApplication,
        settings: Settings,
        limiter: Limiter,
        lease: Lease,
        answers: ProcessAnswers,
    ) -> None:
        self._application = application
        self._limiter = limiter
        self._lease = lease
        self._answers = answers
        self._shed_seconds = settings.shed_seconds
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
        exchange = _Exchange(environ)
        extra = [("X-Request-ID", exchange.request_id)]
        check_body(environ)
        try:
            if environ["PATH_INFO"] in OPERATIONS:
                return self._ask(environ, start_response, exchange, extra)
            if waited.seconds > self._shed_seconds:
                SHED.inc()
                environ["rates.refused"] = "overloaded"
                return self._ask(environ, start_response, exchange, [*extra, ("Retry-After", "1")])
            allowed, remaining, reset = self._limiter.hit(environ.get("REMOTE_ADDR", ""))
            extra.append(("RateLimit-Policy", self._limiter.policy))
            extra.append(("RateLimit", f'"default";r={remaining};t={reset}'))
            if not allowed:
                environ["rates.refused"] = "too-many-requests"
                return self._ask(environ, start_response, exchange, [*extra, ("Retry-After", str(reset))])
            if environ["REQUEST_METHOD"] == "GET":
                hot = self._kept(environ, start_response, exchange, extra)
                if hot is not None:
                    return hot
            return self._ask(environ, start_response, exchange, extra)
        except BaseException:
            exchange.finish("other", {})
            raise

    def _kept(
        self, environ: WSGIEnvironment, start_response: StartResponse, exchange: _Exchange, extra: Headers
    ) -> Iterable[bytes] | None:
        """Answer from this process's memory, if it holds the answer and is sure that it is true."""
        versions = self._lease.versions()
        kept = self._answers.get(_key(environ), versions) if versions is not None else None
        if kept is None or versions is None:
            _MISS.inc()
            return None
        _HIT.inc()
        headers = kept.headers + extra
        if "HTTP_X_RATES_EXPLAIN" in environ:
            headers.append(_explain("process", versions.generation))
        body = kept.body
        exchange.status = 200
        if (known := environ.get("HTTP_IF_NONE_MATCH")) and _matches(known, kept.tag):
            exchange.status = 304
            body = b""
            headers = [each for each in headers if not each[0].startswith("Content-")]
            start_response("304 NOT MODIFIED", headers)
        else:
            start_response("200 OK", headers)
        exchange.sent = len(body)
        exchange.finish(kept.route, {"cache": "process", "generation": versions.generation})
        return (body,)

    def _ask(
        self, environ: WSGIEnvironment, start_response: StartResponse, exchange: _Exchange, extra: Headers
    ) -> Iterable[bytes]:
        """Let the application answer; keep what may be kept, and answer 304 to who has it already."""
        environ["rates.request_id"] = exchange.request_id
        known = environ.pop("HTTP_IF_NONE_MATCH", None)

        def start(status: str, headers: Headers, exc_info: Any = None) -> Any:
            exchange.status = int(status[:3])
            present = {name.lower() for name, _ in headers}
            headers = headers + [(name, value) for name, value in self._headers.items() if name.lower() not in present]
            tag = next((_tag(value) for name, value in headers if name == "ETag"), None)
            if tag is not None and exchange.status == HTTPStatus.OK:
                if (kept := environ.get("rates.kept")) and environ["REQUEST_METHOD"] == "GET":
                    slot, version, question, body = kept
                    entry = Kept(slot, version, question, environ["rates.route"], headers, body, tag)
                    self._answers.put(_key(environ), entry)
                if known and _matches(known, tag):
                    exchange.not_modified, exchange.status, status = True, 304, "304 NOT MODIFIED"
                    headers = [each for each in headers if not each[0].startswith("Content-")]
            headers = headers + extra
            if "HTTP_X_RATES_EXPLAIN" in environ and (served := environ.get("rates.served")) and "cache" in served:
                headers.append(_explain(served["cache"], served["generation"]))
            return start_response(status, headers, exc_info) if exc_info else start_response(status, headers)

        application = _refuse if "rates.refused" in environ else self._application
        return _Body(application(environ, start), exchange)


def _key(environ: WSGIEnvironment) -> Key:
    return (
        environ["PATH_INFO"],
        environ.get("QUERY_STRING", ""),
        environ.get("HTTP_ACCEPT"),
        environ.get("HTTP_ACCEPT_ENCODING"),
    )


def _matches(known: str, tag: str) -> bool:
    return known.strip() == "*" or any(_tag(each) == tag for each in known.split(","))


def _explain(source: str, generation: int) -> tuple[str, str]:
    """Say where the answer came from, in the words of RFC 9211."""
    how = "hit" if source in {"process", "redis"} else "fwd=miss"
    return "Cache-Status", f'rates; {how}; detail="{source}, generation {generation}"'


def _refuse(environ: WSGIEnvironment, start: StartResponse) -> list[bytes]:
    """Refuse a request without asking the application, which is what there may be too little time for."""
    name = environ["rates.refused"]
    kind = KINDS[name]
    body = problem_body(
        kind.status,
        kind.title,
        kind.advice,
        kind=name,
        instance=environ["PATH_INFO"],
        request_id=environ["rates.request_id"],
    )
    headers = [("Content-Type", MEDIA_TYPE), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")]
    start(f"{kind.status} {kind.title}", headers)
    return [body]
