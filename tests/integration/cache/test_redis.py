"""Redis at its memory limit and after a failover refuses writes, which must not stop reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis
from prometheus_client import REGISTRY

from drills.waiting import wait_until
from rates_app.cache.answer import Answer
from rates_app.cache.answers import SharedAnswers
from rates_app.cache.redis import Redis
from rates_app.cache.versions import Stamp
from rates_app.local.redis import RedisServer
from rates_app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STAMP = Stamp("epoch", 1)
ANSWER = Answer.of(b"cached", "text/plain", STAMP)
COMPUTED = Answer.of(b"computed", "text/plain", STAMP)


@pytest.fixture
def server(folder: Path) -> Iterator[RedisServer]:
    with RedisServer(folder / "redis") as own:
        yield own


def connected(server: RedisServer) -> Redis:
    return Redis(Settings.model_validate({"database_url": "postgresql://nowhere/rates", "redis_url": server.url}))


def lookups(result: str) -> float:
    """Return how many lookups in Redis had a result."""
    value = REGISTRY.get_sample_value("rates_cache_requests_total", {"level": "redis", "result": result})
    return value or 0.0


def test_reads_continue_with_a_full_redis(server: RedisServer) -> None:
    shared = connected(server)
    answers = SharedAnswers(shared)
    answers.put("known", ANSWER)
    with redis.Redis.from_url(server.url) as admin:
        admin.config_set("maxmemory-policy", "noeviction")
        admin.config_set("maxmemory", "1")
    assert answers.get("known", STAMP, lambda: COMPUTED) == (ANSWER, "redis")
    before = lookups("error")
    assert answers.get("new", STAMP, lambda: COMPUTED) == (COMPUTED, "database")
    assert lookups("error") == before + 1, "the alert CacheDown does not see a full Redis"
    assert answers.get("known", STAMP, lambda: COMPUTED) == (ANSWER, "redis")
    assert shared.state == "ok"


def test_a_server_that_lost_its_role_loses_its_connections(server: RedisServer) -> None:
    """Its address resolves to another server; writes on old connections would fail forever."""
    shared = connected(server)
    answers = SharedAnswers(shared)
    answers.put("known", ANSWER)
    before = shared.call(lambda client: client.client_id())
    with redis.Redis.from_url(server.url) as admin:
        admin.config_set("replica-serve-stale-data", "yes")
        admin.replicaof("127.0.0.1", "1")
        assert answers.get("known", STAMP, lambda: COMPUTED) == (ANSWER, "redis")
        assert answers.get("new", STAMP, lambda: COMPUTED) == (COMPUTED, "database")
        admin.replicaof("NO", "ONE")
    wait_until(lambda: answers.get("new", STAMP, lambda: COMPUTED)[1] == "redis")
    after = shared.call(lambda client: client.client_id())
    assert before is not None
    assert after is not None
    assert before != after
