"""Serve health and metrics for roles that serve no HTTP otherwise."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.simple_server import WSGIServer
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Log nothing: probes and scrapes arrive several times a minute."""


def start_exporter(host: str, port: int, ready: Callable[[], bool]) -> WSGIServer:
    """Serve ``/healthz``, ``/readyz`` and ``/metrics`` on a background thread.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 chooses a free port.
        ready: Called on every ``/readyz``; returns whether this process is ready.

    Returns:
        The server; the caller shuts it down.
    """
    metrics: WSGIApplication = make_wsgi_app()

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO")
        if path == "/metrics":
            return metrics(environ, start_response)
        status, text = "404 Not Found", b"Not found. Available paths: /healthz, /readyz, /metrics.\n"
        if path == "/healthz" or (path == "/readyz" and ready()):
            status, text = "200 OK", b"ok\n"
        elif path == "/readyz":
            status, text = "503 Service Unavailable", b"not ready\n"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(text)))])
        return [text]

    server = make_server(host, port, application, server_class=ThreadingWSGIServer, handler_class=_QuietHandler)
    threading.Thread(target=server.serve_forever, name="exporter", daemon=True).start()
    return server
