"""Leases: no publish commits while a process may answer from its memory, and none waits forever."""

from __future__ import annotations

import threading
import time
from datetime import date
from typing import TYPE_CHECKING

import httpx
import psutil
import psycopg
import pytest

from drills.waiting import wait_until
from rates_app.store import lease as leases
from rates_app.store.generation import increment_generation
from rates_app.store.lease import Lease

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from drills.pod import Pod
    from tests.fixtures.service import Publisher


@pytest.fixture
def make_lease(publisher: Publisher) -> Iterator[Callable[[], Lease]]:
    made = []

    def make() -> Lease:
        made.append(Lease(publisher.url, "rates-test"))
        made[-1].start()
        wait_until(lambda: made[-1].versions() is not None)
        return made[-1]

    yield make
    for lease in made:
        lease.stop()


def test_memory_is_not_used_between_the_notification_and_the_commit(
    make_lease: Callable[[], Lease], publisher: Publisher
) -> None:
    held = [make_lease(), make_lease()]
    before = [lease.versions() for lease in held]
    with psycopg.connect(publisher.url) as connection:
        number = increment_generation(connection, None)
        assert [lease.versions() for lease in held] == [None, None]
        time.sleep(1.5 * leases.RENEW_SECONDS)  # they try to renew meanwhile, and must wait
        assert [lease.versions() for lease in held] == [None, None]
        newcomer = Lease(publisher.url, "rates-newcomer")
        newcomer.start()
        time.sleep(0.3)
        assert newcomer.versions() is None
    wait_until(lambda: all(lease.versions() is not None for lease in [*held, newcomer]))
    for lease in [*held, newcomer]:
        versions = lease.versions()
        assert versions is not None
        assert versions.generation == number
    assert all(each is not None and each.generation < number for each in before)
    newcomer.stop()


def test_leases_return_after_a_publish_is_rolled_back(make_lease: Callable[[], Lease], publisher: Publisher) -> None:
    lease = make_lease()
    before = lease.versions()
    with psycopg.connect(publisher.url) as connection:
        number = increment_generation(connection, None)
        connection.rollback()
    wait_until(lambda: lease.versions() is not None)
    assert lease.versions() == before
    with psycopg.connect(publisher.url) as connection:
        assert increment_generation(connection, None) > number  # a generation is never drawn twice


def test_a_hanging_process_delays_a_publish_by_at_most_its_lease(
    make_lease: Callable[[], Lease], publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = make_lease()
    hangs, go_on = threading.Event(), threading.Event()

    def renew(_connection: object) -> bool:
        hangs.set()
        return go_on.wait()

    monkeypatch.setattr(lease, "_renew", renew)
    assert hangs.wait(20)
    with psycopg.connect(publisher.url) as connection:
        increment_generation(connection, None)
        # It missed the notification, but its lease expired by its clock before the publisher stopped waiting.
        assert lease.versions() is None
    go_on.set()


def test_a_publish_also_waits_by_its_monotonic_clock(publisher: Publisher) -> None:
    """The database server's clock was set back, so a dead process's lease seems valid for an hour."""
    with psycopg.connect(publisher.url, autocommit=True) as connection:
        connection.execute(
            """
            INSERT INTO cache_leases
            SELECT gen_random_uuid(), clock_timestamp() + interval '1 hour', epoch FROM generation
            """
        )
        with connection.transaction():
            increment_generation(connection, None)
        assert connection.execute("SELECT FROM cache_leases").rowcount == 0


def test_a_stopped_process_serves_nothing_stale_when_it_continues(served: Pod, publisher: Publisher) -> None:
    question = "/rates?date_from=2021-01-01&date_to=2021-01-01&orig_code=CNGGZ&dest_code=EETLL"

    def ask() -> tuple[float | None, str]:
        answer = httpx.get(served.url + question, headers={"X-Rates-Explain": "1"}, timeout=60)
        while answer.status_code == 503:  # a busy machine
            answer = httpx.get(served.url + question, headers={"X-Rates-Explain": "1"}, timeout=60)
        return answer.json()["rates"][0]["price"], answer.headers.get("Cache-Status", "")

    publisher.publish([("CNGGZ", "EETLL", date(2021, 1, 1), 100_00)] * 3)
    wait_until(lambda: ask()[0] == 100 and 'detail="process' in ask()[1])
    process = psutil.Process(served.process.pid)
    family = [process, *process.children(recursive=True)]
    for each in family:
        each.suspend()
    try:
        publisher.publish([("CNGGZ", "EETLL", date(2021, 1, 1), 300_00)] * 3)
    finally:
        for each in family:
            each.resume()
    assert ask()[0] == 200


def test_a_lease_ends_with_its_epoch(make_lease: Callable[[], Lease], publisher: Publisher) -> None:
    lease = make_lease()
    before = lease.versions()
    with psycopg.connect(publisher.url) as connection:
        connection.execute("UPDATE generation SET server = 'another server'")  # as after pg_upgrade
        number = increment_generation(connection, None)
        assert lease.versions() is None
    wait_until(lambda: lease.versions() is not None)
    after = lease.versions()
    assert before is not None
    assert after is not None
    assert after.epoch != before.epoch
    assert after.generation == number
    with psycopg.connect(publisher.url) as connection:
        increment_generation(connection, None)
        assert connection.execute("SELECT epoch::text FROM generation").fetchone() == (after.epoch,)


def test_leases_end_with_the_primary_and_return_with_it(
    make_lease: Callable[[], Lease], publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RETRY_SECONDS", 2)  # long enough to be seen, also on a busy machine
    lease = make_lease()
    with psycopg.connect(publisher.url, autocommit=True) as connection:
        connection.execute("UPDATE cache_leases SET expires_at = clock_timestamp()")
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rates-test-lease'"
        )
    wait_until(lambda: lease.versions() is None)
    wait_until(lambda: lease.versions() is not None)


def test_a_publish_keeps_the_versions_of_other_lanes(make_lease: Callable[[], Lease], publisher: Publisher) -> None:
    lease = make_lease()
    before = lease.versions()
    publisher.publish([("CNGGZ", "EETLL", date(2021, 1, 1), 100_000)])
    wait_until(lambda: lease.versions() is not None)
    after = lease.versions()
    assert before is not None
    assert after is not None

    def changed(origin: str, destination: str) -> bool:
        return before.of(before.slot(origin, destination)) != after.of(after.slot(origin, destination))

    assert changed("CNGGZ", "EETLL")
    assert changed("china_main", "EETLL")
    assert changed("china_south_main", "north_europe_main") == changed("CNGGZ", "north_europe_main")
    untouched = [("CNSGH", "EETLL"), ("EETLL", "CNGGZ"), ("CNGGZ", "FRLVE"), ("china_east_main", "EETLL")]
    assert not any(changed(*lane) for lane in untouched)


def test_slots_are_the_same_in_sql_and_python(make_lease: Callable[[], Lease], publisher: Publisher) -> None:
    versions = make_lease().versions()
    assert versions is not None
    with psycopg.connect(publisher.url) as connection:
        rows = connection.execute(
            "SELECT o.code, d.code, lane_slot(o.id, d.id) FROM locations o CROSS JOIN locations d"
        ).fetchall()
    assert [versions.slot(origin, destination) for origin, destination, _ in rows] == [slot for *_, slot in rows]
    assert versions.slot("NOWHERE", "EETLL") == -1
