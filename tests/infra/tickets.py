"""A ticket system on this machine, with the contract of the ticket function."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from tests.serving import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = "s3cret"


@dataclass
class TicketSystem:
    """Keeps tickets in memory and answers as the function's contract says."""

    url: str = ""
    tickets: list[dict[str, Any]] = field(default_factory=list)
    broken: bool = False

    def find(self, query: dict[str, str]) -> list[dict[str, Any]]:
        return [ticket for ticket in self.tickets if query.items() <= ticket.items()]


@contextmanager
def ticket_system() -> Iterator[TicketSystem]:
    """Run a ticket system while the context is active."""
    system = TicketSystem()

    class TicketHandler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(system.find({key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}))

        def do_POST(self) -> None:
            ticket = {**self._body(), "state": "open", "id": len(system.tickets) + 1}
            if self._answer(ticket):
                system.tickets.append(ticket)

        def do_PATCH(self) -> None:
            (ticket,) = (one for one in system.tickets if f"/tickets/{one['id']}" == self.path)
            change = self._body()
            if self._answer({}):
                ticket.update(change)

        def _body(self) -> dict[str, Any]:
            body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            return body

        def _answer(self, body: object) -> bool:
            authorised = self.headers["Authorization"] == f"Bearer {TOKEN}"
            status = 503 if system.broken else 200 if authorised else 401
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body if status == 200 else {}).encode())
            return status == 200

        def log_message(self, *_: Any) -> None:
            """Keep the test's output quiet."""

    with serving(TicketHandler) as system.url:
        yield system
