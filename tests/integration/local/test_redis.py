from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from rates_app.local.redis import RedisServer
from rates_app.local.server import HOST, AlreadyRunningError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def server(folder: Path) -> Iterator[RedisServer]:
    with RedisServer(folder / "redis") as server:
        yield server
    assert not server.is_running()


def test_it_is_a_bounded_cache_without_persistence(server: RedisServer) -> None:
    with redis.Redis.from_url(server.url) as client:
        settings = client.config_get("maxmemory*")
        assert settings["maxmemory"] == str(128 * 2**20)
        assert settings["maxmemory-policy"] == "allkeys-lru"
        client.set("key", "value")
        server.restart()
        assert client.get("key") is None


def test_it_starts_again_after_a_kill_on_the_same_port(server: RedisServer) -> None:
    url = server.url
    server.kill()
    assert not server.is_running()
    with redis.Redis.from_url(url) as client:
        with pytest.raises(redis.ConnectionError):
            client.ping()
        server.start()
        assert client.ping()


def test_a_second_start_says_where_the_first_runs(server: RedisServer) -> None:
    with pytest.raises(AlreadyRunningError, match=f"port {server.port}"):
        RedisServer(server.folder).start()


def test_it_listens_on_loopback_and_needs_a_password(server: RedisServer) -> None:
    process = server.process()
    assert process is not None
    assert process.uids().real != 0
    assert {connection.laddr.ip for connection in process.net_connections()} == {HOST}
    with (
        redis.Redis(host=HOST, port=server.port, retry=Retry(NoBackoff(), 0)) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()
    assert stat.S_IMODE((server.folder / "redis.conf").stat().st_mode) == 0o600
