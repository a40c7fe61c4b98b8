"""The connection that a worker keeps between tasks, on a real server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from rates_app.store import kept
from rates_app.store.kept import keep_connections, task_connection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rates_app.settings import Settings


@pytest.fixture
def url(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    process = kept._Process()
    monkeypatch.setattr(kept, "_process", process)
    yield settings.database_url_of("ingest")
    if process.idle:
        process.idle.connection.close()


def server_process(url: str, name: str) -> int:
    """Run a task and return the id of the server's process, which is another one for each connection."""
    with task_connection(url, name) as connection:
        shown = connection.execute("SELECT pg_backend_pid(), current_setting('application_name')").fetchone()
    assert shown is not None
    assert shown[1] == name
    return int(shown[0])


def test_a_worker_keeps_its_connection_and_shows_each_task_by_name(url: str) -> None:
    keep_connections()
    assert server_process(url, "first") == server_process(url, "second")


def test_other_processes_close_theirs(url: str) -> None:
    with task_connection(url, "one") as connection:
        pass
    assert connection.closed


def test_a_task_is_committed_and_an_error_closes_the_connection(url: str) -> None:
    keep_connections()
    with task_connection(url, "one") as connection:
        connection.execute("CREATE TEMPORARY TABLE seen (task int)")
        connection.execute("INSERT INTO seen VALUES (1)")
    with task_connection(url, "two") as again:
        assert again is connection
        assert again.execute("SELECT task FROM seen").fetchall() == [(1,)]
    with pytest.raises(psycopg.errors.DivisionByZero), task_connection(url, "three") as failed:
        failed.execute("SELECT 1 / 0")
    assert failed.closed


def test_a_connection_that_the_server_has_closed_is_replaced(url: str, settings: Settings) -> None:
    keep_connections()
    before = server_process(url, "before")
    with psycopg.connect(settings.database_url.get_secret_value()) as owner:
        owner.execute("SELECT pg_terminate_backend(%s, 5000)", (before,))
    assert server_process(url, "after") != before


def test_an_old_connection_and_one_to_another_server_are_replaced(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_connections()
    first = server_process(url, "first")
    second = server_process(f"{url}?client_encoding=utf8" if "?" not in url else f"{url}&client_encoding=utf8", "other")
    assert second != first
    monkeypatch.setattr(kept, "MAX_AGE_SECONDS", 0.0)
    assert server_process(url, "third") not in {first, second}
