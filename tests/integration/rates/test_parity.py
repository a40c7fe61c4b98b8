"""Rollups agree with the rows they are built from; ``python -m benchmarks.parity`` asks thousands of questions."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import psycopg
import pytest

from benchmarks.parity.replay import Parity, replay
from drills.sample import SAMPLE, store_sample_locations
from rates_app.batches.pipeline import publish
from rates_app.batches.pipeline.engine import ingest
from rates_app.rates.model import Question, Rate
from rates_app.rates.queries import rates
from rates_app.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fixtures.stores import MigratedDatabase


def test_random_questions_agree_with_the_rows(database: MigratedDatabase, tmp_path: Path) -> None:
    settings = Settings.model_validate({"database_url": database.url, "data_dir": tmp_path})
    with psycopg.connect(database.url) as connection:
        store_sample_locations(connection)
    ingest(settings, str(SAMPLE / "prices-2021-01.csv.gz"))
    (tmp_path / "more.csv").write_text(
        "orig_code,dest_code,day,price\n"
        + "".join(f"CNGGZ,EETLL,2021-01-{day:02},{900 + 7 * day}\n" for day in range(1, 32) for _ in range(3))
    )
    more, _ = ingest(settings, str(tmp_path / "more.csv"))
    (tmp_path / "gone.csv").write_text("orig_code,dest_code,day,price\nCNGGZ,EETLL,2021-01-05,999999\n")
    gone, _ = ingest(settings, str(tmp_path / "gone.csv"))
    assert more.state == gone.state == "published"
    with psycopg.connect(database.url) as connection:
        publish.withdraw(connection, gone.id)
    with psycopg.connect(database.url) as connection:
        parity = replay(connection, 150, seed=3)

    assert parity.priced > 100
    assert parity.worst_region > 0  # some regions were large enough to be rounded


@pytest.mark.parametrize(
    "found",
    [
        Rate(date(2021, 1, 1), date(2021, 1, 1), 4, 9.0, 10.0, 10.0, 11.0),
        Rate(date(2021, 1, 1), date(2021, 1, 1), 3, 9.0, 10.01, 10.0, 11.0),
        Rate(date(2021, 1, 1), date(2021, 1, 1), 3, 9.0, 10.0, 10.2, 11.0),
        Rate(date(2021, 1, 1), date(2021, 1, 1), 3, None, 10.0, 10.0, 11.0),
    ],
)
def test_the_comparison_finds_differences(found: Rate) -> None:
    question = Question("A", "B", date(2021, 1, 1), date(2021, 1, 1))
    with pytest.raises(AssertionError):
        Parity().compare(question, found, (3, 10.0, [900.0, 1000.0, 1100.0], 2), lane=False)


def test_a_day_of_one_batch_is_exact_between_regions() -> None:
    day = date(2021, 1, 1)
    found = Rate(day, day, 3, 9.0, 10.0, 10.02, 11.0)
    raw = (3, 10.0, [900.0, 1000.0, 1100.0])
    Parity().compare(Question("A", "B", day, day), found, (*raw, 2), lane=False)
    with pytest.raises(AssertionError):
        Parity().compare(Question("A", "B", day, day), found, (*raw, 1), lane=False)


def test_a_day_of_one_batch_is_answered_without_its_prices(database: MigratedDatabase, tmp_path: Path) -> None:
    settings = Settings.model_validate({"database_url": database.url, "data_dir": tmp_path})
    question = Question("china_main", "scandinavia", date(2021, 1, 1), date(2021, 1, 31))
    with psycopg.connect(database.url) as connection:
        store_sample_locations(connection)
    ingest(settings, str(SAMPLE / "prices-2021-01.csv.gz"))
    with psycopg.connect(database.url) as connection:
        before = rates(connection, question, "day")
        assert sum(rate.median is not None for rate in before) > 20
        connection.execute("UPDATE rollups SET prices = 'no prices'")
        assert rates(connection, question, "day") == before
        with pytest.raises(ValueError, match="buffer"):
            rates(connection, question, "month")
