"""Behind PgBouncer: sessions for leases and drivers, transactions for reads of a replica (docs/connections.md)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import TYPE_CHECKING

import httpx
import psycopg
import pytest

from drills.pod import Pod, environment_of
from drills.waiting import wait_until
from rates_app.batches import ledger
from rates_app.batches.pipeline import engine
from rates_app.doctor.stores import check_primary, check_replica
from rates_app.settings import Settings
from rates_app.store.connections import connect
from rates_app.store.databases import REPLICA_LOCK_TIMEOUT_MS, Databases
from tests.fixtures.pgbouncer import PgBouncer, Pool, require_pgbouncer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fixtures.service import PriceRow, Publisher

DAYS = 31
#: Fewer connections to the replica than there are readers.
READ_CONNECTIONS = 2
MISPLACED_STATEMENTS = (psycopg.errors.InvalidSqlStatementName, psycopg.errors.DuplicatePreparedStatement)


@pytest.fixture
def pooler(folder: Path, settings: Settings) -> Iterator[PgBouncer]:
    """A pooler with the pools ``primary`` (sessions), ``replica`` (transactions) and ``wrong``: the primary, so too."""
    require_pgbouncer()
    primary, replica = settings.database_url_of("serving"), settings.replica_urls[0].get_secret_value()
    pools = {
        "primary": Pool(primary, "session"),
        "replica": Pool(replica, "transaction", READ_CONNECTIONS),
        "wrong": Pool(primary, "transaction"),
    }
    logins = [settings.database_url_of("ingest"), settings.database_url_of("operator")]
    with PgBouncer(folder / "pgbouncer", pools, logins) as pooler:
        yield pooler


@pytest.fixture
def pooled(settings: Settings, pooler: PgBouncer) -> Settings:
    """The settings of a stack behind the pooler."""
    primary = {
        f"{role}_database_url": pooler.through("primary", settings.database_url_of(role))
        for role in ("serving", "ingest", "operator")
    }
    return Settings.model_validate(
        settings.model_dump()
        | primary
        | {
            "database_url": primary["serving_database_url"],
            "replica_urls": pooler.through("replica", settings.replica_urls[0].get_secret_value()),
            "replica_pooling": "transaction",
        }
    )


def rows(cents: int) -> list[PriceRow]:
    return [("CNGGZ", "EETLL", date(2021, 1, 1 + day), cents) for day in range(DAYS) for _ in range(3)]


def test_the_service_reads_through_few_connections_and_sees_each_publication(
    pooled: Settings, publisher: Publisher
) -> None:
    publisher.publish(rows(100_000))
    first = publisher.batches[-1]
    pod = Pod(environment_of(pooled) | {"RATES_WORKERS": "2"})
    query = f"{pod.url}/rates?orig_code=CNGGZ&dest_code=EETLL&date_from="

    def price(day: int) -> int:
        answer = httpx.get(f"{query}2021-01-{day:02}&date_to=2021-01-31", timeout=60).raise_for_status()
        (found,) = {each["price"] for each in answer.json()["rates"]}
        return int(found)

    try:
        pod.wait_until_ready()
        with ThreadPoolExecutor(8) as readers:
            # More reads per connection than psycopg executes before it prepares a statement.
            assert set(readers.map(price, list(range(1, DAYS)) * 4)) == {1000}
            publisher.publish(rows(200_000), replaces=first)
            assert set(readers.map(price, list(range(1, DAYS)) * 4)) == {2000}
        explain = {"X-Rates-Explain": "1"}
        wait_until(
            lambda: (
                "process" in httpx.get(f"{query}2021-01-01&date_to=2021-01-31", headers=explain).headers["Cache-Status"]
            )
        )
    finally:
        pod.terminate()
    text = "".join(pod.output)
    assert "database_unreachable" not in text
    assert "database_busy" not in text


def test_reads_leave_no_state_on_the_servers_connections(pooled: Settings, settings: Settings) -> None:
    databases = Databases(pooled.model_copy(update={"pool_size": 8}))
    databases.open()
    query = "SELECT pg_backend_pid(), current_setting('lock_timeout'), (SELECT count(*) FROM pg_prepared_statements)"
    try:
        with ThreadPoolExecutor(8) as readers:

            def ask(_number: int) -> tuple[int, str, int]:
                row = databases.replicas[0].read(lambda it: it.execute(query).fetchone())
                assert row is not None
                return int(row[0]), str(row[1]), int(row[2])

            found = list(readers.map(ask, range(400)))
    finally:
        databases.close()
    assert 1 <= len({pid for pid, _, _ in found}) <= READ_CONNECTIONS
    assert {(limit, prepared) for _, limit, prepared in found} == {(f"{REPLICA_LOCK_TIMEOUT_MS}ms", 0)}
    # Without the setting, reads prepare statements on connections that other clients use, too.
    careless = Databases(pooled.model_copy(update={"replica_pooling": "session"}))
    careless.open()
    try:
        with pytest.raises(MISPLACED_STATEMENTS), ThreadPoolExecutor(8) as readers:
            list(readers.map(lambda _: careless.replicas[0].read(lambda it: it.execute(query).fetchone()), range(400)))
    finally:
        careless.close()


@pytest.mark.usefixtures("publisher")
def test_drivers_publish_and_exclude_each_other(pooled: Settings, tmp_path: Path) -> None:
    file = tmp_path / "rates.csv"
    file.write_text("orig_code,dest_code,day,price\nCNGGZ,EETLL,2021-01-01,1000\n")
    batch, _ = engine.ingest(pooled, str(file))
    assert batch.state == "published"
    with engine.connect(pooled) as first, engine.connect(pooled) as second:
        first.execute("SELECT pg_advisory_lock(%s, %s)", (ledger.DRIVER_LOCK, batch.id))
        first.commit()  # a pooler in transaction mode would lend the connection, with the lock, to the second driver
        with pytest.raises(engine.DrivenElsewhere):
            engine.drive(second, pooled, batch.id, str(file), wait=False)


def test_sessions_have_their_limits(pooled: Settings) -> None:
    with connect(pooled.database_url_of("ingest"), "rates-test", statement_seconds=7) as connection:
        for setting, value in (
            ("statement_timeout", "7s"),
            ("lock_timeout", "30s"),
            ("application_name", "rates-test"),
        ):
            assert connection.execute(f"SHOW {setting}").fetchone() == (value,)
            connection.rollback()


def test_the_doctor_names_a_pooler_of_transactions_in_front_of_the_primary(
    pooled: Settings, settings: Settings, pooler: PgBouncer
) -> None:
    operator = settings.database_url_of("operator")
    for url in (operator, pooler.through("primary", operator)):
        assert not [fault for fault in check_primary(url).problems if "pooler" in fault.text]
    (fault,) = check_primary(pooler.through("wrong", operator)).problems
    assert "transaction mode" in fault.text
    assert check_replica(pooled.replica_urls[0].get_secret_value(), "transaction").problems == []
