"""A PostgreSQL primary with a replica and a Redis for the whole run; a fresh database for every test.

The first test that needs a server starts it, so other tests do not wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import psycopg
import pytest
import redis
from psycopg import sql

from drills.waiting import wait_until
from rates_app.local.postgres import PostgresPair, PostgresServer
from rates_app.local.redis import RedisServer
from rates_app.local.server import exclusive
from rates_app.store.migrate import migrate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEMPLATE = "rates_template"
REPLAY_SECONDS = 30


@dataclass(frozen=True)
class Database:
    """Addresses of a migrated database for one test."""

    url: str
    replica_urls: tuple[str, ...]


@pytest.fixture(scope="session")
def cluster(servers_folder: Path) -> PostgresPair:
    """The primary and replica that all workers share. Tests must not stop them, or change other databases."""
    folder = servers_folder / "shared"
    folder.mkdir(exist_ok=True)
    primary = PostgresServer(folder / "primary", fast=True)
    replica = PostgresServer(folder / "replica", primary=primary, fast=True)
    with exclusive(folder / "lock"):
        if not replica.is_running():
            primary.start()
            replica.start()
            with psycopg.connect(primary.admin_url, autocommit=True) as admin:
                admin.execute(f"CREATE DATABASE {TEMPLATE} OWNER rates")
            migrate(primary.database_url(TEMPLATE))
    return PostgresPair(primary, replica)


@pytest.fixture(scope="session")
def _database_names(worker_id: str) -> Iterator[str]:
    """Unique names, so that leftovers of an earlier test cannot affect a later one's database."""
    return (f"rates_{worker_id}_{number}" for number in count())


@pytest.fixture
def database(cluster: PostgresPair, _database_names: Iterator[str]) -> Iterator[Database]:
    """A fresh, migrated database on the primary and the replica."""
    name = next(_database_names)
    with psycopg.connect(cluster.primary.admin_url, autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE DATABASE {} OWNER rates TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(TEMPLATE))
        )
        wait_for_replay(admin, cluster.replica)
        yield Database(cluster.primary.database_url(name), (cluster.replica.database_url(name),))
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def redis_server(servers_folder: Path) -> RedisServer:
    """The Redis that all workers share."""
    folder = servers_folder / "shared"
    folder.mkdir(exist_ok=True)
    server = RedisServer(folder / "redis")
    with exclusive(folder / "lock"):
        if not server.is_running():
            server.start()
    return server


@pytest.fixture
def redis_url(redis_server: RedisServer, worker_id: str) -> str:
    """An empty Redis database that only this worker uses."""
    url = redis_server.database_url(0 if worker_id == "master" else int(worker_id.removeprefix("gw")))
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


def wait_for_replay(primary: psycopg.Connection, replica: PostgresServer) -> None:
    """Wait until a replica has replayed all commits of the primary.

    Args:
        primary: An open connection to the primary.
        replica: The replica.

    Raises:
        TimeoutError: The replica has not caught up after half a minute.
    """
    row = primary.execute("SELECT pg_current_wal_lsn()").fetchone()
    query = "SELECT pg_last_wal_replay_lsn() < %s::pg_lsn"
    with psycopg.connect(replica.admin_url, autocommit=True) as connection:
        wait_until(
            lambda: connection.execute(query, row).fetchone() != (True,),
            seconds=REPLAY_SECONDS,
            pause=0.005,
            describe=lambda: f"the replica has not replayed {row}",
        )
