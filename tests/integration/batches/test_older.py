"""What the version before has staged or published, as single rows and arrays, is gone on with."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import psycopg
import pytest

from rates_app.batches.formats import csv
from rates_app.batches.formats.source import inspect
from rates_app.batches.ledger import batches as ledger
from rates_app.batches.pipeline import publish
from rates_app.batches.pipeline.engine import ingest
from rates_app.batches.pipeline.housekeep import Housekeeping, housekeep
from rates_app.batches.pipeline.rollup import rebuild_for_tree
from rates_app.rates.model import Question
from rates_app.rates.queries import lanes, rates

if TYPE_CHECKING:
    from collections.abc import Callable

    from rates_app.batches.model import State
    from rates_app.settings import Settings

    Deliver = Callable[[str, bytes], str]

ROWS = b"orig_code,dest_code,day,price\n" + b"CNGGZ,EETLL,2021-01-01,10\n" * 4
DAY = date(2021, 1, 1)

# As the version before staged and gathered one slice: an attempt's table, and the batch's, in single rows.
STAGED = """
    CREATE TABLE staging.b{id}_s0_x1 (LIKE prices, CONSTRAINT of_batch CHECK (batch_id = {id}));
    INSERT INTO staging.b{id}_s0_x1
    SELECT {id}, 0, o.id, d.id, '2021-01-01', 1000
    FROM locations o, locations d, generate_series(1, 4) WHERE o.code = 'CNGGZ' AND d.code = 'EETLL';
    CREATE TABLE staging.b{id} (LIKE prices, CONSTRAINT of_batch CHECK (batch_id = {id})) PARTITION BY LIST (slice);
    ALTER TABLE staging.b{id} ATTACH PARTITION staging.b{id}_s0_x1 FOR VALUES IN (0);
    INSERT INTO rollups (origin_id, destination_id, day, batch_id, count, total_cents, price_cents, weights)
    SELECT origin_id, destination_id, day, batch_id, 4, 4000, ARRAY[1000], ARRAY[4] FROM staging.b{id} LIMIT 1;
    UPDATE slices SET state = 'staged', winner = 'b{id}_s0_x1', lines = 4, rows = 4, rejected = 0, total_cents = 4000
    WHERE batch_id = {id};
"""
PUBLISHED = """
    UPDATE batches SET rows = 4 WHERE id = {id};
    ALTER TABLE prices ATTACH PARTITION staging.b{id} FOR VALUES IN ({id})
"""


def older(connection: psycopg.Connection, path: str) -> int:
    """Have a batch that the version before has rolled up."""
    batch, _ = ledger.accept(connection, inspect(path), name="a", supplier="test")
    ledger.enter_slices(connection, batch.id, csv.plan(path, 1000))
    ledger.set_state(connection, batch.id, "staging")
    for statement in STAGED.format(id=batch.id).split(";")[:-1]:
        connection.execute(statement)
    return batch.id


@pytest.mark.parametrize("state", ["staging", "verified"])
def test_a_batch_in_work_is_staged_again(settings: Settings, deliver: Deliver, state: State) -> None:
    path = deliver("a.csv", ROWS)
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        batch_id = older(connection, path)
        ledger.set_state(connection, batch_id, state)
    batch, worked = ingest(settings, path)
    assert (batch.id, batch.state, batch.rows, worked) == (batch_id, "published", 4, True)
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        assert connection.execute("SELECT count(*) FROM segments").fetchone() == (1,)
        assert connection.execute("SELECT count(*), sum(price_cents) FROM delivered").fetchone() == (4, 4000)
        assert connection.execute("SELECT count(*) FROM rollups WHERE prices IS NULL").fetchone() == (0,)


def test_a_published_batch_answers_and_goes(settings: Settings, deliver: Deliver) -> None:
    question = Question("CNGGZ", "EETLL", DAY, DAY)
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        batch_id = older(connection, deliver("a.csv", ROWS))
        connection.execute(PUBLISHED.format(id=batch_id))
        ledger.set_state(connection, batch_id, "published")
        (alone,) = rates(connection, question, "day")
        assert lanes(connection, None, None, 10) == []
    assert (alone.count, alone.median) == (4, 10)
    assert housekeep(settings) == Housekeeping(cleared=0, merged=0, files=0)
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        (lane,) = lanes(connection, None, None, 10)
    assert (lane.origin, lane.prices, lane.days) == ("CNGGZ", 4, 1)
    ingest(settings, deliver("b.csv", ROWS.replace(b",10\n", b",20\n") + b"CNGGZ,EETLL,2021-01-01,30\n"))
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        (both,) = rates(connection, question, "day")
        assert (both.count, both.low, both.median, both.high) == (9, 10, 20, 22)
        assert connection.execute("SELECT count(*), sum(price_cents) FROM delivered").fetchone() == (9, 15_000)
        assert rebuild_for_tree(connection) == 2
        wide = Question("china_main", "EETLL", DAY, DAY)
        assert [(rate.count, rate.median) for rate in rates(connection, wide, "day")] == [(9, 20)]
        publish.withdraw(connection, batch_id)
    assert housekeep(settings) == Housekeeping(cleared=1, merged=0, files=0)
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        assert connection.execute("SELECT count(*), sum(price_cents) FROM delivered").fetchone() == (5, 11_000)
        assert [rate.count for rate in rates(connection, question, "day")] == [5]
