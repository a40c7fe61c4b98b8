"""Stores that are down, slow or lagging: responses get slower, never wrong, and errors are clear."""

from __future__ import annotations

import socket
import time
from datetime import date
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import redis
from prometheus_client import REGISTRY
from pydantic import SecretStr

from drills.waiting import wait_until
from rates_app.application import create_app
from rates_app.cache.redis import RETRY_SECONDS
from rates_app.local.redis import RedisServer
from rates_app.local.server import free_port
from rates_app.ops.metrics import GENERATION
from rates_app.rates.locations import read_locations, store_locations
from rates_app.store.generation import increment_generation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from flask import Flask
    from flask.testing import FlaskClient

    from rates_app.local.postgres import PostgresPair
    from rates_app.settings import Settings
    from tests.fixtures.service import Publisher
    from tests.fixtures.stores import MigratedDatabase

QUESTION = "/rates?date_from=2021-01-01&date_to=2021-01-01&orig_code=CNGGZ&dest_code=EETLL"


@pytest.fixture
def make_app(settings: Settings, publisher: Publisher) -> Iterator[Callable[..., Flask]]:
    apps = []

    def make(**changes: Any) -> Flask:
        if "database_url" in changes:
            changes["serving_database_url"] = changes.pop("database_url")
        apps.append(create_app(settings.model_copy(update=changes)))
        return apps[-1]

    yield make
    for app in apps:
        app.extensions["rates"].close()


def publish_day(publisher: Publisher, *dollars: int) -> int:
    return publisher.publish([("CNGGZ", "EETLL", date(2021, 1, 1), each * 100) for each in dollars])


def price(client: FlaskClient) -> float:
    answer: Any = client.get(QUESTION)
    assert answer.status_code == 200, answer.text
    return float(answer.json["rates"][0]["price"])


def hits(level: str, result: str) -> float:
    return REGISTRY.get_sample_value("rates_cache_requests_total", {"level": level, "result": result}) or 0


def nowhere(scheme: str = "postgresql") -> SecretStr:
    return SecretStr(f"{scheme}://rates:x@127.0.0.1:{free_port()}/rates")


def test_the_next_request_after_a_publish_is_fresh(make_app: Callable[..., Flask], publisher: Publisher) -> None:
    one, other = make_app().test_client(), make_app().test_client()
    publish_day(publisher, 100, 100, 100)
    assert price(one) == 100

    before = hits("redis", "hit")
    assert price(other) == 100  # another process finds it in Redis
    assert hits("redis", "hit") == before + 1

    batch = publish_day(publisher, 400, 400, 400)
    assert price(other) == price(one) == 250
    publisher.withdraw(batch)
    assert price(one) == price(other) == 100


def test_without_redis_answers_come_from_the_database(make_app: Callable[..., Flask], publisher: Publisher) -> None:
    client = make_app(redis_url=nowhere("redis")).test_client()
    for dollars in (100, 200):
        publish_day(publisher, dollars, dollars, dollars)
        assert price(client) == price(client)
    assert price(client) == 150
    ready: Any = client.get("/readyz")
    assert (ready.status_code, ready.json["checks"]["redis (not needed)"]) == (200, "unreachable")


def test_a_hanging_redis_is_tried_once(
    make_app: Callable[..., Flask], publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A separate thread exchanges counts, possibly at the moment of the first request.
    monkeypatch.setattr("rates_app.http.limits.Limiter.exchange", lambda _limiter: None)
    publish_day(publisher, 100, 100, 100)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts connections and never responds
        url = SecretStr(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        app = make_app(redis_url=url)
        client = app.test_client()
        assert [price(client) for _ in range(5)] == [100] * 5
        silent.settimeout(0)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):  # no other attempt
            silent.accept()


def test_redis_is_used_again_when_it_is_back(
    make_app: Callable[..., Flask], publisher: Publisher, servers_folder: Path
) -> None:
    server = RedisServer(servers_folder / "own-redis")
    server.start()
    try:
        app = make_app(redis_url=SecretStr(server.database_url(0)))
        app.extensions["rates"].lease.stop()  # otherwise process memory would answer
        client = app.test_client()
        publish_day(publisher, 100, 100, 100)
        assert price(client) == 100
        server.stop()
        assert price(client) == 100
        assert app.extensions["rates"].redis.state == "unreachable"
        server.start()
        time.sleep(RETRY_SECONDS)
        before = hits("redis", "hit")
        assert price(client) == price(client) == 100
        assert hits("redis", "hit") > before
        assert app.extensions["rates"].redis.state == "ok"
    finally:
        server.stop()


def test_entries_of_another_version_in_redis_are_ignored(
    make_app: Callable[..., Flask], publisher: Publisher, redis_url: str
) -> None:
    publish_day(publisher, 100, 100, 100)
    client = make_app().test_client()
    price(client)
    with redis.Redis.from_url(redis_url) as admin:
        keys = list(admin.scan_iter("rates:answer:*"))
        for key in keys:
            admin.set(key, b'{"type":"x"}\n...')
    assert keys

    assert price(client) == 100


def test_a_replica_that_lags_is_not_read(
    make_app: Callable[..., Flask], publisher: Publisher, cluster: PostgresPair
) -> None:
    behind = SecretStr(cluster.replica.database_url("rates_template"))  # a database without publications
    client = make_app(redis_url=None, replica_urls=(behind,)).test_client()
    before = REGISTRY.get_sample_value("rates_database_reads_total", {"server": "replica-1", "result": "stale"}) or 0

    publish_day(publisher, 100, 100, 100)
    assert price(client) == 100
    publish_day(publisher, 400, 400, 400)
    assert price(client) == 250
    assert (
        REGISTRY.get_sample_value("rates_database_reads_total", {"server": "replica-1", "result": "stale"})
        == before + 2
    )


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("/v1/locations?q=newport", "Newport"),
        ("/v1/locations?sort=code&after=ZZ", "Newport"),
        ("/v1/locations/ZZNEW", "Newport"),
        ("/v1/rates?origin=ZZNEW&destination=EETLL", "ZZNEW"),
        ("/v1/rates/latest?lanes=ZZNEW:EETLL", "ZZNEW"),
        ("/locations/options?q=newport", "Newport"),
        ("/locations/ZZNEW", "Newport"),
        ("/explore", "Newland"),
        ("/?origin=Newport&destination=EETLL", "Newport"),
        ("/rates.csv?origin=ZZNEW&destination=EETLL&date_from=2021-01-01&date_to=2021-01-02", "Newport"),
        ("/quotes?origin=ZZNEW&destination=EETLL&days=2021-01-01/2021-01-02", "Newport"),
    ],
)
def test_new_locations_are_known_everywhere_while_a_replica_lags(
    make_app: Callable[..., Flask],
    publisher: Publisher,
    cluster: PostgresPair,
    tmp_path: Path,
    *,
    address: str,
    name: str,
) -> None:
    behind = SecretStr(cluster.replica.database_url("rates_template"))  # a database without them
    client = make_app(redis_url=None, replica_urls=(behind,)).test_client()
    ports, regions = tmp_path / "ports.csv", tmp_path / "regions.csv"
    ports.write_text("code,name,parent_slug\nZZNEW,Newport,newland\n")
    regions.write_text("slug,name,parent_slug\nnewland,Newland,\n")
    with psycopg.connect(publisher.url) as connection:
        store_locations(connection, read_locations(ports, regions))
        increment_generation(connection, None)
    publisher.publish([("ZZNEW", "EETLL", date(2021, 1, 1), 10_000)] * 3)
    stale = {"server": "replica-1", "result": "stale"}
    before = REGISTRY.get_sample_value("rates_database_reads_total", stale) or 0
    answer = client.get(address)
    assert answer.status_code == 200, answer.text
    assert name in answer.text
    assert (REGISTRY.get_sample_value("rates_database_reads_total", stale) or 0) > before  # the replica was asked


