"""Redis as it is deployed: a failover by Sentinels, both policies at the memory limit, TLS with a user per role."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis

from drills.waiting import wait_until
from rates_app.cache.answer import Answer
from rates_app.cache.answers import SharedAnswers
from rates_app.cache.redis import Redis, connect_redis
from rates_app.cache.versions import Stamp
from rates_app.doctor.stores import check_redis
from rates_app.local.redis import RedisServer
from rates_app.local.server import HOST, write_private
from rates_app.rates.warm import report_hits
from rates_app.settings import Settings
from tests.fixtures.sentinel import NAME, SentinelServer, TlsRedis, require_redis_with_tls
from tests.fixtures.tls import tls_in_front

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STAMP = Stamp("epoch", 1)
ANSWER = Answer.of(b"cached", "text/plain", STAMP)
PASSWORD = "secret-of-the-test"
PATIENCE_SECONDS = 60


@pytest.fixture(autouse=True)
def _busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rates_app.cache.redis.TIMEOUT_SECONDS", 5.0)


def connected(url: str) -> Redis:
    return Redis(Settings.model_validate({"database_url": "postgresql://nowhere/rates", "redis_url": url}))


def stores(answers: SharedAnswers, question: str) -> bool:
    """Return whether an answer is in Redis when it is asked for a second time."""
    answers.get(question, STAMP, lambda: ANSWER)
    return answers.get(question, STAMP, lambda: ANSWER)[1] == "redis"


@pytest.fixture
def pair(folder: Path) -> Iterator[tuple[RedisServer, RedisServer]]:
    """A primary and its replica with the same passwords."""
    servers = [RedisServer(folder / name) for name in ("first", "second")]
    for server in servers:
        write_private(server.folder / "password", PASSWORD)
    first, second = servers
    with first, second:
        for server in servers:
            with redis.Redis.from_url(server.url) as admin:
                admin.config_set("masterauth", PASSWORD)
        with redis.Redis.from_url(second.url) as admin:
            admin.replicaof(HOST, first.port)
            wait_until(lambda: admin.info("replication")["master_link_status"] == "up", seconds=PATIENCE_SECONDS)
        yield first, second


def test_clients_follow_a_failover_by_sentinels(folder: Path, pair: tuple[RedisServer, RedisServer]) -> None:
    first, second = pair
    sentinels = [SentinelServer(folder / f"sentinel-{number}", first, PASSWORD) for number in range(3)]
    try:
        for sentinel in sentinels:
            sentinel.start()
        with redis.Redis.from_url(sentinels[0].url) as client:  # they have to find each other and the replica first
            wait_until(
                lambda: (
                    (found := client.sentinel_master(NAME))["num-other-sentinels"] == 2 and found["num-slaves"] == 1
                ),
                seconds=PATIENCE_SECONDS,
            )
        hosts = ",".join(f"{HOST}:{sentinel.port}" for sentinel in sentinels)
        login = first.role_url("serving").partition("//")[2].rpartition("@")[0]
        url = f"redis+sentinel://{login}@{hosts}/{NAME}/0"
        shared = connected(url)
        answers = SharedAnswers(shared)
        assert stores(answers, "before")
        first.kill()
        assert answers.get("meanwhile", STAMP, lambda: ANSWER) == (ANSWER, "database")
        wait_until(lambda: stores(answers, "after"), seconds=PATIENCE_SECONDS)
        assert shared.state == "ok"
        with redis.Redis.from_url(second.url) as admin:
            assert admin.info("replication")["role"] == "master"
        first.start()  # it was the primary; the Sentinels make it a replica of the new one
        with redis.Redis.from_url(first.url) as admin:
            wait_until(
                lambda: admin.info("replication")["role"] == "slave",
                seconds=PATIENCE_SECONDS,
                ignore=(redis.ConnectionError,),  # a change of the role ends all connections
            )
        assert stores(answers, "later")
        operator = url.replace(login, first.role_url("operator").partition("//")[2].rpartition("@")[0])
        assert check_redis(operator).problems == []
    finally:
        for sentinel in sentinels:
            sentinel.stop()


@pytest.mark.parametrize("policy", ["allkeys-lru", "noeviction"])
def test_answers_are_right_at_the_memory_limit(folder: Path, policy: str) -> None:
    """With eviction, new answers replace old ones; without, they are computed each time."""
    large = Answer.of(bytes(range(256)) * 400, "application/octet-stream", STAMP)
    with RedisServer(folder / "redis") as server, redis.Redis.from_url(server.url) as admin:
        admin.config_set("maxmemory-policy", policy)
        admin.config_set("maxmemory", admin.info("memory")["used_memory"] + 3 * 2**20)
        shared = connected(server.role_url("serving"))
        answers = SharedAnswers(shared)
        for number in range(100):
            assert answers.get(f"question {number}", STAMP, lambda: large)[0] == large
        assert shared.state == "ok"
        report_hits(shared, {"question": 1})
        evicted = admin.info("stats")["evicted_keys"]
        level = answers.get("question 99", STAMP, lambda: large)
        assert level == (large, "redis" if policy == "allkeys-lru" else "database")
        assert (evicted > 0) == (policy == "allkeys-lru")
        oldest = answers.get("question 0", STAMP, lambda: large)
        assert oldest == (large, "database" if policy == "allkeys-lru" else "redis")


def test_tls_and_a_user_per_role(folder: Path, tmp_path: Path) -> None:
    require_redis_with_tls()
    with tls_in_front(tmp_path, 1) as front:  # for its certificates
        certificate, right, wrong = (tmp_path / "server").read_bytes(), front.right, front.wrong
    with TlsRedis(folder / "redis", certificate, right, PASSWORD) as server:
        shared = connected(server.role_url("serving", right))
        answers = SharedAnswers(shared)
        assert stores(answers, "q")
        assert shared.state == "ok"
        assert check_redis(server.role_url("operator", right)).problems == []
        refused = connected(server.role_url("serving", wrong))
        assert SharedAnswers(refused).get("q", STAMP, lambda: ANSWER) == (ANSWER, "database")
        assert refused.state == "unreachable"
        with connect_redis(server.role_url("ingest", right), 5.0) as client:
            assert client.ping()
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.get("rates:answer:q")
