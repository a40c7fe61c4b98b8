"""That a batch will be late is known while there is time to do something."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest
from structlog.testing import capture_logs

from rates_app.batches.ledger import deadline_slack
from rates_app.batches.model import Terms
from rates_app.batches.pipeline.engine import ingest

if TYPE_CHECKING:
    from collections.abc import Callable

    from rates_app.settings import Settings

HEADER = b"orig_code,dest_code,day,price\n"
GOOD = b"CNGGZ,EETLL,2021-01-01,1244\n"


def enter(connection: psycopg.Connection, name: str, *, deadline: str | None, started: str, staged: list[str]) -> None:
    """A batch of ten equal slices, of which some were staged at a time before now."""
    row = connection.execute(
        """
        INSERT INTO batches (name, supplier, content_hash, size_bytes, format, compression, state, deadline, started_at)
        VALUES (%(name)s::text, 'test', sha256(%(name)s::text::bytea), 1, 'csv', 'none', 'staging',
                now() + %(deadline)s::interval, now() - %(started)s::interval) RETURNING id
        """,
        {"name": name, "deadline": deadline, "started": started},
    ).fetchone()
    assert row is not None
    for number in range(10):
        ago = staged[number] if number < len(staged) else None
        connection.execute(
            """
            INSERT INTO slices (batch_id, number, start, stop, state, staged_at)
            VALUES (%s, %s, %s, %s, CASE WHEN %s::text IS NULL THEN 'pending' ELSE 'staged' END, now() - %s::interval)
            """,
            (row[0], number, number * 100, number * 100 + 100, ago, ago),
        )


@pytest.mark.parametrize(
    ("deadline", "started", "staged", "slack"),
    [
        (None, "1 hour", [], None),
        ("1 hour", "1 minute", [], 3600),  # nothing is known of its pace
        ("1 hour", "10 minutes", ["8 minutes", "0"], 3600 - 8 * 300),  # two slices in ten minutes: forty are left
        ("30 minutes", "10 minutes", ["8 minutes", "0"], 1800 - 8 * 300),
        ("1 hour", "3 hours", ["178 minutes", "176 minutes"], 3600),  # it stands still
        ("-1 minute", "3 hours", ["178 minutes"], -60),
    ],
)
def test_slack_follows_from_the_pace(
    settings: Settings, deadline: str | None, started: str, staged: list[str], slack: float | None
) -> None:
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        enter(connection, "a", deadline=deadline, started=started, staged=staged)
        assert deadline_slack(connection) == (None if slack is None else pytest.approx(slack, abs=30))


def test_the_tightest_batch_counts_and_those_that_ended_do_not(settings: Settings) -> None:
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        enter(connection, "a", deadline="2 hours", started="1 minute", staged=[])
        enter(connection, "b", deadline="1 hour", started="1 minute", staged=[])
        enter(connection, "c", deadline="1 minute", started="1 minute", staged=[])
        connection.execute("UPDATE batches SET ended_at = now() WHERE name = 'c'")
        assert deadline_slack(connection) == pytest.approx(3600, abs=30)
        assert deadline_slack(connection, 1) == pytest.approx(7200, abs=30)


@pytest.mark.parametrize(("left", "warnings"), [(timedelta(hours=1), 0), (timedelta(seconds=-1), 1)])
def test_a_warning_is_logged_once(
    settings: Settings,
    deliver: Callable[[str, bytes], str],
    left: timedelta,
    warnings: int,
) -> None:
    small = settings.model_copy(update={"slice_bytes": 1000})
    with capture_logs() as log:
        batch, _ = ingest(small, deliver("a.csv", HEADER + GOOD * 100), terms=Terms(deadline=datetime.now(UTC) + left))
    assert batch.state == "published"
    assert [line["event"] for line in log].count("deadline_at_risk") == warnings