def test_the_replica_alone_still_answers(
    make_app: Callable[..., Flask], publisher: Publisher, database: MigratedDatabase
) -> None:
    publish_day(publisher, 100, 100, 100)
    with psycopg.connect(database.replica_urls[0], autocommit=True) as replica:
        wait_until(lambda: replica.execute("SELECT number FROM generation").fetchone() == (3,))
    client = make_app(database_url=nowhere()).test_client()

    assert price(client) == 100
    ready: Any = client.get("/readyz")
    assert (ready.status_code, ready.json["checks"]["primary"], ready.json["checks"]["replica-1"]) == (
        200,
        "unreachable",
        "ok",
    )


def test_the_primary_alone_still_answers(make_app: Callable[..., Flask], publisher: Publisher) -> None:
    publish_day(publisher, 100, 100, 100)
    client = make_app(replica_urls=(nowhere(),)).test_client()

    assert price(client) == 100
    assert client.get("/readyz").status_code == 200


def test_without_a_database_requests_get_503(make_app: Callable[..., Flask]) -> None:
    client = make_app(database_url=nowhere(), replica_urls=(nowhere(),)).test_client()

    answer = client.get(QUESTION)

    problem: Any = answer.get_json(force=True)
    assert (answer.status_code, problem["type"]) == (503, "/problems/unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 200


def test_a_database_that_was_never_migrated_is_not_ready(make_app: Callable[..., Flask], cluster: PostgresPair) -> None:
    with psycopg.connect(cluster.primary.admin_url, autocommit=True) as admin:
        admin.execute("CREATE DATABASE unmigrated OWNER rates")
    url = SecretStr(cluster.primary.database_url("unmigrated"))
    ready: Any = make_app(database_url=url, replica_urls=()).test_client().get("/readyz")

    assert ready.status_code == 503
    assert "rates migrate" in ready.json["checks"]["primary"]


def test_a_query_that_exceeds_its_deadline_gets_503(
    make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "rates_app.rates.answers.daily_averages",
        lambda connection, _question: connection.execute("SELECT pg_sleep(30)"),
    )
    client = make_app(query_timeout_seconds=0.2).test_client()

    answer = client.get(QUESTION)

    problem: Any = answer.get_json(force=True)
    assert (answer.status_code, problem["type"]) == (503, "/problems/too-slow")
    assert "Retry-After" in answer.headers


def test_connections_that_a_restart_closed_are_replaced(
    make_app: Callable[..., Flask], publisher: Publisher, database: MigratedDatabase
) -> None:
    publish_day(publisher, 100, 100, 100)
    client = make_app().test_client()
    assert price(client) == 100
    name = database.url.rsplit("/", 1)[1]
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
            (name,),
        )

    assert price(client) == 100


def test_an_idle_pod_reports_the_newest_generation(make_app: Callable[..., Flask], publisher: Publisher) -> None:
    app = make_app()
    publish_day(publisher, 100, 100, 100)
    with psycopg.connect(publisher.url) as connection:
        row = connection.execute("SELECT number FROM generation").fetchone()
    GENERATION.set(0)
    assert app.test_client().get("/readyz").status_code == 200  # the kubelet's probe
    assert row is not None
    assert [sample.value for metric in GENERATION.collect() for sample in metric.samples] == [row[0]]
