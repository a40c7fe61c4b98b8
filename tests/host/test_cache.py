"""A healthy cache: bounded, with a password, on the loopback address only."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from testinfra.host import Host

    from tests.host.conftest import Node


def test_it_runs_and_not_as_root(host: Host, redis: Node) -> None:
    server = host.process.get(pid=redis.pid(host))
    assert server.comm == "valkey-server"
    assert server.user == redis.owner
    assert server.user != "root"


def test_it_listens_on_the_loopback_address_alone(host: Host, redis: Node) -> None:
    assert host.socket(f"tcp://127.0.0.1:{redis.port}").is_listening
    assert not host.socket(f"tcp://0.0.0.0:{redis.port}").is_listening


def test_its_settings_are_private_and_bound_it(host: Host, redis: Node) -> None:
    file = host.file(str(redis.folder / "redis.conf"))
    assert (file.user, file.mode) == (redis.owner, 0o600)
    settings = dict(line.split(maxsplit=1) for line in file.content_string.splitlines())
    assert settings["bind"] == "127.0.0.1"
    assert settings["maxmemory-policy"] == "allkeys-lru"
    assert len(settings["requirepass"]) >= 24
