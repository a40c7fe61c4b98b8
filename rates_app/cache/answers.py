"""Answers shared over processes and pods: Redis keeps them by question and version of the data.

What is kept under a version never changes, so nothing can be stale: after a publish the version is another, and so is
the key. Old entries are not removed but expire.
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

#: Room is given back after a day without a publish, too: somebody may ask once and never again.
KEEP_SECONDS = 24 * 3600
#: How long one process may take to compute before another stops waiting for it.
FLIGHT_SECONDS = 5.0
#: What is larger is sent and not kept.
MAX_KEPT_BYTES = 2**20

Level = Literal["process", "redis", "database"]


class SharedAnswers:
    """Find an answer in Redis, or compute it once for everybody who asks at the same time."""

    def __init__(self, shared: Redis) -> None:
        self._redis = shared
        self._flights: dict[str, Future[tuple[Answer, Level]]] = {}
        self._lock = threading.Lock()

    def get(self, question: str, version: Stamp, compute: Callable[[], Answer]) -> tuple[Answer, Level]:
        """Return the answer to a question for a version of the data, or for a newer one.

        Args:
            question: The question in its canonical form.
            version: The version that the answer must have at least.
            compute: Makes the answer from the database, at that version or a newer one; what it raises is raised to
                everyone who waits.

        Returns:
            The answer, and where it was found.
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
        """Keep an answer under the version that it was made from, and let go of a lock."""
        key = _key(answer.version, question)

        def keep(client: redis.Redis) -> None:
            with client.pipeline(transaction=False) as pipeline:
                if answer.size <= MAX_KEPT_BYTES:
                    pipeline.set(key, answer.pack(), ex=KEEP_SECONDS)
                if lock is not None:
                    pipeline.delete(lock)
                pipeline.execute()

        self._redis.call(keep)

    def _find(self, key: str, question: str, compute: Callable[[], Answer]) -> tuple[Answer, Level]:
        lock = key + ":flight"

        def look_up_or_claim(client: redis.Redis) -> list[Any]:
            with client.pipeline(transaction=False) as pipeline:
                pipeline.get(key)
                pipeline.set(lock, b"", nx=True, px=int(FLIGHT_SECONDS * 1000))
                found, claimed = pipeline.execute(raise_on_error=False)
            if isinstance(found, Exception):
                raise found
            if isinstance(claimed, redis.RedisError):  # it takes no writes: what it has is still true
                self._redis.refused(claimed)
                claimed = True
            return [found, claimed]

        packed, claimed = self._redis.call(look_up_or_claim) or (None, True)
        if found := _unpack(packed):
            CACHE.labels("redis", "hit").inc()
            return found, "redis"
        CACHE.labels("redis", "miss" if self._redis.state == "ok" else "error").inc()
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
        """Wait while another process computes; give up when it did, failed, or takes too long."""
        deadline = time.monotonic() + FLIGHT_SECONDS
        pause = 0.002
        while self._redis.state == "ok" and time.monotonic() < deadline:
            if found := self._look_up(key):
                return found
            if not self._redis.call(lambda client: client.exists(lock)):
                return self._look_up(key)
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)
        return None

    def _look_up(self, key: str) -> Answer | None:
        return _unpack(self._redis.call(lambda client: client.get(key)))


def _key(version: Stamp, question: str) -> str:
    # The braces keep an answer and its lock in one slot of a Redis cluster.
    return f"rates:answer:{{{version.epoch}:{version.generation}:{question}}}"


def _unpack(packed: object) -> Answer | None:
    """Read what was found in Redis; what another version of the service has written is nothing."""
    if not isinstance(packed, bytes):
        return None
    try:
        return Answer.unpack(packed)
    except ValueError:
        return None
