"""After any kill at any moment, a batch is complete, with every row once, or absent.

Each batch replaces the previous one, so at any moment after the first publish exactly one batch is visible. The seed
determines the victims and the moments. The test that always runs is a short form of the demonstration, a hundred kills
in about ten minutes: ``pytest tests/chaos/test_ingest.py -m demonstration``.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psutil
import psycopg
import pytest
from psycopg import sql

from drills.sample import store_sample_locations
from drills.waiting import wait_until
from rates_app.batches.generate import generate, read_sample, sample_file
from rates_app.batches.pipeline.tables import staged_rows
from rates_app.local.postgres import PostgresServer
from rates_app.local.server import wait_until_ended
from rates_app.store.migrate import migrate
from tests.fixtures.stores import create_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS = 40_000
SLICE_BYTES = 128 * 1024

#: Timeout of every step, far more than any step takes on a busy machine.
PATIENCE_SECONDS = 120

Victim = Literal["driver", "worker", "backend", "server"]
VICTIMS: tuple[Victim, ...] = ("driver", "worker", "backend", "server")


@pytest.fixture(scope="module")
def server(servers_folder: Path) -> Iterator[PostgresServer]:
    """A PostgreSQL that may crash: no other test uses it."""
    with PostgresServer(create_folder(servers_folder) / "primary", fast=True) as primary:
        migrate(primary.url)
        with psycopg.connect(primary.url) as connection:
            store_sample_locations(connection)
        yield primary


def connect(server: PostgresServer) -> psycopg.Connection:
    """Connect, waiting for a crashed server to recover."""
    return wait_until(
        lambda: psycopg.connect(server.url), seconds=PATIENCE_SECONDS, pause=0.1, ignore=(psycopg.OperationalError,)
    )


def start(server: PostgresServer, file: Path, data: Path, replaces: int | None) -> psutil.Popen:
    environment = os.environ | {
        "RATES_DATABASE_URL": server.url,
        "RATES_DATA_DIR": str(data),
        "RATES_SLICE_BYTES": str(SLICE_BYTES),
        "RATES_LOG_LEVEL": "error",
    }
    return psutil.Popen(
        [
            Path(sys.executable).with_name("rates"),
            "ingest",
            file,
            *([] if replaces is None else ["--replaces", str(replaces)]),
        ],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill(victim: Victim, driver: psutil.Popen, server: PostgresServer, dice: random.Random) -> bool:
    """Kill a process or connection of a running ingest; return whether there was one."""
    try:
        if victim == "driver":
            driver.kill()
            return True
        if victim == "worker":
            # Spare Python's resource tracker: it does no work and prints many errors.
            workers = [one for one in driver.children(recursive=True) if "resource_tracker" not in str(one.cmdline())]
            if workers:
                dice.choice(workers).kill()
            return bool(workers)
        with connect(server) as connection:
            backends = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND application_name LIKE 'rates-%'"
            ).fetchall()
            if not backends:
                return False
            (pid,) = dice.choice(backends)
            if victim == "backend":
                connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
        if victim == "server":
            psutil.Process(pid).kill()  # the server terminates all connections and recovers
    except psutil.NoSuchProcess:
        return False
    return True


def finish(driver: psutil.Popen, workers: list[psutil.Process]) -> tuple[int, str]:
    """Wait for a driver and everything it has started to end."""
    output, _ = driver.communicate(timeout=PATIENCE_SECONDS)
    assert wait_until_ended(workers, PATIENCE_SECONDS), "workers have outlived their driver"
    assert "Traceback" not in output, output
    return driver.returncode, output


def check(server: PostgresServer, name: str, total: int, replaces: int | None) -> tuple[int, str] | None:
    """Check that a batch is complete or absent, and that it or the one that it replaces is visible.

    Returns:
        Its id and state; None if it is not in the ledger.
    """
    with connect(server) as connection:
        batch = connection.execute("SELECT id, state FROM batches WHERE name = %s", (name,)).fetchone()
        if batch is None:
            return None
        visible = connection.execute(
            """
            SELECT batch_id, sum(count) FROM visible_rollups
            JOIN locations o ON o.id = origin_id AND o.kind = 'port'
            JOIN locations d ON d.id = destination_id AND d.kind = 'port'
            GROUP BY batch_id
            """
        ).fetchall()
        # Whether the tables are attached already depends on the moment of the kill.
        prices = (
            connection.execute(
                sql.SQL("SELECT count(*), sum(price) FROM {} staged, unnest(price_cents) price").format(
                    staged_rows(connection, batch[0])
                )
            ).fetchone()
            if batch[1] == "published"
            else (0, 0)
        )
        rolled_up = connection.execute(
            """
            SELECT sum(count), sum(rollups.total_cents) FROM rollups
            JOIN locations o ON o.id = origin_id AND o.kind = 'port'
            JOIN locations d ON d.id = destination_id AND d.kind = 'port'
            JOIN batches ON batches.id = batch_id AND state = 'published'
            WHERE batch_id = %s
            """,
            (batch[0],),
        ).fetchone()
        loose = connection.execute(
            """
            SELECT relname FROM pg_class WHERE relnamespace = 'staging'::regnamespace AND relkind IN ('r', 'p')
              AND NOT relispartition AND relname NOT IN (SELECT winner FROM slices WHERE winner IS NOT NULL)
              AND relname NOT IN (SELECT 'b' || id FROM batches WHERE ended_at IS NULL)
            """
        ).fetchall()
    published = batch[1] == "published"
    assert prices == ((ROWS, total) if published else (0, 0))
    assert rolled_up == ((ROWS, total) if published else (None, None))
    assert loose == [], "attempts that did not win leave no table"
    seen = batch[0] if published else replaces
    assert visible == ([] if seen is None else [(seen, ROWS)]), "exactly one batch is visible"
    return int(batch[0]), str(batch[1])


def delivered(server: PostgresServer, batch_id: int) -> tuple[object, ...] | None:
    """Return the number and sum of a batch's attached prices."""
    with connect(server) as connection:
        return connection.execute(
            "SELECT count(*), coalesce(sum(price_cents), 0) FROM delivered WHERE batch_id = %s", (batch_id,)
        ).fetchone()


