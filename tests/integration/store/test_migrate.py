"""Migrations go on beside what is at work, and wait for each other."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from rates_app.store.migrate import migrate, pending

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rates_app.local.postgres import Cluster

NAME = "rates_migrated"


@pytest.fixture
def empty(cluster: Cluster, worker_id: str) -> Iterator[str]:
    """A database without a schema."""
    name = sql.Identifier(f"{NAME}_{worker_id}")
    with psycopg.connect(cluster.primary.admin_url, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} OWNER rates").format(name))
        yield cluster.primary.database_url(f"{NAME}_{worker_id}")
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def test_two_at_once_wait_for_each_other(empty: str) -> None:
    with ProcessPoolExecutor(2) as pool:  # Alembic has its context once a process
        for done in [pool.submit(migrate, empty) for _ in range(2)]:
            done.result()
    assert pending(empty) == []


def test_a_command_tells_what_to_do_about_a_database_without_a_schema(empty: str) -> None:
    rates = Path(sys.executable).with_name("rates")
    environment = {**os.environ, "RATES_DATABASE_URL": empty}
    done = subprocess.run([rates, "batches"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (told,) = done.stderr.splitlines()
    assert 'relation "batches" does not exist' in told
    assert "run 'rates migrate'" in told


def test_an_index_is_built_beside_a_batch_in_work_and_its_readers(empty: str) -> None:
    migrate(empty, "0006")
    with psycopg.connect(empty) as writer, ThreadPoolExecutor(1) as pool:
        writer.execute(
            "INSERT INTO rollups (origin_id, destination_id, day, batch_id, count, total_cents)"
            " VALUES (1, 2, '2021-01-01', 3, 4, 5)"
        )
        migrating = pool.submit(migrate, empty)
        with psycopg.connect(empty, autocommit=True) as reader:
            while not waits(reader):
                assert not migrating.done()
                time.sleep(0.01)
            reader.execute("SET lock_timeout = '1s'")
            assert reader.execute("SELECT count(*) FROM rollups").fetchone() == (0,)
        writer.commit()
        migrating.result()
        assert pending(empty) == []
        assert writer.execute("SELECT count FROM rollups WHERE low_cents IS NULL").fetchone() == (4,)


def waits(connection: psycopg.Connection) -> bool:
    row = connection.execute(
        """
        SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'rollups'::regclass AND mode = 'ShareLock' AND NOT granted)
        """
    ).fetchone()
    return row == (True,)
