"""Reads and writes while a server hangs, is lost, or is busy: three different cases."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest

from drills.waiting import wait_until
from rates_app.local.postgres import PostgresPair, primary_with_replica
from rates_app.settings import Settings
from rates_app.store.connections import connect
from rates_app.store.databases import Busy, Databases, Unavailable
from tests.fixtures.stores import create_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rates_app.store.databases import Connection

PATIENCE_SECONDS = 60


@pytest.fixture(scope="module")
def own_cluster(servers_folder: Path) -> Iterator[PostgresPair]:
    with primary_with_replica(create_folder(servers_folder), fast=True) as cluster:
        yield cluster


@pytest.fixture
def databases(own_cluster: PostgresPair) -> Iterator[Databases]:
    found = Databases(
        Settings.model_validate(
            {"database_url": own_cluster.primary.url, "replica_urls": own_cluster.replica.url, "pool_size": 4}
        )
    )
    found.open()
    yield found
    found.close()


def one(connection: Connection) -> int:
    row = connection.execute("SELECT 1").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("frozen", ["replica", "primary"])
def test_no_read_fails_while_a_server_hangs(own_cluster: PostgresPair, databases: Databases, frozen: str) -> None:
    server = {"replica": databases.replicas[0], "primary": databases.primary}[frozen]
    answered: list[str] = []
    stop = threading.Event()

    def ask(number: int) -> None:
        while not stop.is_set():
            prefer = "primary" if number % 2 else "replica"
            answered.append(databases.read_from(one, prefer=prefer)[1])  # type: ignore[arg-type]

    with ThreadPoolExecutor(8) as threads:  # more than there are connections
        asking = [threads.submit(ask, number) for number in range(8)]
        try:
            wait_until(lambda: server.name in answered)
            with getattr(own_cluster, frozen).frozen():
                wait_until(lambda: server.hangs)
                since = len(answered)
                wait_until(lambda: len(answered) > since + 100)
                if frozen == "primary":
                    with pytest.raises(Unavailable, match="is unreachable"), databases.write():
                        pass
            wait_until(lambda: not server.hangs)
            since = len(answered)
            wait_until(lambda: server.name in answered[since:])
        finally:
            stop.set()
        for each in asking:
            each.result()


def test_a_single_server_has_its_full_time(own_cluster: PostgresPair) -> None:
    """Without another server, a query has its full time even if the server does not respond."""
    alone = Databases(
        Settings.model_validate({"database_url": own_cluster.primary.url, "query_timeout_seconds": 5, "pool_size": 1})
    )
    alone.open()
    try:
        assert alone.read(one) == 1
        with own_cluster.primary.frozen(), pytest.raises(Unavailable):
            alone.read(one)
        wait_until(lambda: not alone.primary.hangs)
        assert alone.read(one) == 1
    finally:
        alone.close()


def test_a_slow_query_is_no_hang(databases: Databases) -> None:
    assert databases.read_from(lambda it: it.execute("SELECT pg_sleep(2)").rowcount)[1] == "replica-1"
    assert not databases.replicas[0].left_alone


def test_a_lock_on_a_replica_sends_the_read_to_the_next_server(own_cluster: PostgresPair, databases: Databases) -> None:
    """A long reader delays the replay of an exclusive lock, and later readers queue behind the replay."""
    with psycopg.connect(own_cluster.primary.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE truncated (answer int)")

    def answer(connection: Connection) -> int:
        return connection.execute("SELECT answer FROM truncated").rowcount

    def seen(connection: Connection) -> bool:
        return connection.execute("SELECT to_regclass('truncated')").fetchone() != (None,)

    wait_until(lambda: databases.replicas[0].read(seen))
    with psycopg.connect(own_cluster.replica.url) as reader:
        reader.execute("SELECT FROM truncated")
        with psycopg.connect(own_cluster.primary.url) as vacuum:
            vacuum.execute("LOCK TABLE truncated IN ACCESS EXCLUSIVE MODE")
        locks = "SELECT 1 FROM pg_locks WHERE NOT granted"
        with psycopg.connect(own_cluster.replica.url, autocommit=True) as standby:
            wait_until(lambda: standby.execute(locks).rowcount > 0)
        assert databases.read_from(answer) == (0, "primary")
        assert not databases.replicas[0].left_alone, "it works: only this table is locked"
        assert databases.read_from(answer) == (0, "primary"), "but it is the last choice for a moment"
        assert databases.replicas[0].read(one) == 1


def test_a_busy_primary_refuses_a_write_and_stays_in_use(own_cluster: PostgresPair, databases: Databases) -> None:
    with psycopg.connect(own_cluster.primary.url) as other:
        other.execute("CREATE TABLE IF NOT EXISTS locked AS SELECT 1 AS answer")
        other.commit()
        other.execute("SELECT FROM locked FOR UPDATE")
        with pytest.raises(Busy, match="nothing was written"), databases.write() as connection:
            connection.execute("UPDATE locked SET answer = 2")
    assert not databases.primary.left_alone
    with databases.write() as connection:
        assert connection.execute("UPDATE locked SET answer = 2").rowcount == 1


def test_connections_outside_of_pools_have_limits(own_cluster: PostgresPair) -> None:
    with connect(own_cluster.primary.url, "rates-test", statement_seconds=7) as connection:
        for setting, value in (
            ("statement_timeout", "7s"),
            ("lock_timeout", "30s"),
            ("idle_in_transaction_session_timeout", "5min"),
            ("application_name", "rates-test"),
        ):
            assert connection.execute(f"SHOW {setting}").fetchone() == (value,)
        parameters = connection.info.get_parameters()
    assert {"keepalives_idle", "tcp_user_timeout", "connect_timeout"} <= parameters.keys()
