"""Another server takes the primary's place: the service follows, and no number or lease of the lost one misleads it."""

from __future__ import annotations

import time
from datetime import date
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from rates_app.application import create_app
from rates_app.settings import Settings
from rates_app.store.generation import TIMELINE_GENERATIONS
from rates_app.store.migrate import pending
from tests.integration.api.conftest import Publisher

if TYPE_CHECKING:
    from collections.abc import Callable
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


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def eventually(client: FlaskClient, price: float) -> None:
    wait_until(lambda: ask(client) == price)


def number(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT number FROM generation").fetchone()
    assert row is not None
    return int(row[0])


def test_what_the_lost_primary_alone_had_is_forgotten(
    own_cluster: PostgresPair, redis_url: str, tmp_path: Path
) -> None:
    """The replica has not replayed the last publish, and the next one after the promotion must not look like it."""
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
    app = create_app(settings)
    try:
        client = app.test_client()
        publish(publisher, 100)
        eventually(client, 100)
        with psycopg.connect(promoted.url, autocommit=True) as standby:
            wait_until(lambda: standby.execute("SELECT number FROM generation").fetchone() == (number(lost.url),))
        promoted.stop()
        publish(publisher, 500)
        assert ask(client) == 300  # in the process's memory and in Redis, under a number that the replica never saw
        assert app.extensions["rates"].lease.versions() is not None
        last = number(lost.url)

        lost.kill()
        promoted.start()
        wait_until(lambda: app.extensions["rates"].lease.versions() is None)
        assert ask(client) is None, "nobody may be shown the past while the primary is away"
        promoted.promote()

        eventually(client, 100)  # the last publish is lost, as it is in any asynchronous replication
        assert number(own_cluster.url) < last
        publish(publisher, 200)
        assert number(own_cluster.url) == TIMELINE_GENERATIONS + 1
        assert ask(client) == 150
        publish(publisher, 300)
        assert number(own_cluster.url) == TIMELINE_GENERATIONS + 2
        assert ask(client) == 200
        assert pending(own_cluster.url) == []
    finally:
        app.extensions["rates"].close()


def test_a_write_to_a_standby_that_waits_for_its_promotion_may_be_tried_again(
    own_cluster: PostgresPair, tmp_path: Path
) -> None:
    settings = Settings.model_validate({"database_url": own_cluster.replica.url, "data_dir": tmp_path})
    app = create_app(settings)
    try:
        with pytest.raises(Exception, match="waits for its promotion"), app.extensions["rates"].databases.write() as it:
            it.execute("UPDATE generation SET number = number")
        assert app.test_client().get("/readyz").status_code == 200  # reads go on
    finally:
        app.extensions["rates"].close()
