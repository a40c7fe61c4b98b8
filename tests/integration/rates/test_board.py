"""The home page's board agrees with the API, shows pinned lanes first, and reads only the index of rollups."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from drills.sample import store_sample_locations
from rates_app.batches.generate import generate, read_sample, sample_file
from rates_app.batches.pipeline.engine import ingest
from rates_app.rates.board import BOARD_DAYS, DAYS, board
from rates_app.rates.model import Question
from rates_app.rates.queries import rates
from rates_app.settings import Settings
from rates_app.web.board import overview
from tests.integration.rates.plans import nodes, vacuum

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fixtures.stores import MigratedDatabase

PINNED = ("CNSGH", "scandinavia")


@pytest.fixture
def connection(database: MigratedDatabase, tmp_path: Path) -> psycopg.Connection[Any]:
    """Two batches with common days; the first begins before the board's range."""
    settings = Settings.model_validate({"database_url": database.url, "data_dir": tmp_path})
    connection = psycopg.connect(database.url, autocommit=True)
    store_sample_locations(connection)
    sample = read_sample(sample_file())
    for number, (first, days) in enumerate([(date(2021, 1, 1), 60), (date(2021, 2, 20), 60)]):
        file = tmp_path / f"{number}.csv"
        generate(file, 20_000, sample=sample, first_day=first, days=days, seed=number)
        batch, _ = ingest(settings, str(file))
        assert batch.state == "published"
    connection.autocommit = False
    return connection


def test_the_board_agrees_with_the_api(connection: psycopg.Connection[Any]) -> None:
    found = board(connection, [PINNED, ("NOOSL", "CNSGH")], 6)
    assert found is not None
    assert len(found.lanes) == 6
    assert (found.lanes[0].lane.origin, found.lanes[0].lane.destination) == PINNED
    assert found.date_to - found.date_from == timedelta(days=BOARD_DAYS - 1)
    for each in found.lanes:
        question = Question(each.lane.origin, each.lane.destination, found.date_from, found.date_to)
        days = rates(connection, question, "day")
        assert each.averages == {day.date_from: day.average for day in days if day.average is not None}
        assert each.prices == sum(day.count for day in days)
        rated = [day for day in days if day.average is not None]
        assert each.latest == rated[-1]
        for change, back in zip(each.changes, (7, 30), strict=True):
            earlier = each.averages.get(rated[-1].date_from - timedelta(days=back))
            if earlier is not None:
                assert rated[-1].average is not None
                assert change.ratio == rated[-1].average / earlier - 1


def test_stale_prices_and_lagging_lanes_are_marked(connection: psycopg.Connection[Any]) -> None:
    found = board(connection, [], 3)
    assert found is not None
    assert overview(found, found.date_to + timedelta(days=7)).stale_days is None
    assert overview(found, found.date_to + timedelta(days=8)).stale_days == 8
    early = found.lanes[0]._replace(lane=found.lanes[0].lane._replace(last_day=found.date_to - timedelta(days=8)))
    rows = overview(found._replace(lanes=[early, *found.lanes[1:]]), found.date_to).rows
    assert [row.late for row in rows] == [True, False, False]
    for row in rows:
        points = sum(len(line.split()) for line in row.lines)
        assert points == len(row.found.averages)
        assert f"{row.found.latest.low:,.0f}" in row.sentence if row.found.latest else False


def test_without_prices_there_is_no_board(database: MigratedDatabase) -> None:
    with psycopg.connect(database.url) as connection:
        assert board(connection, [PINNED], 6) is None


def test_rollups_are_read_by_the_covering_index_alone(connection: psycopg.Connection[Any]) -> None:
    connection.autocommit = True
    vacuum(connection, hidden=0.1)
    connection.autocommit = False
    found = board(connection, [], 6)
    assert found is not None
    parameters = {
        "origins": [each.lane.origin for each in found.lanes],
        "destinations": [each.lane.destination for each in found.lanes],
        "date_from": found.date_from,
        "date_to": found.date_to,
    }
    row = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {DAYS}", parameters).fetchone()
    assert row is not None
    scans = [node for node in nodes(row[0][0]["Plan"]) if node.get("Relation Name") == "rollups"]
    assert [scan["Node Type"] for scan in scans] == ["Index Only Scan"]
    read = sum(scan["Actual Rows"] * scan["Actual Loops"] for scan in scans)
    assert read <= 2 * len(found.lanes) * BOARD_DAYS, "one row for each lane, day and batch, and no others"
