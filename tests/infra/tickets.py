"""A ticket system on this machine, with the contract of the ticket function."""

from __future__ import annotations

import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = "s3cret"


class TicketSystem(HTTPServer):
    """Keeps tickets in memory and answers as the function's contract says."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _TicketHandler)
        self.tickets: list[dict[str, Any]] = []
        self.broken = False


class _TicketHandler(BaseHTTPRequestHandler):
    server: TicketSystem

    def do_GET(self) -> None:
        query = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
        self._answer([ticket for ticket in self.server.tickets if query.items() <= ticket.items()])

    def do_POST(self) -> None:
        ticket = {**self._body(), "state": "open", "id": len(self.server.tickets) + 1}
        if self._answer(ticket):
            self.server.tickets.append(ticket)

    def do_PATCH(self) -> None:
        (ticket,) = (one for one in self.server.tickets if f"/{one['id']}" == self.path.removeprefix("/tickets"))
        if self._answer({}):
            ticket.update(self._body())

    def _body(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        return body

    def _answer(self, body: object) -> bool:
        authorised = self.headers["Authorization"] == f"Bearer {TOKEN}"
        status = 503 if self.server.broken else 200 if authorised else 401
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body if status == 200 else {}).encode())
        return status == 200

    def log_message(self, *_: Any) -> None:
        """Keep the test's output quiet."""


@contextmanager
def ticket_system() -> Iterator[TicketSystem]:
    """Run a ticket system while the context is active."""
    with TicketSystem() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
