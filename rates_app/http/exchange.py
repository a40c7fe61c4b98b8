"""The state of one request that the server, the middleware and the endpoints share.

It is stored in the WSGI environment under one key. The server creates it when a request's head is complete, so that
time in the queue is measured. With a test client the middleware creates it.
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

#: Reasons to refuse a request before it reaches the application; each is a kind of problem.
Refusal = Literal["overloaded", "too-many-requests", "unknown-host"]


class Cacheable(NamedTuple):
    """Data with which the middleware caches a response in process memory.

    Attributes:
        slot: The slot of the lane that the response depends on; None if it depends on all data.
        version: The generation that last changed the slot, within its epoch.
        question: The query in its canonical form.
        body: The response body, encoded.
    """

    slot: int | None
    version: Stamp
    question: str
    body: bytes


@dataclass(slots=True)
class Exchange:
    """One request, and the layers' information about its response.

    Attributes:
        received_at: When the request's head was complete, by ``time.perf_counter``.
        queue_seconds: Seconds that the request waited for a thread after that.
        request_id: The client's request id if it is harmless in logs and headers, otherwise a new one.
        route: The route's pattern; ``other`` for an unknown path.
        served: Fields of the request's log line, such as the cache level and the generation.
        cacheable: Set by endpoints whose response may be cached in process memory.
        streaming: Whether the response stays open by design, so that its duration is not a latency.
        refusal: Why the request is refused; None if it is not, or not yet.
        public: Whether the request arrived on the public port.
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
    """Return the exchange of a request; create it if another server runs the application."""
    exchange = environ.get(ENVIRON_KEY)
    if not isinstance(exchange, Exchange):
        exchange = environ[ENVIRON_KEY] = Exchange()
    return exchange


def current_exchange() -> Exchange:
    """Return the exchange of the request that the current thread handles."""
    return exchange_of(request.environ)
