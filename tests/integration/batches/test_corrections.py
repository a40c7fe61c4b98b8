"""A replacement publishes one batch and withdraws another in one step, or changes nothing."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING

import psycopg
import pytest

from rates_app.batches import ledger
from rates_app.batches.formats.inspection import inspect
from rates_app.batches.model import NoSuchBatch, Terms, WrongState
from rates_app.batches.pipeline import plausibility, publish
from rates_app.batches.pipeline.engine import ingest
from rates_app.batches.pipeline.housekeep import housekeep
from rates_app.rates.model import Question
from rates_app.rates.queries import daily_averages
from tests.fixtures.stores import wait_for_replay
from tests.integration.batches.test_visibility import Reader

if TYPE_CHECKING:
    from rates_app.batches.model import Batch
    from rates_app.local.postgres import PostgresPair
    from rates_app.settings import Settings
    from tests.integration.batches.conftest import Deliver

HEADER = "orig_code,dest_code,day,price\n"
DAY = date(2021, 1, 1)


def content(dollars: int, rows: int = 3) -> bytes:
    return (HEADER + f"CNGGZ,EETLL,{DAY},{dollars}\n" * rows).encode()


def connect(settings: Settings) -> psycopg.Connection:
    return psycopg.connect(settings.database_url.get_secret_value())


def average(settings: Settings) -> float | None:
    with connect(settings) as connection:
        (found,) = daily_averages(connection, Question("CNGGZ", "EETLL", DAY, DAY))
    return found.price


def find(settings: Settings, batch: Batch) -> Batch:
    with connect(settings) as connection:
        return ledger.find_batch(connection, batch.id)


def test_a_chain_of_replacements_and_the_way_back(settings: Settings, deliver: Deliver) -> None:
    batches = [ingest(settings, deliver("a.csv", content(100)))[0]]
    for dollars in (200, 300):
        path = deliver(f"{dollars}.csv", content(dollars))
        batches.append(ingest(settings, path, terms=Terms(replaces=batches[-1].id))[0])
        assert average(settings) == dollars
        # Delivered a second time, it is the same batch, although its predecessor is not published any more.
        assert ingest(settings, path, terms=Terms(replaces=batches[-2].id)) == (batches[-1], False)

    back = Terms(replaces=batches[-1].id, resubmit=True)
    batches.append(ingest(settings, deliver("a.csv", content(100)), terms=back)[0])
    assert average(settings) == 100
    housekeep(settings)
    assert average(settings) == 100

    found = [find(settings, batch) for batch in batches]
    assert [batch.state for batch in found] == ["withdrawn", "withdrawn", "withdrawn", "published"]
    assert [batch.replaced_by for batch in found] == [*(batch.id for batch in batches[1:]), None]
    with connect(settings) as connection:
        for batch in batches:
            assert ledger.list_lineage(connection, batch.id) == found


def test_a_replacement_raises_one_generation_for_both(settings: Settings, deliver: Deliver) -> None:
    first, _ = ingest(settings, deliver("a.csv", content(100)))
    second, _ = ingest(settings, deliver("b.csv", content(200)), terms=Terms(replaces=first.id))
    assert first.generation is not None
    assert find(settings, first).generation == second.generation == first.generation + 1


@pytest.mark.parametrize("bad", [b"XXXXX,EETLL,2021-01-01,1\n", b"\x00garbage"])
def test_a_refused_replacement_leaves_the_published_batch(settings: Settings, deliver: Deliver, bad: bytes) -> None:
    first, _ = ingest(settings, deliver("a.csv", content(100)))
    refused, _ = ingest(settings, deliver("b.csv", content(200) + bad), terms=Terms(replaces=first.id))
    assert (refused.state, find(settings, first).state, average(settings)) == ("refused", "published", 100)
    assert find(settings, first).replaced_by is None


def test_a_failed_replacement_leaves_the_published_batch(
    settings: Settings, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = ingest(settings, deliver("a.csv", content(100)))

    def lose(*_: object) -> None:
        raise psycopg.OperationalError("lost")

    with monkeypatch.context() as patch:
        patch.setattr(publish, "increment_generation", lose)
        with pytest.raises(psycopg.OperationalError):
            ingest(settings, deliver("b.csv", content(200)), terms=Terms(replaces=first.id))
    assert (find(settings, first), average(settings)) == (first, 100)
    with connect(settings) as connection:
        publish.fail(connection, first.id + 1, "given up")
    assert (find(settings, first), average(settings)) == (first, 100)


def test_only_a_published_batch_of_the_same_supplier_can_be_replaced(settings: Settings, deliver: Deliver) -> None:
    first, _ = ingest(settings, deliver("a.csv", content(100)), supplier="acme")
    with pytest.raises(NoSuchBatch, match="supplier other has no batch"):
        ingest(settings, deliver("b.csv", content(200)), supplier="other", terms=Terms(replaces=first.id))
    with pytest.raises(NoSuchBatch):
        ingest(settings, deliver("b.csv", content(200)), supplier="acme", terms=Terms(replaces=999))
    second, _ = ingest(settings, deliver("b.csv", content(200)), supplier="acme", terms=Terms(replaces=first.id))
    with pytest.raises(WrongState, match=f"deliver with replaces={second.id}"):
        ingest(settings, deliver("c.csv", content(300)), supplier="acme", terms=Terms(replaces=first.id))
    third, _ = ingest(settings, deliver("d.csv", content(400)), supplier="acme")
    with pytest.raises(WrongState, match=f"already published as batch {third.id}"):
        ingest(settings, deliver("d.csv", content(400)), supplier="acme", terms=Terms(replaces=second.id))
    with connect(settings) as connection:
        publish.withdraw(connection, second.id)
    with pytest.raises(WrongState, match="deliver without replaces"):
        ingest(settings, deliver("c.csv", content(300)), supplier="acme", terms=Terms(replaces=second.id))


def test_what_a_delivery_states_about_known_content_is_never_ignored(settings: Settings, deliver: Deliver) -> None:
    path = deliver("a.csv", content(100))
    first, _ = ingest(settings, path)
    true = Terms(expected_rows=3, expected_total=Decimal("300.00"))
    assert ingest(settings, path, terms=true) == (first, False)
    for untrue in (Terms(expected_rows=4), Terms(expected_total=Decimal("300.01"))):
        with pytest.raises(WrongState, match=f"published as batch {first.id}, with 3 rows and a total of 300.00 USD"):
            ingest(settings, path, terms=untrue)


def test_what_a_delivery_states_about_content_in_work_is_never_ignored(settings: Settings, deliver: Deliver) -> None:
    first, _ = ingest(settings, deliver("a.csv", content(100)))
    path = deliver("b.csv", content(200))
    source = inspect(path)

    def accept(terms: Terms) -> Batch:
        with connect(settings) as connection:
            return ledger.accept(connection, source, name="b.csv", supplier="local", terms=terms)[0]

    batch = accept(Terms())
    with pytest.raises(WrongState, match=f"in work, received as batch {batch.id}, so it cannot replace batch"):
        accept(Terms(replaces=first.id))
    assert accept(Terms(expected_rows=4)) == batch
    with pytest.raises(WrongState, match="other rows or another total were announced"):
        accept(Terms(expected_rows=3))
    assert ingest(settings, path)[0].failure == "the file has 3 rows, but 4 were announced: deliver the complete file"


def test_a_check_is_not_an_earlier_batch(settings: Settings, deliver: Deliver) -> None:
    path = deliver("a.csv", content(100))
    checked, _ = ingest(settings, path, terms=Terms(check=True))
    with connect(settings) as connection:
        ledger.set_state(connection, checked.id, "verified")  # as for the moment before it ends
    assert ingest(settings, path)[0].state == "published"


def test_the_next_step_of_a_refused_replacement_replaces(settings: Settings, deliver: Deliver) -> None:
    first, _ = ingest(settings, deliver("a.csv", content(100)))
    second, _ = ingest(settings, deliver("b.csv", b"nothing"), terms=Terms(replaces=first.id))
    step = ledger.next_step(second)
    assert step is not None
    assert f"'rates ingest FILE --resubmit --replaces {first.id}'" in step
    assert f"resubmit=true&replaces={first.id}" in step


def test_equal_files_of_two_suppliers_are_two_batches(settings: Settings, deliver: Deliver) -> None:
    path = deliver("a.csv", content(100))
    batches = [ingest(settings, path, supplier=supplier)[0] for supplier in ("acme", "other", "acme")]
    assert batches[0] == batches[2]
    assert [batch.supplier for batch in batches[:2]] == ["acme", "other"]


def test_of_two_replacements_of_one_batch_one_is_published(
    settings: Settings, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = ingest(settings, deliver("a.csv", content(100)))
    both = threading.Barrier(2)
    assess = plausibility.assess

    def assess_together(connection: psycopg.Connection, batch: Batch, limits: Settings) -> plausibility.Assessment:
        both.wait(60)
        return assess(connection, batch, limits)

    monkeypatch.setattr(plausibility, "assess", assess_together)
    paths = [deliver(f"{dollars}.csv", content(dollars)) for dollars in (200, 300)]
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(lambda path: ingest(settings, path, terms=Terms(replaces=first.id))[0], paths))
    assert sorted(batch.state for batch in ended) == ["published", "refused"]
    (winner,) = (batch for batch in ended if batch.state == "published")
    (loser,) = (batch for batch in ended if batch.state == "refused")
    assert (
        str(loser.failure) == f"batch {first.id} was replaced by batch {winner.id}: deliver with replaces={winner.id}"
    )
    assert average(settings) == (200, 300)[ended.index(winner)]


def test_no_reader_sees_both_batches_or_none(settings: Settings, deliver: Deliver, cluster: PostgresPair) -> None:
    current, _ = ingest(settings, deliver("a.csv", content(1000)))
    with connect(settings) as connection:
        wait_for_replay(connection, cluster.replica)
    readers = [Reader(url.get_secret_value()) for url in (settings.database_url, *settings.replica_urls)]
    assert len(readers) == 2
    for reader in readers:
        reader.start()
        reader.wait_for(1)
    for number in range(1, 6):
        path = deliver(f"{number}.csv", content(1000 + number))
        current, _ = ingest(settings, path, terms=Terms(replaces=current.id))
        assert current.state == "published"
        for reader in readers:
            reader.wait_for(number + 1)
    for reader in readers:
        reader.stop()
        counts, sums = zip(*reader.answers, strict=True)
        assert len(set(counts)) == 1, "as many prices at any time"
        assert [total * 1000 // sums[0] for total in sums] == list(range(1000, 1006))


def test_a_reader_of_staged_tables_delays_no_publish(
    settings: Settings, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What pg_dump does: it locks every table that it finds, and keeps the locks until its end."""
    small = settings.model_copy(update={"slice_bytes": 50})
    with connect(settings) as reader:
        verify = publish.verify

        def verify_under_dump(connection: psycopg.Connection, batch_id: int) -> Batch:
            tables = reader.execute(
                "SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace IN"
                " ('staging'::regnamespace, 'public'::regnamespace)"
            ).fetchall()
            reader.execute(f"LOCK TABLE {', '.join(name for (name,) in tables)} IN ACCESS SHARE MODE")
            return verify(connection, batch_id)

        monkeypatch.setattr(publish, "verify", verify_under_dump)
        first, _ = ingest(small, deliver("a.csv", content(100, 10)))
        assert (first.state, average(settings)) == ("published", 100)
        refused, _ = ingest(small, deliver("b.csv", content(100, 10) + b"XXXXX,EETLL,2021-01-01,1\n"))
        second, _ = ingest(small, deliver("c.csv", content(200, 10)), terms=Terms(replaces=first.id))
        assert (refused.state, second.state, average(settings)) == ("refused", "published", 200)
        assert len(ledger_tables(settings, first.id)) > 1
        pass_under_dump = housekeep(settings)
        assert pass_under_dump is not None
        assert pass_under_dump.deferred > 0
    assert reader.closed
    done = housekeep(settings)
    assert done is not None
    assert done.deferred == 0
    assert ledger_tables(settings, first.id) == ledger_tables(settings, refused.id) == []
    with connect(settings) as connection:
        prices = connection.execute("SELECT batch_id, count(*) FROM delivered GROUP BY batch_id").fetchall()
    assert prices == [(second.id, 10)]
    assert average(settings) == 200


def ledger_tables(settings: Settings, batch_id: int) -> list[str]:
    with connect(settings) as connection:
        rows = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'staging'::regnamespace AND relkind IN ('r', 'p')"
            " AND relname ~ ('^b' || %s::text || '(_|$)')",
            (batch_id,),
        ).fetchall()
    return [name for (name,) in rows]
