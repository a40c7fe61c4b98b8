"""Request limits per client: each process counts, and adds its counts up in Redis a few times a second.

A request never waits for Redis. The price: a client that spreads its requests over many processes can exceed its limit
by what they accept between two exchanges. Without Redis each process limits by itself.
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

#: How long a token that was accepted has a limit of its own; revoking it ends that within this time.
TOKEN_SECONDS = 60.0

#: A provider gives each IPv6 customer a network of this size at least, so the customer can use any address in it.
_IPV6_CLIENT_BITS = 64

_PERIODS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_RATE = re.compile(r"([1-9][0-9]*)/(second|minute|hour|day)")
#: Totals in Redis above this are not plausible and are ignored.
_MAX_TOTAL = 2**53


class Decision(NamedTuple):
    """Whether a request may pass, and what the client has left in the present window."""

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
    """Return what stands for one client: an IPv4 address, or the /64 network of an IPv6 address.

    Args:
        address: The peer's address; what is no address stands for itself.
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
    """A fixed window for each client.

    A client is a token where the request carries one that was accepted lately, else an address: a caller cannot escape
    the limit of its address with invented tokens, and suppliers behind one address do not share a limit.

    Args:
        rate: As COUNT/PERIOD, for example ``1200/minute``.
        redis: Where processes add up their counts.

    Raises:
        ValueError: The rate has another form.
    """

    def __init__(self, rate: str, redis: Redis) -> None:
        parsed = _RATE.fullmatch(rate)
        if parsed is None:
            raise ValueError(f"Invalid rate limit {rate!r}. Expected COUNT/PERIOD with second, minute, hour or day.")
        self.amount = int(parsed[1])
        self.period = _PERIODS[parsed[2]]
        self.policy = f'"default";q={self.amount};w={self.period}'
        self._redis = redis
        self._window = 0
        self._counts: dict[str, _Count] = {}
        self._tokens: dict[str, float] = {}
        self._lock = threading.Lock()

    def accept_token(self, secret: str) -> None:
        """Give a token that authorization has accepted a limit of its own."""
        now = time.monotonic()
        with self._lock:
            if len(self._tokens) > 10_000:  # noqa: PLR2004 - far more tokens than there are suppliers
                self._tokens = {key: until for key, until in self._tokens.items() if until > now}
            self._tokens[_token_key(secret)] = now + TOKEN_SECONDS

    def client(self, address: str, authorization: str | None) -> str:
        """Return the name under which a request counts.

        Args:
            address: The peer's address.
            authorization: Value of the header of that name.
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
                self._counts = {}  # every client's window ends at the same time: memory is bounded by one window
            count = self._counts.get(client)
            if count is None:
                count = self._counts[client] = _Count()
            used = count.here + count.elsewhere
            allowed = used < self.amount
            if allowed:  # a refused request is not counted: waiting for the window's end is enough
                count.here += 1
                used += 1
        return Decision(allowed, max(0, self.amount - used), int((window + 1) * self.period - now) + 1)

    def exchange(self) -> None:
        """Add what was counted here since the last exchange to Redis, and read the totals of all processes."""
        with self._lock:
            window = self._window
            news = [(client, count, count.here - count.reported) for client, count in self._counts.items()]
            news = [each for each in news if each[2] > 0]
        if not news:
            return

        def add(client: redis.Redis) -> list[int]:
            with client.pipeline(transaction=False) as pipeline:
                for name, _, hits in news:
                    key = f"rates:limit:{window}:{name}"
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
