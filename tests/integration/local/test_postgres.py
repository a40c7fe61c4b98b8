from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import psycopg
import pytest

from drills.waiting import wait_until
from rates_app.local.account import account
from rates_app.local.postgres import SLOT, PostgresServer, primary_with_replica
from rates_app.local.server import HOST, AlreadyRunningError, ServerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def primary(folder: Path) -> Iterator[PostgresServer]:
    with PostgresServer(folder / "primary", fast=True) as server:
        yield server
    assert not server.is_running()


def value(url: str, query: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)


def eventually(url: str, query: str, expected: object) -> None:
    wait_until(
        lambda: value(url, query) == expected, describe=lambda: f"{query}: {value(url, query)!r}, not {expected!r}"
    )


def test_data_outlives_a_restart_on_the_same_port(primary: PostgresServer) -> None:
    execute(primary.url, "CREATE TABLE kept AS SELECT 42 AS answer")
    url = primary.url
    primary.restart()
    assert primary.url == url
    assert value(url, "SELECT answer FROM kept") == 42


def test_committed_rows_outlive_a_kill(primary: PostgresServer) -> None:
    execute(primary.url, "CREATE TABLE kept AS SELECT 42 AS answer")
    with psycopg.connect(primary.url) as connection:
        family = [primary.process(), *primary.process().children()]  # type: ignore[union-attr]
        assert len(family) > 3
        primary.kill()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    assert not primary.is_running()
    assert not any(member.is_running() and member.status() != psutil.STATUS_ZOMBIE for member in family if member)
    primary.start()
    assert value(primary.url, "SELECT answer FROM kept") == 42


def test_a_second_start_says_where_the_first_runs(primary: PostgresServer) -> None:
    process = primary.process()
    assert process is not None
    with pytest.raises(
        AlreadyRunningError, match=rf"already running on .*: port {primary.port}, process {process.pid}$"
    ):
        PostgresServer(primary.folder).start()
    assert value(primary.url, "SELECT 1") == 1


def test_another_object_for_the_same_folder_can_stop_it(primary: PostgresServer) -> None:
    PostgresServer(primary.folder).stop()
    assert not primary.is_running()


def test_a_reused_process_id_is_not_signalled(primary: PostgresServer) -> None:
    primary.kill()
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (primary.data / "postmaster.pid").write_text(f"{stranger.pid}\n{primary.data}\n")
        assert not primary.is_running()
        primary.stop()
        primary.kill()
        assert stranger.poll() is None
        primary.start()
        assert value(primary.url, "SELECT 1") == 1
        stranger.kill()


def test_an_incomplete_folder_is_created_again(folder: Path) -> None:
    server = PostgresServer(folder / "primary", fast=True)
    (server.folder / "data.building").mkdir()
    (server.folder / "data.building" / "PG_VERSION").write_text("18")
    with server:
        assert value(server.url, "SELECT 1") == 1


