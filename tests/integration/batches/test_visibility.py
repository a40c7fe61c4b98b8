"""A reader sees the batch before or the batch after, never a part of one, on the primary and on the replica.

The long form, with ten million rows: ``pytest tests/integration/batches/test_visibility.py -m demonstration``.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import psycopg
import pytest

from drills.waiting import wait_until
from rates_app.batches import ledger
from rates_app.batches.generate import generate, read_sample, sample_file
from rates_app.batches.pipeline import publish
from rates_app.batches.pipeline.engine import ingest
from tests.fixtures.stores import wait_for_replay

if TYPE_CHECKING:
    from pathlib import Path

    from rates_app.local.postgres import PostgresPair
    from rates_app.settings import Settings

# Every lane and region together: a part of a batch would show in one of the sums.
EVERYTHING = """
    SELECT sum(count)::bigint, sum(rollups.total_cents)::bigint FROM rollups
    JOIN batches ON batches.id = batch_id AND batches.state = 'published'
"""
SECONDS = 60


class Reader(threading.Thread):
    """Queries a server for everything in a loop, and keeps each new response."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._done = threading.Event()
        self.answers: list[tuple[int, int]] = []

    def run(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            while not self._done.is_set():
                answer = connection.execute(EVERYTHING).fetchone()
                assert answer is not None
                if not self.answers or self.answers[-1] != answer:
                    self.answers.append(answer)

    def wait_for(self, answers: int) -> None:
        def seen() -> bool:
            assert self.is_alive()
            return len(self.answers) >= answers

        wait_until(seen, seconds=SECONDS, describe=lambda: f"expected {answers} different answers, got {self.answers}")

    def stop(self) -> None:
        self._done.set()
        self.join()


def left_in(settings: Settings) -> list[tuple[object, ...]]:
    """Everything that staging may leave."""
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        return connection.execute(
            """
            SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = 'staging'::regnamespace),
                   (SELECT count(*) FROM delivered), (SELECT count(*) FROM rollups), (SELECT count(*) FROM batch_slots)
            """
        ).fetchall()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("rows", [100_000, pytest.param(10_000_000, marks=pytest.mark.demonstration)])
def test_a_refused_batch_leaves_nothing_and_its_correction_appears_completely(
    settings: Settings, cluster: PostgresPair, tmp_path: Path, rows: int
) -> None:
    sample = read_sample(sample_file())
    settings = settings.model_copy(update={"slice_bytes": max(settings.slice_bytes, rows * 3)})
    first, whole, broken = (tmp_path / f"{name}.csv" for name in ("first", "whole", "broken"))
    generate(first, 5000, sample=sample, days=30, seed=1)
    generate(whole, rows, sample=sample, seed=2)
    with whole.open("rb") as lines, broken.open("wb") as target:
        for number, line in enumerate(lines, start=1):
            target.write(b"CNGGZ,EETLL,2021-02-30,100\n" if number == rows // 2 else line)

    ingest(settings, str(first))
    before = left_in(settings)
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        wait_for_replay(connection, cluster.replica)  # both readers begin with the first batch
    readers = [Reader(url.get_secret_value()) for url in (settings.database_url, *settings.replica_urls)]
    assert len(readers) == 2
    for reader in readers:
        reader.start()
        reader.wait_for(1)

    refused, _ = ingest(settings, str(broken))
    assert (refused.state, refused.rejected) == ("refused", 1)
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        (reject,) = ledger.iter_rejects(connection, refused.id)
    assert (reject.line, reject.field, reject.value) == (rows // 2, "day", "2021-02-30")
    assert left_in(settings) == before
    for reader in readers:
        assert len(reader.answers) == 1

    published, _ = ingest(settings, str(whole))
    assert (published.state, published.rows) == ("published", rows)
    for reader in readers:
        reader.wait_for(2)
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        publish.withdraw(connection, published.id)
    for reader in readers:
        reader.wait_for(3)
        reader.stop()
        small, large, small_again = reader.answers
        assert small == small_again
        assert large > small
