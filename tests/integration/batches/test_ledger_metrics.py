"""The metrics of the ledger show a batch that stalls, and a failure until it is delivered again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from rates_app.batches.ledger.metrics import LedgerCollector
from rates_app.store.databases import Databases

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rates_app.settings import Settings

BATCH = """
    INSERT INTO batches (name, supplier, content_hash, size_bytes, format, compression, state, received_at, ended_at,
        superseded)
    VALUES ('a', 'acme', sha256('a'), 1, 'csv', 'none', %s, now() - make_interval(mins => %s), %s, %s)
    RETURNING id
"""


@pytest.fixture
def ledger(settings: Settings) -> Iterator[psycopg.Connection]:
    with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as connection:
        yield connection


@pytest.fixture
def databases(settings: Settings) -> Iterator[Databases]:
    databases = Databases(settings)
    databases.open()
    yield databases
    databases.close()


def measure(databases: Databases) -> dict[str, float]:
    return {
        sample.name: sample.value
        for metric in LedgerCollector(databases).collect()
        for sample in metric.samples
        if not sample.labels
    }


def test_a_stalled_batch_is_not_hidden_by_one_that_progresses(ledger: psycopg.Connection, databases: Databases) -> None:
    assert measure(databases)["rates_batch_stalled_seconds"] == 0
    ledger.execute(BATCH, ("staging", 45, None, True))
    ledger.execute(BATCH, ("staging", 0, None, False))
    assert 45 * 60 <= measure(databases)["rates_batch_stalled_seconds"] < 46 * 60
    ledger.execute("UPDATE batches SET verified_at = now()")
    assert measure(databases)["rates_batch_stalled_seconds"] < 60


def test_a_failure_is_unresolved_until_the_content_is_delivered_again(
    ledger: psycopg.Connection, databases: Databases
) -> None:
    ledger.execute(BATCH.replace("%s, %s)\n", "now() - %s::interval, %s)\n"), ("failed", 90, "1 hour", True))
    assert measure(databases)["rates_batches_unresolved"] == 1
    ledger.execute(BATCH, ("received", 0, None, False))
    assert measure(databases)["rates_batches_unresolved"] == 0


def test_an_old_failure_is_left_to_the_lists(ledger: psycopg.Connection, databases: Databases) -> None:
    ledger.execute(BATCH.replace("%s, %s)\n", "now() - %s::interval, %s)\n"), ("failed", 3000, "2 days", True))
    assert measure(databases)["rates_batches_unresolved"] == 0
