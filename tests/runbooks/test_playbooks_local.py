"""Playbooks with local servers: preconditions, refusals, check mode, and no repetition."""

from __future__ import annotations

import tempfile
import threading
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from werkzeug.serving import make_server

from rates_app.local.postgres import PostgresServer
from rates_app.store.migrate import migrate
from rates_app.store.tokens import create_token
from tests.integration.backups.test_backup import archive_everything, execute, now, rates, rows
from tests.runbooks.stacks import Runner

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask import Flask

    from tests.fixtures.service import Publisher

# All tests share one pair of servers, and the last test breaks it.
pytestmark = [pytest.mark.xdist_group("playbooks-local"), pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def local(servers_folder: Path) -> Iterator[tuple[Runner, PostgresServer, PostgresServer]]:
    """A primary and its replica like those of `rates dev`, for this module only."""
    folder = Path(tempfile.mkdtemp(prefix="playbooks-", dir=servers_folder))  # created again after other tests
    folder.chmod(0o711)
    primary = PostgresServer(folder / "postgres" / "primary", fast=True, backups=folder / "backups")
    replica = PostgresServer(folder / "postgres" / "replica", primary=primary, fast=True)
    (folder / "postgres").chmod(0o711)
    with primary, replica:
        migrate(primary.url)
        (folder / "env").write_text(f"export RATES_DATABASE_URL={primary.url}\nexport RATES_DATA_DIR={folder}\n")
        yield Runner(folder, RATES_STACK="local", RATES_DATA_DIR=str(folder)), primary, replica


def opens(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def test_the_playbook_runs_housekeeping(local: tuple[Runner, PostgresServer, PostgresServer]) -> None:
    play, primary, _ = local
    with psycopg.connect(primary.url) as connection:
        connection.execute(
            "INSERT INTO batches (name, supplier, content_hash, size_bytes, format, compression, state, ended_at) "
            "VALUES ('x', 'x', sha256('x'), 1, 'csv', 'none', 'refused', now())"
        )
        connection.execute("CREATE TABLE staging.b1 (LIKE segments)")
    assert "changed=0" in play("housekeeping", "--check")
    with psycopg.connect(primary.url) as connection:
        assert connection.execute("SELECT to_regclass('staging.b1')").fetchone() != (None,)
    assert "leftovers of 1 batches" in play("housekeeping")
    with psycopg.connect(primary.url) as connection:
        assert connection.execute("SELECT to_regclass('staging.b1')").fetchone() == (None,)


def test_a_rotated_password_is_stored_in_one_place(local: tuple[Runner, PostgresServer, PostgresServer]) -> None:
    play, primary, _ = local
    before = primary.url
    play("credential-rotation", "--check")
    assert opens(before)
    assert "Nothing was done" in play("credential-rotation", code=2)
    assert opens(before)
    play("credential-rotation", "-e", "confirm=local")
    after = PostgresServer(primary.folder, fast=True).url
    assert opens(after)
    assert not opens(before)
    assert (primary.folder.parents[1] / "env").read_text().count(after) == 1
    password = after.split("@")[0].rpartition(":")[2]
    assert not any(password in text for text in play.texts())


def test_a_copy_is_restored_next_to_the_servers(local: tuple[Runner, PostgresServer, PostgresServer]) -> None:
    play, primary, _ = local
    execute(primary.url, "CREATE TABLE kept (answer int); INSERT INTO kept VALUES (1)")
    rates(primary, "backup")
    execute(primary.url, "INSERT INTO kept VALUES (2)")
    moment = now(primary) + timedelta(seconds=1)
    execute(primary.url, "SELECT pg_sleep(2)")
    execute(primary.url, "INSERT INTO kept VALUES (3)")
    archive_everything(primary)
    when = ("-e", f"restore_time={moment:%Y-%m-%dT%H:%M:%SZ}")
    kept = {"RATES_BACKUP_URL": str(primary.backups)}
    assert "Set RATES_BACKUP_URL" in play("point-in-time-restore", "--check", *when, code=2)
    into = Path(play.environment["RATES_DATA_DIR"]) / f"restored-{moment:%Y%m%d%H%M%S}"
    play("point-in-time-restore", "--check", *when, environment=kept)
    assert not into.exists()
    play("point-in-time-restore", *when, "-e", "confirm=local", environment=kept)
    copy = PostgresServer(into, fast=True)
    copy.passwords_file.write_text(primary.passwords_file.read_text())
    with copy:
        assert rows(copy.url) == [1, 2]
    assert "changed=0" in play("point-in-time-restore", *when, environment=kept)


def test_the_replica_is_promoted_once(local: tuple[Runner, PostgresServer, PostgresServer]) -> None:
    play, primary, replica = local
    play("database-failover", "--check")
    assert primary.is_running()
    assert "Nothing was done" in play("database-failover", code=2)
    assert primary.is_running()
    play("database-failover", "-e", "confirm=local")
    assert not primary.is_running()
    with psycopg.connect(replica.admin_url) as connection:
        assert connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)
    record = play.record()
    assert record[0]["arguments"] == {"check": False, "variables": ["confirm=local"]}
    assert [line["task"] for line in record if line["event"] == "changed"] == [
        "Stop the primary",
        "See that it accepts writes",
    ]
    assert record[-1]["summary"]["local"]["failures"] == 0
    assert "no replica is there to take its place" in play("database-failover")


def test_a_published_batch_is_withdrawn_once(app: Flask, publisher: Publisher, tmp_path: Path) -> None:
    batch = publisher.publish([("CNGGZ", "EETLL", date(2021, 1, 1), 120_000)])
    with psycopg.connect(publisher.url) as connection:
        token = create_token(connection, "oncall", ["operator"], None)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    (tmp_path / "postgres").mkdir()
    play = Runner(
        tmp_path,
        RATES_STACK="local",
        RATES_DATA_DIR=str(tmp_path),
        RATES_URL=f"http://127.0.0.1:{server.port}",
        RATES_TOKEN=token,
    )
    try:
        assert "Say which batch" in play("batch-withdrawal", code=2)
        play("batch-withdrawal", "--check", "-e", f"batch={batch}")
        assert state_of(publisher.url, batch) == "published"
        assert "Nothing was done" in play("batch-withdrawal", "-e", f"batch={batch}", code=2)
        assert state_of(publisher.url, batch) == "published"
        assert "changed=1" in play("batch-withdrawal", "-e", f"batch={batch}", "-e", "confirm=local")
        assert state_of(publisher.url, batch) == "withdrawn"
        assert "changed=0" in play("batch-withdrawal", "-e", f"batch={batch}")
        assert not any(token in text for text in play.texts())
    finally:
        server.shutdown()
        thread.join()


def state_of(url: str, batch: int) -> str:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT state FROM batches WHERE id = %s", (batch,)).fetchone()
    assert row is not None
    return str(row[0])


def test_cloud_playbooks_refuse_other_stacks(
    local: tuple[Runner, PostgresServer, PostgresServer],
) -> None:
    assert "set RATES_STACK to dev, staging or prod" in local[0]("dead-letter-redrive", "--check", code=2)
