"""Leftovers are removed, partitions stay few, and rates stay the same."""

from __future__ import annotations

import os
import time
from collections import Counter
from datetime import date
from typing import TYPE_CHECKING

import psycopg
import pytest

from rates_app.batches import ledger
from rates_app.batches.pipeline import housekeep as housekeeping
from rates_app.batches.pipeline import publish
from rates_app.batches.pipeline.engine import ingest
from rates_app.batches.pipeline.housekeep import HOUSEKEEPING_LOCK, MERGE_PARTITIONS, Housekeeping, housekeep
from rates_app.batches.sources.leftovers import KEEP_SECONDS
from rates_app.rates.model import Question
from rates_app.rates.queries import daily_averages

if TYPE_CHECKING:
    from rates_app.settings import Settings
    from tests.integration.batches.conftest import Deliver

HEADER = b"orig_code,dest_code,day,price\n"
QUESTION = Question("CNGGZ", "EETLL", date(2021, 1, 1), date(2021, 12, 31))


def batch(settings: Settings, deliver: Deliver, number: int, rows: int = 1) -> int:
    day = date.fromordinal(date(2021, 1, 1).toordinal() + number)
    content = HEADER + f"CNGGZ,EETLL,{day},{number + 1}\n".encode() * rows
    found, _ = ingest(settings, deliver(f"{number}.csv", content))
    assert found.state == "published"
    return found.id


def connect(settings: Settings) -> psycopg.Connection:
    return psycopg.connect(settings.database_url.get_secret_value())


def prices(settings: Settings) -> Counter[tuple[int, int]]:
    with connect(settings) as connection:
        return Counter(connection.execute("SELECT batch_id, price_cents FROM delivered"))


def partitions(settings: Settings) -> list[list[int]]:
    with connect(settings) as connection:
        return [partition.batches for partition in housekeeping._partitions(connection)]


def tables(settings: Settings) -> int:
    with connect(settings) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_class WHERE relnamespace = 'staging'::regnamespace AND relkind IN ('r', 'p')"
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_small_partitions_become_few_and_nothing_else_changes(settings: Settings, deliver: Deliver) -> None:
    # Partitions of one digit become one of two digits, and ten of those one of three.
    first = [batch(settings, deliver, number) for number in range(MERGE_PARTITIONS + 2)]
    large = batch(settings, deliver, 100, rows=20)
    before = prices(settings)
    with connect(settings) as connection:
        answer = daily_averages(connection, QUESTION)
    assert housekeep(settings) == Housekeeping(cleared=0, merged=MERGE_PARTITIONS, files=0)
    assert partitions(settings) == [
        first[:MERGE_PARTITIONS],
        *([number] for number in first[MERGE_PARTITIONS:]),
        [large],
    ]
    assert prices(settings) == before
    with connect(settings) as connection:
        assert daily_averages(connection, QUESTION) == answer
    assert housekeep(settings) == Housekeeping(0, 0, 0)
    # A batch that is published later is attached as before.
    later = batch(settings, deliver, 200)
    assert [later] in partitions(settings)


def test_many_batches_need_few_partitions(
    settings: Settings, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "MERGE_PARTITIONS", 3)
    monkeypatch.setattr(housekeeping, "MAX_MERGED_ROWS", 10)
    for number in range(30):
        batch(settings, deliver, number, rows=1 + number % 3)
        housekeep(settings)
    assert prices(settings).total() == sum(1 + number % 3 for number in range(30))
    assert len(partitions(settings)) <= 2 + prices(settings).total() / 10 * 3


def test_a_withdrawn_batch_leaves_nothing_also_from_a_merged_partition(settings: Settings, deliver: Deliver) -> None:
    first = [batch(settings, deliver, number) for number in range(MERGE_PARTITIONS)]
    housekeep(settings)
    alone = batch(settings, deliver, 100)
    with connect(settings) as connection:
        publish.withdraw(connection, first[3])
        publish.withdraw(connection, alone)
    assert housekeep(settings) == Housekeeping(cleared=2, merged=0, files=0)
    assert prices(settings) == {(number, (n + 1) * 100): 1 for n, number in enumerate(first) if n != 3}
    with connect(settings) as connection:
        assert connection.execute(
            "SELECT count(*) FROM rollups WHERE batch_id = ANY (%s)", ([first[3], alone],)
        ).fetchone() == (0,)
    assert partitions(settings) == [first]
    assert housekeep(settings) == Housekeeping(0, 0, 0)


def test_a_batch_in_work_is_left_alone(settings: Settings, deliver: Deliver, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(publish, "verify", stop)
        with pytest.raises(KeyboardInterrupt):
            batch(settings, deliver, 1)
    staged = tables(settings)
    assert staged
    assert housekeep(settings) == Housekeeping(0, 0, 0)
    assert tables(settings) == staged
    assert batch(settings, deliver, 1)


def test_files_of_ended_and_interrupted_work_are_removed(settings: Settings, deliver: Deliver) -> None:
    ended, _ = ingest(settings, deliver("a.csv", HEADER + b"CNGGZ,EETLL,2021-01-01,1\n"))
    for name in (f"expanded/{ended.id}", "expanded/fresh", "incoming/.new.partial"):
        path = settings.data_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    old = settings.data_dir / "incoming" / "acme" / ".old.partial"
    old.parent.mkdir()
    old.touch()
    os.utime(old, (time.time() - 2 * KEEP_SECONDS,) * 2)
    assert housekeep(settings) == Housekeeping(0, 0, files=2)
    assert sorted(path.name for path in settings.data_dir.rglob("*") if path.is_file()) == [".new.partial", "fresh"]


def test_one_pass_at_a_time(settings: Settings) -> None:
    with connect(settings) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (HOUSEKEEPING_LOCK,))
        assert housekeep(settings) is None


def test_rejects_are_deleted_some_days_after_the_batch_has_ended(settings: Settings, deliver: Deliver) -> None:
    bad = HEADER + b"CNGGZ,NOWHR,2021-01-01,1\n" * 3
    old, _ = ingest(settings, deliver("old.csv", bad))
    new, _ = ingest(settings, deliver("new.csv", bad + b"CNGGZ,EETLL,2021-01-01,1\n"))
    with connect(settings) as connection:
        connection.execute("UPDATE batches SET ended_at = ended_at - interval '91 days' WHERE id = %s", (old.id,))
    done = housekeep(settings)
    assert done is not None
    assert done.rejects == 3
    with connect(settings) as connection:
        assert [ledger.count_rejects(connection, batch.id) for batch in (old, new)] == [0, 3]
        assert [ledger.count_unlisted_rows(connection, batch.id) for batch in (old, new)] == [3, 0]
