"""Redis as a help that may be away at any time: short time-outs, and no second try while it is known to be down."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

import redis
import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from rates_app.settings import Settings

Result = TypeVar("Result")

log = structlog.get_logger()

#: A slow Redis must not make a request slower than PostgreSQL would.
TIMEOUT_SECONDS = 0.1
RETRY_SECONDS = 1.0


class Redis:
    """A connection pool with a circuit breaker around it.

    Args:
        settings: The address; without one every call finds Redis away.
    """

    def __init__(self, settings: Settings) -> None:
        self.client: redis.Redis | None = None
        if settings.redis_url is not None:
            self.client = redis.Redis.from_url(
                settings.redis_url.get_secret_value(),
                socket_timeout=TIMEOUT_SECONDS,
                socket_connect_timeout=TIMEOUT_SECONDS,
                retry=None,
                health_check_interval=0,
                client_name="rates",
            )
        self._closed_until = 0.0
        self._down = False

    @property
    def state(self) -> str:
        """``ok``, ``unreachable`` or ``not configured``."""
        if self.client is None:
            return "not configured"
        return "unreachable" if self._down else "ok"

    def call(self, use: Callable[[redis.Redis], Result]) -> Result | None:
        """Use Redis if it is there.

        While Redis is down one call a second tries it and the others do not wait.

        Args:
            use: What to do with the client.

        Returns:
            What ``use`` returns, or None when Redis is away; :attr:`state` tells which.
        """
        now = time.monotonic()
        if self.client is None or now < self._closed_until:
            return None
        if self._down:
            self._closed_until = now + RETRY_SECONDS  # this call is the one that tries
        try:
            result = use(self.client)
        except (redis.RedisError, OSError) as error:
            self._closed_until = time.monotonic() + RETRY_SECONDS
            if not self._down:
                log.warning("redis unreachable", error=type(error).__name__)
            self._down = True
            return None
        if self._down:
            log.info("redis is back")
            self._down, self._closed_until = False, 0.0
        return result

    def close(self) -> None:
        """Give the connections back."""
        if self.client is not None:
            self.client.close()
