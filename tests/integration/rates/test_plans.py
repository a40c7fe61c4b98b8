"""A query reads few pages, and no more with ten times as many rows: plans are checked, not times.

Run the long forms with ``pytest tests/integration/rates/test_plans.py -s -m demonstration``: a hundred million prices
in batches need 20 GB of disk, a hundred million rollups 25 GB.
"""

from __future__ import annotations

import shutil
import tempfile
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest

from drills.sample import store_sample_locations
from rates_app.batches.generate import generate, read_sample, sample_file
from rates_app.batches.pipeline.engine import ingest
from rates_app.local.postgres import PostgresServer
from rates_app.rates.model import Question
from rates_app.rates.queries import AVERAGES, PARTS, SETS, query_parameters
from rates_app.settings import Settings
from rates_app.store.migrate import migrate
from tests.integration.rates.plans import nodes, vacuum

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fixtures.stores import MigratedDatabase

YEAR = (date(2021, 1, 1), date(2021, 12, 31))
#: Between two ports, and between two regions. Rollups treat both alike.
LANES = [("P1", "P2"), ("R1", "R2")]
DAYS = [YEAR[0] + timedelta(days=number) for number in range(365)]
#: A day's average; its spread, if one batch has its prices; and the prices, for several batches.
NAMES = {AVERAGES: "averages", PARTS: "spreads of days", SETS: "prices"}
#: Numbers of locations. Each pair has a year of rollups: 10^5, 10^6, 10^7, 10^8 rows.
SIZES = (17, 53, 166, 524)


def pages(connection: psycopg.Connection[Any], query: str, lane: tuple[str, str]) -> int:
    """Explain a query, check its plan, and count the pages that it reads."""
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


def grow(connection: psycopg.Connection[Any], locations: int) -> None:
    """Write a year of rollups for each pair of locations, half of them ports, half regions."""
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
    for day in DAYS:  # in the order of arrival: no two days of a lane are adjacent
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
    """Run the same queries on a growing table, and compare the pages that they read."""
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
        # Averages and spreads are adjacent in the index; prices are in the table, here one page per day.
        assert max(counts) < (365 + 50 if query == SETS else 50), touched


@pytest.mark.slow
def test_a_year_reads_the_same_pages_whatever_the_size_of_the_table(database: MigratedDatabase) -> None:
    check(database.url, SIZES[:2])


@pytest.fixture
def lone_server() -> Iterator[PostgresServer]:
    """A server without a replica, because the long form needs much disk space."""
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
def test_a_year_reads_the_same_pages_in_a_hundred_million_rollups(
    lone_server: PostgresServer, sizes: tuple[int, ...]
) -> None:
    migrate(lone_server.url)
    check(lone_server.url, sizes)


@pytest.mark.demonstration
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("exponents", [(6, 7), (6, 7, 8)], ids=["1e7", "1e8"])
def test_a_year_reads_the_same_pages_in_a_hundred_million_prices(
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
            store_sample_locations(connection)
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
        # A batch writes a lane's days next to each other, so a page has several until their prices fill one each. The
        # prices of a busy pair of regions fill more, up to 512 pairs of price and weight per day.
        assert max(counts) < 2 * 365, touched
