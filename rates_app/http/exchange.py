"""The state of one request that the server, the middleware and the endpoints share.

It travels in the WSGI environment under one key. The server creates it when a request's head is complete, so that the
time in the queue counts; under a test client the middleware creates it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from flask import request

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

    from rates_app.cache.versions import Stamp

ENVIRON_KEY = "rates.exchange"

#: Why a request is refused before the application sees it; each is a kind of problem.
Refusal = Literal["overloaded", "too-many-requests", "unknown-host"]


class Cacheable(NamedTuple):
    """What the middleware needs to keep a response in the process's memory.

    Attributes:
        slot: The slot of the lane that the response depends on; None if it depends on everything.
        version: The generation that changed the slot last, within its epoch.
        question: The question in its canonical form.
        body: The body as it is sent.
    """

    slot: int | None
    version: Stamp
    question: str
    body: bytes


@dataclass(slots=True)
class Exchange:
    """One request and what is known about its response.

    Attributes:
        received_at: When the request's head was complete, by ``time.perf_counter``.
        queue_seconds: How long it waited for a thread after that.
        request_id: The client's own id where it is harmless, else a new one.
        route: The pattern of the route that answers; ``other`` for an unknown path.
        served: Fields for the request's log line, such as the cache level and the generation.
        cacheable: Set by endpoints whose response may be kept in memory.
        streaming: Whether the response stays open by design, so that its duration says nothing about latency.
        refusal: Why the request must be refused, where that is decided already.
        public: Whether the request came in on the public port.
    """

    received_at: float = field(default_factory=time.perf_counter)
    queue_seconds: float = 0.0
    request_id: str = ""
    route: str = "other"
    served: dict[str, Any] = field(default_factory=dict)
    cacheable: Cacheable | None = None
    streaming: bool = False
    refusal: Refusal | None = None
    public: bool = False


def exchange_of(environ: WSGIEnvironment) -> Exchange:
    """Return the exchange of a request, and create it where no server of ours did."""
    exchange = environ.get(ENVIRON_KEY)
    if not isinstance(exchange, Exchange):
        exchange = environ[ENVIRON_KEY] = Exchange()
    return exchange


def current_exchange() -> Exchange:
    """Return the exchange of the request that the current thread handles."""
    return exchange_of(request.environ)
