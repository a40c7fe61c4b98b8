"""Another server becomes the primary: the service follows, and ignores generations and leases of the lost one."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from typer.testing import CliRunner

from drills.waiting import wait_until
from rates_app.application import create_app
from rates_app.cli import app
from rates_app.settings import Settings
from rates_app.store.migrate import pending
from tests.fixtures.service import Publisher

if TYPE_CHECKING:
    from pathlib import Path

    from flask.testing import FlaskClient

    from rates_app.local.postgres import PostgresPair

QUESTION = "/rates?date_from=2021-01-01&date_to=2021-01-01&orig_code=CNGGZ&dest_code=EETLL"
PATIENCE_SECONDS = 30


def publish(publisher: Publisher, dollars: int) -> int:
    return publisher.publish([("CNGGZ", "EETLL", date(2021, 1, 1), dollars * 100)] * 3)


def ask(client: FlaskClient) -> float | None:
    answer: Any = client.get(QUESTION)
    assert answer.status_code in {200, 503}, answer.text
    return float(answer.json["rates"][0]["price"]) if answer.status_code == 200 else None


def eventually(client: FlaskClient, price: float) -> None:
    wait_until(lambda: ask(client) == price)


def number(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT number FROM generation").fetchone()
    assert row is not None
    return int(row[0])


def epoch(url: str) -> str:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT epoch::text FROM generation").fetchone()
    assert row is not None
    return str(row[0])


def test_commits_that_only_the_lost_primary_had_are_dropped_from_caches(
    own_cluster: PostgresPair, redis_url: str, tmp_path: Path
) -> None:
    """The replica lacks the last publish. The next one after the promotion must not be mistaken for it."""
    settings = Settings.model_validate(
        {
            "database_url": own_cluster.url,
            "replica_urls": own_cluster.replica_url,
            "redis_url": redis_url,
            "data_dir": tmp_path,
        }
    )
    lost, promoted = own_cluster
    publisher = Publisher(own_cluster.url)
    service = create_app(settings)
    try:
        client = service.test_client()
        publish(publisher, 100)
        eventually(client, 100)
        with psycopg.connect(promoted.url, autocommit=True) as standby:
            wait_until(lambda: standby.execute("SELECT number FROM generation").fetchone() == (number(lost.url),))
        promoted.stop()
        publish(publisher, 500)
        assert ask(client) == 300  # in process memory and in Redis, under a generation that the replica never had
        assert service.extensions["rates"].lease.versions() is not None
        last, lost_epoch = number(lost.url), epoch(lost.url)

        lost.kill()
        promoted.start()
        wait_until(lambda: service.extensions["rates"].lease.versions() is None)
        assert ask(client) is None, "no response may be stale while the primary is down"
        promoted.promote()

        eventually(client, 100)  # the last publish is lost, as always with asynchronous replication
        assert number(own_cluster.url) < last
        publish(publisher, 200)
        begun = epoch(own_cluster.url)
        assert begun != lost_epoch, "the lost primary's numbers are drawn again, and must not mean the same"
        assert ask(client) == 150
        publish(publisher, 300)
        assert epoch(own_cluster.url) == begun
        assert ask(client) == 200
        assert pending(own_cluster.url) == []
    finally:
        service.extensions["rates"].close()


def test_a_write_to_an_unpromoted_standby_may_be_retried(own_cluster: PostgresPair, tmp_path: Path) -> None:
    settings = Settings.model_validate({"database_url": own_cluster.replica.url, "data_dir": tmp_path})
    service = create_app(settings)
    try:
        with (
            pytest.raises(Exception, match="waits for its promotion"),
            service.extensions["rates"].databases.write() as it,
        ):
            it.execute("UPDATE generation SET number = number")
        assert service.test_client().get("/readyz").status_code == 200  # reads continue
    finally:
        service.extensions["rates"].close()


def test_a_generation_drawn_twice_belongs_to_two_epochs(publisher: Publisher, settings: Settings) -> None:
    """A storage snapshot restores older data on the same server and timeline, while Redis has later entries."""
    first = create_app(settings)
    try:
        publish(publisher, 100)
        drawn = number(publisher.url)
        eventually(first.test_client(), 100)
    finally:
        first.extensions["rates"].close()
    with psycopg.connect(publisher.url) as connection:
        connection.execute("UPDATE batches SET state = 'withdrawn'")
        connection.execute("DELETE FROM lane_versions WHERE generation = %s", (drawn,))
        connection.execute("UPDATE generation SET number = %s", (drawn - 1,))
        connection.execute("SELECT setval('generations', %s)", (drawn - 2,))

    database = settings.database_url.get_secret_value()
    done = CliRunner().invoke(app, ["epoch"], env={"RATES_DATABASE_URL": database})
    assert f"A new epoch has begun with generation {drawn - 1}" in done.output
    publish(publisher, 500)
    assert number(publisher.url) == drawn
    second = create_app(settings)
    try:
        assert ask(second.test_client()) == 500
    finally:
        second.extensions["rates"].close()
