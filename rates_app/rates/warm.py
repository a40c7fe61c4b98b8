"""Warm the cache before a publication: compute the answers to the most frequent queries."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

import psycopg
import structlog

from rates_app.cache.answer import Answer
from rates_app.cache.answers import SharedAnswers
from rates_app.rates.answers import CONTENT_TYPES, RatesQuestion, UnknownLocation
from rates_app.rates.model import RangeError
from rates_app.store.generation import lane_version

if TYPE_CHECKING:
    from redis import Redis as Client

    from rates_app.cache.redis import Redis
    from rates_app.store.databases import Connection
    from rates_app.store.generation import Warm

log = structlog.get_logger()

#: Maximum number of answers, and the maximum time that a publication spends on them.
MAX_QUESTIONS = 100
MAX_SECONDS = 2.0
PERIOD_SECONDS = 60


#: Name under which members of the sets are authenticated: the same in every period, because two periods are merged.
_NAME = "rates:hot"


def _key(period: int) -> str:
    return f"rates:{{hot}}:{period}"  # all in one slot of a Redis cluster, so that they can be merged


def report_hits(redis: Redis, hits: dict[str, int]) -> None:
    """Add to the number of requests of each query."""

    def add(client: Client) -> None:
        key = _key(int(time.time() // PERIOD_SECONDS))
        with client.pipeline(transaction=False) as pipeline:
            for question, number in hits.items():
                pipeline.zincrby(key, number, redis.seal(_NAME, question.encode()))
            pipeline.zremrangebyrank(key, 0, -10 * MAX_QUESTIONS)
            pipeline.expire(key, 3 * PERIOD_SECONDS)
            pipeline.execute()

    if hits:
        redis.call(add)


def warmer(redis: Redis) -> Warm:
    """Create the function with which a publisher computes the answers that its transaction changes.

    The answers are stored under the transaction's generation. No request reads it before the commit, and none ever
    does if the transaction rolls back.

    Args:
        redis: Where to store the answers; nothing is done while it is unreachable.
    """

    def warm(connection: Connection) -> None:
        try:
            with connection.transaction():  # an error here must not fail the publication
                prepare(connection)
        except Exception:
            log.exception("cache_warming_failed")

    def prepare(connection: Connection) -> None:
        period = int(time.time() // PERIOD_SECONDS)
        names = cast("list[bytes]", redis.call(lambda client: client.zunion([_key(period - 1), _key(period)])) or [])
        shared = SharedAnswers(redis)
        deadline = time.monotonic() + MAX_SECONDS
        warmed = 0
        for name in reversed(names[-MAX_QUESTIONS:]):  # the hottest first
            if time.monotonic() > deadline:
                break
            if (question := redis.unseal(_NAME, name)) is not None:
                warmed += _prepare(shared, connection, question.decode())
        log.info("cache_warmed", answers=warmed)

    return warm


def _prepare(shared: SharedAnswers, connection: Connection, canonical: str) -> bool:
    """Compute and store an answer if the transaction changes it."""
    try:
        asked = RatesQuestion.parse(canonical)
    except ValueError:  # of another version of the service, or not about rates
        return False
    version = lane_version(connection, asked.question.origin, asked.question.destination)
    if version.lane != version.newest:
        return False
    try:
        with connection.transaction():
            body = asked.render(connection)
    except (UnknownLocation, RangeError, psycopg.errors.QueryCanceled):
        return False
    shared.put(canonical, Answer.of(body, CONTENT_TYPES[asked.media_type], version.lane))
    return True
