"""Request limits per client. Each process counts, and exchanges its counts through Redis four times per second.

A request never waits for Redis. A client that spreads its requests over many processes can therefore exceed its limit
by the requests that they accept between two exchanges. Without Redis, each process applies the limit by itself.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import redis

    from rates_app.cache.redis import Redis

EXCHANGE_SECONDS = 0.25

#: How long an accepted token has its own limit. After it is revoked, that ends within this time.
TOKEN_SECONDS = 60.0

#: Providers assign each IPv6 customer at least a network of this prefix length, with all its addresses.
_IPV6_CLIENT_BITS = 64

_PERIODS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_RATE = re.compile(r"([1-9][0-9]*)/(second|minute|hour|day)")
#: Totals in Redis above this are not plausible and are ignored.
_MAX_TOTAL = 2**53


class Decision(NamedTuple):
    """Whether a request is allowed, and the rest of the client's limit in the current window."""

    allowed: bool
    remaining: int
    reset_seconds: int


@dataclass(slots=True)
class _Count:
    elsewhere: int = 0
    here: int = 0
    reported: int = 0


@lru_cache(maxsize=16384)
def client_network(address: str) -> str:
    """Return the identity of a client: an IPv4 address, or the /64 network of an IPv6 address.

    Args:
        address: The peer's address. Other text is returned unchanged.
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((ip, _IPV6_CLIENT_BITS), strict=False))
    return str(ip)


class Limiter:
    """Limits the requests of each client in fixed windows.

    A client is identified by its token if the token was accepted recently, otherwise by its address. So invented
    tokens don't evade the limit of an address, and suppliers behind one address don't share a limit.

    Args:
        rate: The limit as COUNT/PERIOD, for example ``1200/minute``.
        redis: Where processes exchange their counts.
        counted: What is counted, if it is not requests: distinguishes the counts in Redis.

    Raises:
        ValueError: The rate is malformed.
    """

    def __init__(self, rate: str, redis: Redis, counted: str = "") -> None:
        parsed = _RATE.fullmatch(rate)
        if parsed is None:
            raise ValueError(f"Invalid rate limit {rate!r}. Expected COUNT/PERIOD with second, minute, hour or day.")
        self.amount = int(parsed[1])
        self.period = _PERIODS[parsed[2]]
        self.policy = f'"default";q={self.amount};w={self.period}'
        self._redis = redis
        self._prefix = f"{counted}:" if counted else ""
        self._window = 0
        self._counts: dict[str, _Count] = {}
        self._tokens: dict[str, float] = {}
        self._lock = threading.Lock()

    def accept_token(self, secret: str) -> None:
        """Give an accepted token its own limit."""
        now = time.monotonic()
        with self._lock:
            if len(self._tokens) > 10_000:  # noqa: PLR2004 - far more tokens than there are suppliers
                self._tokens = {key: until for key, until in self._tokens.items() if until > now}
            self._tokens[_token_key(secret)] = now + TOKEN_SECONDS

    def client(self, address: str, authorization: str | None) -> str:
        """Return the name under which a request is counted.

        Args:
            address: The peer's address.
            authorization: Value of the Authorization header.
        """
        if authorization and authorization[:7].lower() == "bearer ":
            key = _token_key(authorization[7:].strip())
            if self._tokens.get(key, 0.0) > time.monotonic():
                return key
        return client_network(address)

    def hit(self, client: str) -> Decision:
        """Count a request of a client and decide."""
        now = time.time()
        window = int(now // self.period)
        with self._lock:
            if window != self._window:
                self._window = window
                self._counts = {}  # all windows end at the same time, so memory is bounded by one window
            count = self._counts.get(client)
            if count is None:
                count = self._counts[client] = _Count()
            used = count.here + count.elsewhere
            allowed = used < self.amount
            if allowed:  # refused requests are not counted, so a client has to wait for the window's end only
                count.here += 1
                used += 1
        return Decision(allowed, max(0, self.amount - used), int((window + 1) * self.period - now) + 1)

    def exchange(self) -> None:
        """Add the counts since the last exchange to Redis, and read the totals of all processes."""
        with self._lock:
            window = self._window
            news = [(client, count, count.here - count.reported) for client, count in self._counts.items()]
            news = [each for each in news if each[2] > 0]
        if not news:
            return

        def add(client: redis.Redis) -> list[int]:
            with client.pipeline(transaction=False) as pipeline:
                for name, _, hits in news:
                    key = f"rates:limit:{self._prefix}{window}:{name}"
                    pipeline.incrby(key, hits)
                    pipeline.expire(key, self.period * 2)
                replies: list[int] = pipeline.execute()
                return replies[::2]

        totals = self._redis.call(add)
        if totals is None:
            return
        with self._lock:
            for (_, count, hits), total in zip(news, totals, strict=True):
                count.reported += hits
                if count.reported <= total <= _MAX_TOTAL:
                    count.elsewhere = total - count.reported


def _token_key(secret: str) -> str:
    return "token:" + hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()[:32]
