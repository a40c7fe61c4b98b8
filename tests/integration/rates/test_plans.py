"""A question touches few pages, and not more when there are ten times as many rows: the plan is checked, no time.

The long forms are run by ``pytest tests/integration/rates/test_plans.py -s -m demonstration``: a hundred million prices
as suppliers send them take 20 GB of disk, a hundred million rollups 25 GB.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest

from rates_app.batches.generate import generate, read_sample, sample_file
from rates_app.batches.pipeline.engine import ingest
from rates_app.local.postgres import PostgresServer
from rates_app.rates.locations import read_locations, store_locations
from rates_app.rates.model import Question
from rates_app.rates.queries import AVERAGES, PARTS, SETS, query_parameters
from rates_app.settings import Settings
from rates_app.store.migrate import migrate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import Database

SAMPLE = Path(__file__).parents[3] / "sample_data"
YEAR = (date(2021, 1, 1), date(2021, 12, 31))
#: Between two ports, and between two regions: which of them a lane is makes no difference to the rollups.
LANES = [("P1", "P2"), ("R1", "R2")]
DAYS = [YEAR[0] + timedelta(days=number) for number in range(365)]
#: A day's average; its spread, where one batch has its prices; and the prices, for what a batch alone cannot say.
NAMES = {AVERAGES: "averages", PARTS: "spreads of days", SETS: "prices"}
#: Locations of which each pair has a year of rollups: 10^5, 10^6, 10^7, 10^8 rows.
SIZES = (17, 53, 166, 524)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", []):
        yield from nodes(part)


def pages(connection: psycopg.Connection[Any], query: str, lane: tuple[str, str]) -> int:
    """Explain a query, check the way it takes, and count the pages it touches."""
    row = connection.execute(
        f"EXPLAIN (ANALYZE, BUFFERS, SERIALIZE BINARY, FORMAT JSON) {query}",
        query_parameters(Question(*lane, *YEAR)) | {"days": DAYS},
    ).fetchone()
    assert row is not None
    plan, sent = row[0][0]["Plan"], row[0][0]["Serialization"]
    scans = [node for node in nodes(plan) if node.get("Relation Name") == "rollups"]
    assert scans, plan
    for scan in scans:
        assert scan["Node Type"] in {"Index Scan", "Index Only Scan", "Bitmap Heap Scan"}, scan["Node Type"]
    if query != SETS:
        assert [scan["Node Type"] for scan in scans] == ["Index Only Scan"]
    assert 350 < plan["Actual Rows"] <= 365  # days with prices
    return sum(int(part[f"Shared {kind} Blocks"]) for part in (plan, sent) for kind in ("Hit", "Read"))


def vacuum(connection: psycopg.Connection[Any]) -> None:
    """Have every page of the rollups marked as visible to all, as autovacuum does sooner or later."""
    for _ in range(100):
        connection.execute("VACUUM ANALYZE rollups")
        row = connection.execute("SELECT relpages - relallvisible FROM pg_class WHERE relname = 'rollups'").fetchone()
        if row == (0,):
            return
        time.sleep(0.2)  # the replica tells once a second that it no longer needs what was there before
    raise TimeoutError(f"{row} pages are not visible to all")


def grow(connection: psycopg.Connection[Any], locations: int) -> None:
    """Have a year of rollups between each two of a number of locations, half ports, half regions."""
    connection.execute(
        """
        INSERT INTO locations (code, kind, name)
        SELECT letter || number, CASE letter WHEN 'P' THEN 'port' ELSE 'region' END, letter || number
        FROM generate_series(1, %s) AS number, (VALUES ('P'), ('R')) AS kinds (letter)
        ORDER BY number LIMIT %s
        ON CONFLICT DO NOTHING
        """,
        (locations, locations),
    )
    connection.execute(
        """
        INSERT INTO batches (name, supplier, content_hash, size_bytes, format, compression, state)
        VALUES ('year', 'test', sha256('year'), 1, 'csv', 'none', 'published') ON CONFLICT DO NOTHING
        """
    )
    for day in DAYS:  # as batches arrive: no two days of a lane are neighbours
        connection.execute(
            """
            INSERT INTO rollups
            SELECT o.id, d.id, %s, batches.id, 6, 6000, 900, 1000, 1100, %s
            FROM batches, locations o, locations d
            ON CONFLICT DO NOTHING
            """,
            (day, np.array([900, 900, 1000, 1000, 1100, 1100], dtype="<i4").tobytes()),
        )
    connection.execute("ANALYZE batches")
    vacuum(connection)


def check(url: str, sizes: tuple[int, ...]) -> None:
    """Ask the same questions of a growing table, and compare the pages that they touch."""
    touched: dict[tuple[str, tuple[str, str]], list[int]] = {}
    with psycopg.connect(url, autocommit=True) as connection:
        for locations in sizes:
            grow(connection, locations)
            for query in NAMES:
                for lane in LANES:
                    touched.setdefault((query, lane), []).append(pages(connection, query, lane))
        row = connection.execute("SELECT count(*) FROM rollups").fetchone()
        assert row == (sizes[-1] ** 2 * 365,)

    for (query, lane), counts in touched.items():
        print(NAMES[query], lane, counts)  # noqa: T201 - docs/performance.md has it
        assert max(counts) <= 1.5 * counts[0], touched
        # Averages and spreads are neighbours in the index; prices are read from the table, a page a day here.
        assert max(counts) < (365 + 50 if query == SETS else 50), touched


@pytest.mark.slow
def test_a_year_touches_the_same_pages_whatever_the_table_holds(database: Database) -> None:
    check(database.url, SIZES[:2])


@pytest.fixture
def lone_server() -> Iterator[PostgresServer]:
    """A server without a replica: the long form needs the disk once, not twice."""
    folder = Path(tempfile.mkdtemp(prefix="rates-plans-"))
    folder.chmod(0o711)  # run by root, the server's account has to pass through
    try:
        with PostgresServer(folder / "primary", fast=True) as server:
            yield server
    finally:
        shutil.rmtree(folder)


@pytest.mark.demonstration
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("sizes", [SIZES[:3], SIZES], ids=["1e7", "1e8"])
def test_a_year_touches_the_same_pages_in_a_hundred_million_rollups(
    lone_server: PostgresServer, sizes: tuple[int, ...]
) -> None:
    migrate(lone_server.url)
    check(lone_server.url, sizes)


@pytest.mark.demonstration
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("exponents", [(6, 7), (6, 7, 8)], ids=["1e7", "1e8"])
def test_a_year_touches_the_same_pages_in_a_hundred_million_prices(
    lone_server: PostgresServer, tmp_path: Path, exponents: tuple[int, ...]
) -> None:
    touched: dict[tuple[str, tuple[str, str]], list[int]] = {}
    sample = read_sample(sample_file())
    file = tmp_path / "year.csv"
    for rows in (10**exponent for exponent in exponents):
        with psycopg.connect(lone_server.admin_url, autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE rows_{rows} OWNER rates")
        url = lone_server.database_url(f"rows_{rows}")
        migrate(url)
        generate(file, rows, sample=sample)
        with psycopg.connect(url, autocommit=True) as connection:
            store_locations(connection, read_locations(SAMPLE / "ports.csv", SAMPLE / "regions.csv"))
            batch, _ = ingest(Settings.model_validate({"database_url": url, "data_dir": tmp_path}), str(file))
            assert (batch.state, batch.rows) == ("published", rows)
            vacuum(connection)
            for query in NAMES:
                for lane in (("HKHKG", "SESTO"), ("china_main", "scandinavia")):
                    touched.setdefault((query, lane), []).append(pages(connection, query, lane))
    for (query, lane), counts in touched.items():
        print(NAMES[query], lane, counts)  # noqa: T201 - docs/performance.md has it
        if query != SETS:
            assert max(counts) <= 1.5 * min(counts), touched
            assert max(counts) < 50, touched
        # A batch writes a lane's days side by side, so that a page has several until their prices fill one each. The
        # prices of a busy pair of regions fill more, up to the 512 pairs of price and weight that are kept of a day.
        assert max(counts) < 2 * 365, touched
