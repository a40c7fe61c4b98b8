"""Redis as an optional store: short timeouts, a circuit breaker, and authenticated content.

An attacker with write access to Redis must not be able to change responses. Entries are authenticated with a keyed
hash of their name and content. An entry that is not authentic is ignored, counted and logged.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

import redis
import structlog
from redis.sentinel import Sentinel

from rates_app.ops.metrics import CACHE

if TYPE_CHECKING:
    from collections.abc import Callable

    from rates_app.settings import Settings

Result = TypeVar("Result")

log = structlog.get_logger()

#: A slow Redis must not make a request slower than PostgreSQL.
TIMEOUT_SECONDS = 0.1
RETRY_SECONDS = 1.0
_TAG_BYTES = 16
SENTINEL_SCHEME = "redis+sentinel"
SENTINEL_PORT = 26379

#: Errors of a single entry with an unexpected type; Redis itself works.
_ENTRY_ERRORS = ("WRONGTYPE", "not an integer", "not a valid float")
#: Minimum time between two log events about a full Redis.
FULL_SECONDS = 60.0


def connect_redis(url: str, timeout_seconds: float, **options: Any) -> redis.Redis:
    """Create a client of a Redis server, or of the primary that Sentinels name at the time of each connection.

    Args:
        url: ``redis://``, ``rediss://``, ``unix://``, or ``redis+sentinel://user:password@host:port,host:port/name/0``
            with the Sentinels' addresses, the primary's name and the number of the database.
        timeout_seconds: Timeout of a connection and of a command.
        options: Further arguments of the client.
    """
    timeouts = {"socket_timeout": timeout_seconds, "socket_connect_timeout": timeout_seconds, "retry": None}
    parts = urlsplit(url)
    if parts.scheme != SENTINEL_SCHEME:
        return redis.Redis.from_url(url, **timeouts, **options)
    login, _, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    name, _, number = parts.path.strip("/").partition("/")
    addresses = [
        (host, int(port or SENTINEL_PORT)) for host, _, port in (each.partition(":") for each in hosts.split(","))
    ]
    client: redis.Redis = Sentinel(addresses, sentinel_kwargs=timeouts).master_for(  # type: ignore[no-untyped-call]
        name,
        username=unquote(user) or None,
        password=unquote(password) or None,
        db=int(number or 0),
        **timeouts,
        **options,
    )
    return client


class Redis:
    """A connection pool with a circuit breaker around it.

    Args:
        settings: The address and the key of the cache. Without an address, Redis is unavailable to every call.
    """

    def __init__(self, settings: Settings) -> None:
        self.client: redis.Redis | None = None
        if settings.redis_url is not None:
            self.client = connect_redis(
                settings.redis_url.get_secret_value(), TIMEOUT_SECONDS, health_check_interval=0, client_name="rates"
            )
        secret = settings.cache_key.get_secret_value() if settings.cache_key else ""
        self._key = hashlib.sha256(b"rates cache" + secret.encode()).digest()
        self._closed_until = 0.0
        self._full_until = 0.0
        self._down = False

    @property
    def state(self) -> str:
        """``ok``, ``unreachable`` or ``not configured``."""
        if self.client is None:
            return "not configured"
        return "unreachable" if self._down else "ok"

    def seal(self, name: str, content: bytes) -> bytes:
        """Add an authentication tag to an entry.

        Args:
            name: The entry's name, so that an entry cannot be moved to another name.
            content: The entry's content.

        Returns:
            The tag and the content.
        """
        return self._tag(name, content) + content

    def unseal(self, name: str, sealed: object) -> bytes | None:
        """Return the content of an authentic entry; None otherwise.

        Args:
            name: The entry's name.
            sealed: The result of :meth:`seal` as returned by Redis; None if there is no entry.
        """
        if sealed is None:
            return None
        if isinstance(sealed, bytes):
            tag, content = sealed[:_TAG_BYTES], sealed[_TAG_BYTES:]
            if hmac.compare_digest(tag, self._tag(name, content)):
                return content
        self.reject(name, "not authentic")
        return None

    def reject(self, name: str, reason: str) -> None:
        """Count and log an entry that this service did not write."""
        CACHE.labels("redis", "invalid").inc()
        log.warning("cache_entry_rejected", name=name[:200], reason=reason)

    def _tag(self, name: str, content: bytes) -> bytes:
        tag = hashlib.blake2b(key=self._key, digest_size=_TAG_BYTES)
        tag.update(name.encode() + b"\0")
        tag.update(content)
        return tag.digest()

    def call(self, use: Callable[[redis.Redis], Result]) -> Result | None:
        """Use Redis if it is available.

        While it is unavailable, one call per second retries and the others return immediately.

        Args:
            use: Called with the client.

        Returns:
            The result of ``use``; None if Redis is unavailable or refused a write. :attr:`state` distinguishes them.
        """
        now = time.monotonic()
        if self.client is None or now < self._closed_until:
            return None
        if self._down:
            self._closed_until = now + RETRY_SECONDS  # only this call retries
        try:
            result = use(self.client)
        except redis.exceptions.OutOfMemoryError as error:
            self.refused(error)
            return None
        except (redis.RedisError, OSError) as error:
            if isinstance(error, redis.ResponseError) and any(text in str(error) for text in _ENTRY_ERRORS):
                self.reject(str(error), "wrong type")
                return None
            if isinstance(error, redis.exceptions.ReadOnlyError):
                self.refused(error)
            self._closed_until = time.monotonic() + RETRY_SECONDS
            if not self._down:
                log.warning("redis_unreachable", error=type(error).__name__)
            self._down = True
            return None
        if self._down:
            log.info("redis_recovered")
            self._down, self._closed_until = False, 0.0
        return result

    def refused(self, error: redis.RedisError) -> None:
        """Handle a refused write; reads still work.

        A server at its memory limit with the policy ``noeviction`` stays in use for reads. A server that became a
        replica in a failover keeps its connections. They are closed, because new ones reach the new primary.
        """
        if isinstance(error, redis.exceptions.ReadOnlyError) and self.client is not None:
            log.warning("redis_is_replica", error=str(error))
            self.client.connection_pool.disconnect()
        elif (now := time.monotonic()) > self._full_until:
            self._full_until = now + FULL_SECONDS
            log.warning("redis_full", error=str(error), effect="responses are computed, and not shared")

    def close(self) -> None:
        """Close the connections."""
        if self.client is not None:
            self.client.close()