def visible_batch(server: PostgresServer) -> int | None:
    """Return the batch that an earlier run has left published."""
    with connect(server) as connection:
        row = connection.execute("SELECT id FROM batches WHERE state = 'published'").fetchone()
    return None if row is None else int(row[0])


def torment(server: PostgresServer, folder: Path, seed: int, kills: int) -> dict[Victim, int]:
    """Ingest batch after batch, each in place of the previous one, killing something at random moments."""
    dice = random.Random(seed)
    sample = read_sample(sample_file())
    killed: dict[Victim, int] = dict.fromkeys(VICTIMS, 0)
    longest = 3.0  # seconds of a run; updated by those that end by themselves
    number = 0
    current = visible_batch(server)
    while sum(killed.values()) < kills:
        number += 1
        file = folder / f"{seed}-{number}.csv"
        generate(file, ROWS, sample=sample, days=60, seed=1000 * seed + number)
        total = sum(int(line.rpartition(",")[2]) for line in file.read_text().splitlines()[1:]) * 100
        for attempt in range(20):
            began = time.monotonic()
            driver = start(server, file, folder, current)
            hit = False
            workers: list[psutil.Process] = []
            if attempt < 4 and sum(killed.values()) < kills:  # then it is let through
                victim = dice.choice(VICTIMS)
                time.sleep(dice.uniform(0.2, 1) * longest)
                try:
                    workers = driver.children(recursive=True)
                except psutil.NoSuchProcess:
                    workers = []
                hit = kill(victim, driver, server, dice)
                killed[victim] += hit
            code, output = finish(driver, workers)
            found = check(server, file.name, total, current)
            if code == 0:
                assert found is not None, output
                assert (found[1], delivered(server, found[0])) == ("published", (ROWS, total)), output
                current = found[0]
                if not hit:
                    longest = time.monotonic() - began
                break
            assert hit or "published" in output, output
        else:
            pytest.fail(f"{file.name} is not published: {output}")
    return killed


@pytest.mark.timeout(1200)  # some twenty processes start, each with several seconds of CPU time
def test_a_batch_is_complete_or_absent_whatever_is_killed(server: PostgresServer, tmp_path: Path) -> None:
    assert sum(torment(server, tmp_path, seed=1, kills=6).values()) == 6


@pytest.mark.demonstration
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [2, 3, 4, 5])
def test_a_hundred_kills(server: PostgresServer, tmp_path: Path, seed: int) -> None:
    killed = torment(server, tmp_path, seed, kills=25)
    assert min(killed.values()) > 0, f"every kind of victim is hit: {killed}"
