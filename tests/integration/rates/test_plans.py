"""A question touches few pages, and not more when there are ten times as many rows: the plan is checked, no time."""

from __future__ import annotations

import time
from datetime import date
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from rates_app.rates.model import Question
from rates_app.rates.queries import AVERAGES, SPREADS, query_parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import Database

YEAR = (date(2021, 1, 1), date(2021, 12, 31))
#: Between two ports, and between two regions: which of them a lane is makes no difference to the rollups.
LANES = [("P1", "P2"), ("R1", "R2")]
#: Locations of which each pair has a year of rollups: 100,000, then 1,000,000 rows.
SIZES = {17: "1e5", 53: "1e6"}


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", []):
        yield from nodes(part)


def pages(connection: psycopg.Connection[Any], query: str, lane: tuple[str, str]) -> int:
    """Explain a query, check the way it takes, and count the pages it touches."""
    row = connection.execute(
        f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}", query_parameters(Question(*lane, *YEAR))
    ).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    scans = [node for node in nodes(plan) if node.get("Relation Name") == "rollups"]
    assert scans, plan
    for scan in scans:
        assert scan["Node Type"] in {"Index Scan", "Index Only Scan", "Bitmap Heap Scan"}, scan["Node Type"]
    if query == AVERAGES:
        assert [scan["Node Type"] for scan in scans] == ["Index Only Scan"]
    assert plan["Actual Rows"] == 365
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


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
    connection.execute(
        """
        INSERT INTO rollups
        SELECT o.id, d.id, day, batches.id, 6, 6000, ARRAY[900, 1000, 1100], ARRAY[2, 2, 2]
        FROM batches, locations o, locations d, generate_series('2021-01-01'::date, '2021-12-31', '1 day') AS day
        ORDER BY day  -- as batches arrive: no two days of a lane are neighbours
        ON CONFLICT DO NOTHING
        """
    )
    connection.execute("ANALYZE batches")
    for _ in range(100):
        connection.execute("VACUUM ANALYZE rollups")
        row = connection.execute("SELECT relpages - relallvisible FROM pg_class WHERE relname = 'rollups'").fetchone()
        if row == (0,):
            return
        time.sleep(0.2)  # the replica tells once a second that it no longer needs what was there before
    raise TimeoutError(f"{row} pages are not visible to all")


@pytest.mark.slow
def test_a_year_touches_the_same_pages_whatever_the_table_holds(database: Database) -> None:
    touched: dict[tuple[str, tuple[str, str]], list[int]] = {}
    with psycopg.connect(database.url, autocommit=True) as connection:
        for locations in SIZES:
            grow(connection, locations)
            for query in (AVERAGES, SPREADS):
                for lane in LANES:
                    touched.setdefault((query, lane), []).append(pages(connection, query, lane))
        row = connection.execute("SELECT count(*) FROM rollups").fetchone()
        assert row is not None
        assert row[0] > 1_000_000

    for (query, _), (small, large) in touched.items():
        assert large <= 1.5 * small, touched
        # An average reads neighbouring pages of the index; a spread reads each day's prices from the table as well.
        assert large < (50 if query == AVERAGES else 365 + 50), touched
