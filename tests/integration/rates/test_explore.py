"""Lists of lanes and regions agree with the delivered rows, for any number of batches."""

from __future__ import annotations

from collections import defaultdict
from datetime import date, timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

from drills.sample import SAMPLE, store_sample_locations
from rates_app.batches.generate import generate, read_sample, sample_file
from rates_app.batches.pipeline import publish
from rates_app.batches.pipeline.engine import ingest
from rates_app.rates.explore import MOVE_DAYS, coverage, movers, priced_days, region_lanes
from rates_app.rates.locations import read_locations
from rates_app.rates.model import MIN_PRICES
from rates_app.rates.queries import lanes
from rates_app.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fixtures.stores import MigratedDatabase

MAX_LANES = 10_000

PriceRows = list[tuple[str, str, date, int]]


@pytest.fixture(scope="module")
def above() -> dict[str, list[str]]:
    """Each location with its ancestors, itself first."""
    parents = {place.code: place.parent for place in read_locations(SAMPLE / "ports.csv", SAMPLE / "regions.csv")}

    def path(code: str | None) -> list[str]:
        return [] if code is None else [code, *path(parents[code])]

    return {code: path(code) for code in parents}


@pytest.fixture
def connection(database: MigratedDatabase, tmp_path: Path) -> psycopg.Connection:
    """Three batches with overlapping days and a gap, and a withdrawn one."""
    settings = Settings.model_validate({"database_url": database.url, "data_dir": tmp_path})
    connection = psycopg.connect(database.url, autocommit=True)
    store_sample_locations(connection)
    sample = read_sample(sample_file())
    for number, (first, days, rows) in enumerate([(1, 10, 8000), (6, 10, 8000), (40, 20, 9000), (15, 20, 5000)]):
        file = tmp_path / f"{number}.csv"
        day = date(2021, 1, 1) + timedelta(days=first)
        generate(file, rows, sample=sample, first_day=day, days=days, seed=number)
        batch, _ = ingest(settings, str(file))
        assert batch.state == "published"
    with connection.transaction():
        publish.withdraw(connection, batch.id)
    return connection


@pytest.fixture
def rows(connection: psycopg.Connection) -> PriceRows:
    """The delivered rows of published batches."""
    return connection.execute(
        """
        SELECT o.code, d.code, day, price_cents
        FROM delivered JOIN batches ON batches.id = batch_id AND state = 'published'
        JOIN locations o ON o.id = origin_id JOIN locations d ON d.id = destination_id
        """
    ).fetchall()


def add_up(rows: PriceRows, above: dict[str, list[str]]) -> dict[tuple[str, str], list[date]]:
    """The days of all prices for each pair of locations."""
    days: dict[tuple[str, str], list[date]] = defaultdict(list)
    for origin, destination, day, _ in rows:
        for start in above[origin]:
            for end in above[destination]:
                days[start, end].append(day)
    return days


def test_lanes(connection: psycopg.Connection, rows: PriceRows, above: dict[str, list[str]]) -> None:
    expected = {
        pair: (len(days), len(set(days)), min(days), max(days))
        for pair, days in add_up(rows, {code: path[:1] for code, path in above.items()}).items()
    }
    found = lanes(connection, None, None, MAX_LANES)
    assert {(lane.origin, lane.destination): lane[4:] for lane in found} == expected
    assert [lane.prices for lane in found] == sorted((one[0] for one in expected.values()), reverse=True)

    some = lanes(connection, "china_main", "SESTO", MAX_LANES)
    assert {lane.origin for lane in some} == {
        origin for origin, destination in expected if destination == "SESTO" and "china_main" in above[origin]
    }
    lane = found[0]
    assert priced_days(connection, lane.origin, lane.destination) == (lane.first_day, lane.last_day)
    assert priced_days(connection, "SESTO", "SESTO") is None


def test_regions(connection: psycopg.Connection, rows: PriceRows, above: dict[str, list[str]]) -> None:
    days = add_up(rows, above)
    for lane in region_lanes(connection, MAX_LANES):
        between = days[lane.origin, lane.destination]
        assert lane[4:] == (len(between), len(set(between)), min(between), max(between))

    tops = [code for code, path in above.items() if len(path) == 1]
    for region in coverage(connection):
        away = [day for top in tops for day in days.get((region.code, top), [])]
        here = [day for top in tops for day in days.get((top, region.code), [])]
        assert (region.prices_from, region.prices_to, region.days) == (len(away), len(here), len({*away, *here}))
        assert region.first_day == min([*away, *here], default=None)
        assert region.last_day == max([*away, *here], default=None)


def test_movers(connection: psycopg.Connection, rows: PriceRows) -> None:
    newest = max(day for *_, day, _ in rows)
    weeks: dict[tuple[str, str], tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for origin, destination, day, cents in rows:
        if (ago := (newest - day).days // MOVE_DAYS) < 2:
            weeks[origin, destination][ago].append(cents)
    changes = {
        pair: (sum(now) / len(now)) / (sum(before) / len(before)) - 1
        for pair, (now, before) in weeks.items()
        if min(len(now), len(before)) >= MIN_PRICES
    }
    assert len(changes) > 10
    found = {(mover.origin, mover.destination): mover.change for mover in movers(connection, MAX_LANES)}
    assert found == pytest.approx({pair: change for pair, change in changes.items() if change})
