"""Serve health and metrics for roles that serve no HTTP otherwise."""

from __future__ import annotations

import threading
from http import HTTPStatus
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, make_server

import structlog
from prometheus_client import make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.simple_server import WSGIServer
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

log = structlog.get_logger()

#: Alertmanager's messages are far smaller.
MAX_BODY_BYTES = 2**20


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Log nothing: probes and scrapes arrive several times a minute."""


def start_exporter(
    host: str, port: int, ready: Callable[[], bool], webhook: Callable[[bytes], None] | None = None
) -> WSGIServer:
    """Serve ``/healthz``, ``/readyz`` and ``/metrics`` on a background thread.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 chooses a free port.
        ready: Called on every ``/readyz``; returns whether this process is ready.
        webhook: Takes the body of a ``POST /webhook``. The response is 400 if it raises ValueError. If it raises
            another exception, the response is 503, after which the sender tries again.

    Returns:
        The server; the caller shuts it down.
    """
    metrics: WSGIApplication = make_wsgi_app()

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO")
        if path == "/metrics":
            return metrics(environ, start_response)
        status, text = HTTPStatus.NOT_FOUND, "Not found. Available paths: /healthz, /readyz, /metrics."
        if path == "/webhook" and webhook is not None and environ["REQUEST_METHOD"] == "POST":
            status, text = _call(webhook, environ)
        elif path == "/healthz" or (path == "/readyz" and ready()):
            status, text = HTTPStatus.OK, "ok"
        elif path == "/readyz":
            status, text = HTTPStatus.SERVICE_UNAVAILABLE, "not ready"
        body = f"{text}\n".encode()
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
        start_response(f"{status.value} {status.phrase}", headers)
        return [body]

    server = make_server(host, port, application, server_class=ThreadingWSGIServer, handler_class=_QuietHandler)
    threading.Thread(target=server.serve_forever, name="exporter", daemon=True).start()
    return server


def _call(webhook: Callable[[bytes], None], environ: WSGIEnvironment) -> tuple[HTTPStatus, str]:
    length = min(int(environ.get("CONTENT_LENGTH") or 0), MAX_BODY_BYTES)
    try:
        webhook(environ["wsgi.input"].read(length))
    except ValueError as error:
        return HTTPStatus.BAD_REQUEST, str(error)
    except Exception as error:
        log.exception("webhook_failed")
        return HTTPStatus.SERVICE_UNAVAILABLE, str(error)
    return HTTPStatus.OK, "ok"