def test_a_start_that_fails_says_why(primary: PostgresServer) -> None:
    primary.stop()
    (primary.data / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(ServerError, match=r"did not start(?s:.*)by PostgreSQL version 9\.6"):
        primary.start()


@pytest.mark.parametrize("chosen", [True, False], ids=["asked for", "kept from last time"])
def test_a_taken_port_is_replaced(folder: Path, chosen: bool) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = PostgresServer(folder / "primary", port=port if chosen else None, fast=True)
        (server.folder / "port").write_text(str(port))
        with server:
            assert server.port != port
            assert value(server.url, "SELECT 1") == 1
    with PostgresServer(folder / "primary", port=port, fast=True) as server:
        assert server.port == port


def test_logins_need_loopback_and_a_password(primary: PostgresServer) -> None:
    process = primary.process()
    assert process is not None
    assert {connection.laddr.ip for connection in process.net_connections()} == {HOST}
    assert not process.net_connections("unix")
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://postgres@{HOST}:{primary.port}/postgres")
    assert value(primary.admin_url, "SELECT rolpassword LIKE 'SCRAM-SHA-256$%' FROM pg_authid WHERE rolname='rates'")
    assert not value(primary.url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
    secrets = primary.folder / "passwords.json"
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o600
    assert stat.S_IMODE(primary.folder.stat().st_mode) == 0o700
    assert process.uids().real == (owner.pw_uid if (owner := account()) else os.getuid()) != 0


def test_a_replica_streams_and_refuses_writes(folder: Path) -> None:
    with primary_with_replica(folder, fast=True) as (primary, replica):
        execute(primary.url, "CREATE TABLE kept AS SELECT 42 AS answer")
        eventually(replica.url, "SELECT count(*) FROM pg_class WHERE relname = 'kept'", 1)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            execute(replica.url, "DELETE FROM kept")
    assert not primary.is_running()
    assert not replica.is_running()


def test_a_replica_catches_up_after_its_primary_was_killed(folder: Path) -> None:
    with primary_with_replica(folder, fast=True) as (primary, replica):
        primary.kill()
        assert value(replica.url, "SELECT 1") == 1
        primary.start()
        execute(primary.url, "CREATE TABLE kept AS SELECT 42 AS answer")
        eventually(replica.url, "SELECT count(*) FROM pg_class WHERE relname = 'kept'", 1)


def test_a_promoted_replica_takes_over_and_is_copied_again_at_the_next_start(folder: Path) -> None:
    with primary_with_replica(folder, fast=True) as (primary, replica):
        execute(primary.url, "CREATE TABLE kept AS SELECT 42 AS answer")
        eventually(replica.url, "SELECT count(*) FROM pg_class WHERE relname = 'kept'", 1)
        primary.kill()
        replica.promote()
        execute(replica.url, "INSERT INTO kept VALUES (43)")
        replica.restart()
        assert value(replica.url, "SELECT count(*) FROM kept") == 2
    with primary_with_replica(folder, fast=True) as (primary, replica):
        assert value(replica.url, "SELECT pg_is_in_recovery()") is True
        assert value(replica.url, "SELECT count(*) FROM kept") == 1


@pytest.mark.parametrize("how", ["rewound", "copied"])
def test_a_lost_primary_rejoins_as_a_replica(folder: Path, how: str) -> None:
    with primary_with_replica(folder, fast=True) as cluster:
        lost, promoted = cluster
        execute(lost.url, "CREATE TABLE kept AS SELECT 42 AS answer")
        eventually(promoted.url, "SELECT count(*) FROM pg_class WHERE relname = 'kept'", 1)
        assert value(cluster.url, "SELECT inet_server_port()") == lost.port
        assert value(cluster.replica_url, "SELECT inet_server_port()") == promoted.port
        promoted.kill()
        execute(lost.url, "INSERT INTO kept VALUES (1)")  # only the lost primary has it
        lost.kill()
        promoted.start()
        promoted.promote()
        execute(cluster.url, "INSERT INTO kept VALUES (43)")
        if how == "copied":
            (lost.data / "global" / "pg_control").unlink()
        assert lost.rejoin(promoted) == how, (lost.folder / "rewind.log").read_text()
        execute(promoted.url, "INSERT INTO kept VALUES (44)")
        eventually(lost.url, "SELECT array_agg(answer) = '{42, 43, 44}' FROM kept", True)
        assert value(cluster.url, "SELECT inet_server_port()") == promoted.port
        assert value(cluster.replica_url, "SELECT inet_server_port()") == lost.port
        with pytest.raises(ServerError, match="stop it first"):
            lost.rejoin(promoted)


def test_a_replica_that_lost_its_slot_is_copied_again(folder: Path) -> None:
    with primary_with_replica(folder, fast=True) as (primary, replica):
        replica.stop()
        execute(primary.admin_url, f"SELECT pg_drop_replication_slot('{SLOT}')")
        execute(primary.url, "CREATE TABLE kept AS SELECT 42 AS answer")
    with primary_with_replica(folder, fast=True) as (primary, replica):
        eventually(replica.url, "SELECT count(*) FROM pg_class WHERE relname = 'kept'", 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_terminated_program_leaves_no_server(folder: Path, number: signal.Signals) -> None:
    program = (  # background processes of a shell ignore SIGINT
        "import signal, sys, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from pathlib import Path\nfrom rates_app.local.postgres import primary_with_replica\n"
        "with primary_with_replica(Path(sys.argv[1]), fast=True):\n    print('up', flush=True)\n    time.sleep(120)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == "up\n"
        primary, replica = PostgresServer(folder / "primary"), PostgresServer(folder / "replica")
        assert primary.is_running()
        assert replica.is_running()
        starter.send_signal(number)
        starter.communicate(timeout=60)
    assert not primary.is_running()
    assert not replica.is_running()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a folder that the servers' account cannot reach")
def test_root_may_keep_data_below_a_closed_folder(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with PostgresServer(closed / "primary", fast=True) as server:
        assert (closed / "primary").resolve() == server.folder
        execute(server.url, "CREATE TABLE kept AS SELECT 42 AS answer")
    with PostgresServer(closed / "primary", fast=True) as server:
        assert value(server.url, "SELECT answer FROM kept") == 42
    (closed / "primary").unlink()
    fresh = PostgresServer(closed / "primary", fast=True)
    assert not fresh.data.exists()
    shutil.rmtree(fresh.folder)
