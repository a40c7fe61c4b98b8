"""Probes, metrics and the status page, on a separate port with separate threads.

Clients of the service cannot delay the kubelet or Prometheus: their connections share no thread with these. A network
policy closes the port to the public.
"""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler

from prometheus_client.exposition import ThreadingWSGIServer

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from flask import Flask

#: Served on the operations port only.
PRIVATE = frozenset({"/metrics", "/status"})
#: Served on both ports: health checks of DNS and of other regions come from outside.
PROBES = frozenset({"/healthz", "/readyz"})

#: Timeout of a connection to this port without progress.
TIMEOUT_SECONDS = 5
_BACKLOG = 64


class _ProbeHandler(WSGIRequestHandler):
    timeout = TIMEOUT_SECONDS

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Log nothing: there are several probes per minute."""


class _Server(ThreadingWSGIServer):
    """A server on a listener that several processes share."""

    def __init__(self, listener: socket.socket, application: WSGIApplication) -> None:
        host, port = listener.getsockname()[:2]
        super().__init__((host, port), _ProbeHandler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.server_name, self.server_port = host, port
        self.setup_environ()
        self.set_app(application)


def listen(host: str, port: int) -> socket.socket:
    """Open the listener. Call it before the fork, so that all workers share it."""
    listener = socket.create_server((host, port), backlog=_BACKLOG)
    # Every worker wakes up for a connection, and only one accepts it. The others must not block in accept.
    listener.setblocking(False)
    return listener


def _send(start_response: StartResponse, status: str, text: str) -> list[bytes]:
    body = text.encode()
    start_response(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]


def serve_operations(listener: socket.socket, app: Flask) -> None:
    """Serve the operations port in threads of this process. Call it after the fork."""

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/healthz":
            return _send(start_response, "200 OK", "ok\n")  # the process is alive, even if the application fails
        if path in PRIVATE or path in PROBES or path.startswith("/static/"):
            return app.wsgi_app(environ, start_response)
        return _send(start_response, "404 Not Found", f"This port serves {', '.join(sorted(PRIVATE | PROBES))}.\n")

    server = _Server(listener, application)
    threading.Thread(target=server.serve_forever, name="operations", daemon=True).start()
