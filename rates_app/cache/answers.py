"""Answers that processes and pods share in Redis, by query and version of the data.

An entry never changes and cannot be stale: a publication changes the version, and with it the key. Old entries expire.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Literal

import redis

from rates_app.cache.answer import Answer
from rates_app.ops.metrics import CACHE

if TYPE_CHECKING:
    from collections.abc import Callable

    from rates_app.cache.redis import Redis
    from rates_app.cache.versions import Stamp

#: Expire entries after a day. Publishing changes the key, so without a TTL old versions would stay until evicted.
TTL_SECONDS = 24 * 3600
#: How long processes wait for another one that computes the answer.
FLIGHT_SECONDS = 5.0
#: Larger answers are not stored.
MAX_STORED_BYTES = 2**20

Level = Literal["process", "redis", "database"]


class SharedAnswers:
    """Return a cached answer, or compute it once for all concurrent callers (single flight)."""

    def __init__(self, shared: Redis) -> None:
        self._redis = shared
        self._flights: dict[str, Future[tuple[Answer, Level]]] = {}
        self._lock = threading.Lock()

    def get(self, question: str, version: Stamp, compute: Callable[[], Answer]) -> tuple[Answer, Level]:
        """Return the answer to a query for a version of the data, or for a newer one.

        Args:
            question: The query in its canonical form.
            version: Minimum version of the answer.
            compute: Computes the answer from the database, at that version or a newer one. Its exception is raised in
                every waiting caller.

        Returns:
            The answer and the cache level that had it.
        """
        key = _key(version, question)
        with self._lock:
            flight = self._flights.get(key)
            first = flight is None
            if flight is None:
                flight = self._flights[key] = Future()
        if not first:
            return flight.result()
        try:
            flight.set_result(self._find(key, question, compute))
        except BaseException as error:
            flight.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._flights[key]
        return flight.result()

    def put(self, question: str, answer: Answer, lock: str | None = None) -> None:
        """Store an answer under the version that it was computed from, and release a lock."""
        key = _key(answer.version, question)

        def store(client: redis.Redis) -> None:
            with client.pipeline(transaction=False) as pipeline:
                if answer.size <= MAX_STORED_BYTES:
                    pipeline.set(key, self._redis.seal(key, answer.pack()), ex=TTL_SECONDS)
                if lock is not None:
                    pipeline.delete(lock)
                pipeline.execute()

        self._redis.call(store)

    def _find(self, key: str, question: str, compute: Callable[[], Answer]) -> tuple[Answer, Level]:
        lock = key + ":flight"

        def look_up_or_claim(client: redis.Redis) -> list[Any]:
            with client.pipeline(transaction=False) as pipeline:
                pipeline.get(key)
                pipeline.set(lock, b"", nx=True, px=int(FLIGHT_SECONDS * 1000))
                found, claimed = pipeline.execute(raise_on_error=False)
            if isinstance(found, Exception):
                raise found
            refused = isinstance(claimed, redis.RedisError)
            if refused:  # Redis accepts no writes, but its entries are valid
                self._redis.refused(claimed)
            return [found, refused or claimed, refused]

        packed, claimed, refused = self._redis.call(look_up_or_claim) or (None, True, False)
        if found := self._unpack(key, packed):
            CACHE.labels("redis", "hit").inc()
            return found, "redis"
        # A full Redis stores no response, so the alert on failed lookups must see it.
        CACHE.labels("redis", "error" if refused or self._redis.state != "ok" else "miss").inc()
        if not claimed and (found := self._await(key, lock)):
            return found, "redis"
        try:
            answer = compute()
        except BaseException:
            self._redis.call(lambda client: client.delete(lock))
            raise
        self.put(question, answer, lock)
        return answer, "database"

    def _await(self, key: str, lock: str) -> Answer | None:
        """Wait for the process that computes the answer, until it succeeds, fails or takes too long."""
        deadline = time.monotonic() + FLIGHT_SECONDS
        pause = 0.002
        while self._redis.state == "ok" and time.monotonic() < deadline:
            if found := self._look_up(key):
                return found
            # This service sets no lock without an expiry. To wait for one would never end.
            left = self._redis.call(lambda client: client.pttl(lock))
            if not isinstance(left, int) or left < 0:
                return self._look_up(key)
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)
        return None

    def _look_up(self, key: str) -> Answer | None:
        return self._unpack(key, self._redis.call(lambda client: client.get(key)))

    def _unpack(self, key: str, sealed: object) -> Answer | None:
        """Deserialize an entry of Redis; None if it is not authentic or has an unknown format."""
        packed = self._redis.unseal(key, sealed)
        if packed is None:
            return None
        try:
            return Answer.unpack(packed)
        except ValueError as error:
            self._redis.reject(key, str(error))
            return None


def _key(version: Stamp, question: str) -> str:
    # The braces assign an answer and its lock to the same slot of a Redis cluster.
    return f"rates:answer:{{{version.epoch}:{version.generation}:{question}}}"
