"""The ledger finds deliveries that are missing or too small, and counts each delivery for the right due time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

from rates_app.batches.ledger.metrics import LedgerCollector
from rates_app.batches.ledger.schedules import Expectation, Schedule, list_expectations, set_schedule
from rates_app.doctor.stores import check_ledger
from rates_app.store.databases import Databases

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rates_app.settings import Settings


@pytest.fixture
def ledger(settings: Settings) -> Iterator[psycopg.Connection]:
    with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as connection:
        yield connection


def due_an_hour_ago(**changes: object) -> Schedule:
    """A schedule whose latest time was about an hour ago, and the one before a day earlier."""
    due = datetime.now(UTC) - timedelta(hours=1)
    return Schedule.model_validate({"by": f"{due:%H:%M}", "min_rows": 10} | changes)


def expect(ledger: psycopg.Connection, schedule: Schedule, since_days: int = 30) -> None:
    set_schedule(ledger, "acme", schedule)
    ledger.execute("UPDATE supplier_schedules SET effective_at = now() - make_interval(days => %s)", (since_days,))


def deliver(
    ledger: psycopg.Connection,
    hours_ago: float,
    *,
    rows: int = 10,
    state: str = "published",
    supplier: str = "acme",
    replaces: int | None = None,
) -> int:
    """Enter a batch in the ledger, and set `replaced_by` of the one that it replaces."""
    row = ledger.execute(
        """
        INSERT INTO batches (name, supplier, content_hash, size_bytes, format, compression, state, rows, received_at,
            replaces)
        VALUES ('a', %s, sha256(random()::text::bytea), 1, 'csv', 'none', %s, %s, now() - make_interval(secs => %s), %s)
        RETURNING id
        """,
        (supplier, state, rows, hours_ago * 3600, replaces),
    ).fetchone()
    assert row is not None
    if replaces is not None:
        ledger.execute("UPDATE batches SET state = 'withdrawn', replaced_by = %s WHERE id = %s", (row[0], replaces))
    return int(row[0])


def find(ledger: psycopg.Connection) -> Expectation:
    (found,) = list_expectations(ledger)
    return found


def test_a_silent_supplier_is_overdue(ledger: psycopg.Connection) -> None:
    expect(ledger, due_an_hour_ago())
    deliver(ledger, 26)
    deliver(ledger, 2, supplier="other")
    found = find(ledger)
    assert (found.state, found.arrived) == ("overdue", 0)
    assert 3600 <= found.overdue_seconds < 3800


@pytest.mark.parametrize("hours_ago", [0.1, 2, 23])
def test_a_delivery_since_the_time_before_counts_even_if_it_is_late(
    ledger: psycopg.Connection, hours_ago: float
) -> None:
    expect(ledger, due_an_hour_ago())
    deliver(ledger, hours_ago)
    assert find(ledger).state == "delivered"


def test_a_late_delivery_of_the_day_before_does_not_count_outside_the_window(ledger: psycopg.Connection) -> None:
    expect(ledger, due_an_hour_ago(window_hours=12))
    deliver(ledger, 20)
    assert find(ledger).state == "overdue"
    deliver(ledger, 10)
    assert find(ledger).state == "delivered"


@pytest.mark.parametrize("state", ["received", "staging", "held", "refused", "failed", "withdrawn"])
def test_a_batch_that_is_not_published_is_no_delivery(ledger: psycopg.Connection, state: str) -> None:
    expect(ledger, due_an_hour_ago())
    deliver(ledger, 2, state=state)
    found = find(ledger)
    assert (found.state, found.arrived) == ("overdue", 1)


def test_several_files_are_one_delivery(ledger: psycopg.Connection) -> None:
    expect(ledger, due_an_hour_ago())
    deliver(ledger, 3, rows=6)
    found = find(ledger)
    assert (found.state, found.missing_rows, found.overdue_seconds) == ("too_small", 4, 0)
    deliver(ledger, 2, rows=4)
    assert find(ledger).state == "delivered"


def test_a_correction_counts_in_the_place_of_its_batch(ledger: psycopg.Connection) -> None:
    expect(ledger, due_an_hour_ago())
    last_week = deliver(ledger, 24 * 7)
    deliver(ledger, 2, replaces=last_week)
    assert find(ledger).state == "overdue"
    today = deliver(ledger, 2)
    corrected = deliver(ledger, 1, rows=7, replaces=today)
    assert find(ledger).rows == 7
    deliver(ledger, 0.5, rows=12, replaces=corrected)
    assert find(ledger).rows == 12


def test_nothing_is_expected_by_a_time_before_the_schedule_was_set(ledger: psycopg.Connection) -> None:
    schedule = due_an_hour_ago()
    set_schedule(ledger, "acme", schedule)
    assert find(ledger).state == "waiting"
    expect(ledger, schedule)
    assert find(ledger).state == "overdue"
    set_schedule(ledger, "acme", schedule.model_copy(update={"min_rows": 5}))
    assert find(ledger).state == "overdue"
    set_schedule(ledger, "acme", schedule.model_copy(update={"time_zone": "Europe/Oslo"}))
    assert find(ledger).state == "waiting"


def test_metrics_and_doctor_report_it(ledger: psycopg.Connection, settings: Settings) -> None:
    databases = Databases(settings)
    databases.open()

    def measure() -> dict[str, float]:
        return {
            sample.name: sample.value
            for metric in LedgerCollector(databases).collect()
            for sample in metric.samples
            if sample.labels == {"supplier": "acme"}
        }

    def doctor() -> list[str]:
        return [problem.runbook for problem in check_ledger(settings.database_url_of("operator")).problems]

    try:
        assert (measure(), doctor()) == ({}, [])
        expect(ledger, due_an_hour_ago())
        assert measure()["rates_supplier_overdue_seconds"] >= 3600
        assert doctor() == ["delivery-overdue"]
        deliver(ledger, 0.1, rows=9)
        assert measure() == {"rates_supplier_overdue_seconds": 0, "rates_supplier_missing_rows": 1}
        assert doctor() == ["delivery-too-small"]
        deliver(ledger, 0.1, rows=1)
        assert measure() == {"rates_supplier_overdue_seconds": 0, "rates_supplier_missing_rows": 0}
        assert doctor() == []
    finally:
        databases.close()
