"""Each role of Redis can do its work, and the server refuses everything else."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import pytest
import redis
from structlog.testing import capture_logs

from rates_app.cache.answer import Answer
from rates_app.cache.answers import SharedAnswers
from rates_app.cache.redis import Redis
from rates_app.cache.roles import RULES
from rates_app.cache.versions import Stamp
from rates_app.http.limits import Limiter
from rates_app.rates.warm import report_hits, warmer
from rates_app.settings import Settings

if TYPE_CHECKING:
    from rates_app.local.redis import RedisServer
    from rates_app.settings import DatabaseRole
    from tests.fixtures.service import Publisher

STAMP = Stamp("epoch", 1)
ANSWER = Answer.of(b"answer", "text/plain", STAMP)
OTHER = Answer.of(b"computed", "text/plain", STAMP)
HOT = '["CNSGH","SEGOT","2021-01-05","2021-01-05",null,"application/json"]'

REFUSED: dict[DatabaseRole, list[tuple[str, ...]]] = {
    "serving": [
        ("GET", "other"),
        ("SET", "other", "1"),
        ("SET", "rates:other", "1"),
        ("ZADD", "rates:{hot}:1", "1", "x"),
    ],
    "ingest": [
        ("GET", "rates:answer:{x}"),
        ("DEL", "rates:answer:{x}"),
        ("SET", "rates:limit:1:x", "1"),
        ("INCRBY", "rates:limit:1:x", "-1000"),
        ("SET", "rates:{hot}:1", "1"),
    ],
    "operator": [("SET", "other", "1"), ("KEYS", "*"), ("INCRBY", "rates:limit:1:x", "-1000")],
}
REFUSED_TO_ALL = [
    ("ACL", "LIST"),
    ("CONFIG", "GET", "*"),
    ("CONFIG", "SET", "maxmemory", "1"),
    ("EVAL", "return 1", "0"),
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("MONITOR",),
    ("REPLICAOF", "NO", "ONE"),
    ("SAVE",),
    ("SHUTDOWN",),
    ("SUBSCRIBE", "x"),
    ("CLIENT", "KILL", "ID", "1"),
]


def connected(server: RedisServer, role: DatabaseRole) -> Redis:
    url = server.role_url(role, 14)
    return Redis(Settings.model_validate({"database_url": "postgresql://nowhere/rates", "redis_url": url}))


@pytest.fixture(autouse=True)
def _empty(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rates_app.cache.redis.TIMEOUT_SECONDS", 10.0)  # a busy machine is no refusal
    with redis.Redis.from_url(redis_server.database_url(14)) as admin:
        admin.flushdb()


def warmed(shared: Redis, publisher: Publisher) -> int:
    """Publish a price and return how many answers were warmed."""
    with capture_logs() as logs:
        publisher.warm = warmer(shared)
        publisher.publish([("CNSGH", "SEGOT", date(2021, 1, 5), 10000)])
    assert shared.state == "ok"
    return int(next(event["answers"] for event in logs if event["event"] == "cache_warmed"))


@pytest.mark.xdist_group("redis_roles")
def test_serving_stores_answers_counts_requests_and_warms(redis_server: RedisServer, publisher: Publisher) -> None:
    shared = connected(redis_server, "serving")
    answers = SharedAnswers(shared)
    assert answers.get("q", STAMP, lambda: ANSWER) == (ANSWER, "database")
    assert answers.get("q", STAMP, lambda: OTHER) == (ANSWER, "redis")
    with pytest.raises(ZeroDivisionError):  # deletes its lock
        answers.get("failed", STAMP, lambda: 1 // 0)  # type: ignore[arg-type, return-value]
    first, second = Limiter("100/day", shared), Limiter("100/day", shared)
    for limiter in (first, second, first):
        limiter.hit("client")
        limiter.exchange()
    assert first.hit("client").remaining == 96
    report_hits(shared, {HOT: 3})
    assert warmed(shared, publisher) == 1


@pytest.mark.xdist_group("redis_roles")
@pytest.mark.parametrize("role", ["ingest", "operator"])
def test_publishers_warm_frequent_queries(redis_server: RedisServer, publisher: Publisher, role: DatabaseRole) -> None:
    report_hits(connected(redis_server, "serving"), {HOT: 3})
    assert warmed(connected(redis_server, role), publisher) == 1


@pytest.mark.xdist_group("redis_roles")
def test_operators_inspect_and_delete(redis_server: RedisServer) -> None:
    SharedAnswers(connected(redis_server, "serving")).put("q", ANSWER)
    with redis.Redis.from_url(redis_server.role_url("operator", 14)) as client:
        (key,) = client.scan_iter("rates:answer:*")
        assert client.ttl(key) > 0
        assert client.memory_usage(key) > 0
        assert client.dbsize() == 1
        assert "used_memory" in client.info("memory")
        assert client.client_list()
        client.slowlog_get()
        assert client.delete(key) == 1


@pytest.mark.xdist_group("redis_roles")
@pytest.mark.parametrize("role", list(RULES))
def test_everything_else_is_refused(redis_server: RedisServer, role: DatabaseRole) -> None:
    with redis.Redis.from_url(redis_server.role_url(role, 14)) as client:
        for command in [*REFUSED[role], *REFUSED_TO_ALL]:
            try:
                client.execute_command(*command)
            except redis.exceptions.NoPermissionError:
                continue
            pytest.fail(f"{role} may {' '.join(command)}")
