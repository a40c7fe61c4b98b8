"""How many requests a client may make: counted by each process, added up in Redis a few times a second.

A request never waits for Redis. The price is that a client who spreads its requests over many processes can exceed its
limit by what they take in between two exchanges; without Redis each process limits by itself.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import limits

if TYPE_CHECKING:
    import redis

    from rates_app.cache.redis import Redis

EXCHANGE_SECONDS = 0.25


class Decision(NamedTuple):
    """Whether a request may pass, and what the client has left in the present window."""

    allowed: bool
    remaining: int
    reset_seconds: int


@dataclass(slots=True)
class _Count:
    elsewhere: int = 0
    here: int = 0
    told: int = 0


class Limiter:
    """A fixed window for each client.

    Args:
        rate: As COUNT/PERIOD, for example ``1200/minute``.
        redis: Where processes add up their counts.

    Raises:
        ValueError: The rate is something else.
    """

    def __init__(self, rate: str, redis: Redis) -> None:
        item = limits.parse(rate)
        self.amount = item.amount
        self.period = item.get_expiry()
        self.policy = f'"default";q={self.amount};w={self.period}'
        self._redis = redis
        self._window = 0
        self._counts: dict[str, _Count] = {}
        self._lock = threading.Lock()

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
        return Decision(allowed, self.amount - used, int((window + 1) * self.period - now) + 1)

    def exchange(self) -> None:
        """Tell Redis what was counted here since the last time, and learn what others counted."""
        with self._lock:
            window = self._window
            news = [(client, count, count.here - count.told) for client, count in self._counts.items()]
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
                count.told += hits
                count.elsewhere = max(0, total - count.told)
