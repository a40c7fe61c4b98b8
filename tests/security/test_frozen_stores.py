"""A store that is stopped by SIGSTOP accepts connections and never responds. The service continues without it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import psycopg
import pytest

from drills.sample import store_sample_locations
from rates_app.local.postgres import primary_with_replica
from rates_app.settings import Settings
from rates_app.store.generation import increment_generation
from rates_app.store.migrate import migrate
from tests.fixtures.stores import create_folder, wait_for_replay
from tests.security.conftest import PodUnderTest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rates_app.local.postgres import PostgresPair
    from rates_app.local.redis import RedisServer

pytestmark = pytest.mark.xdist_group("frozen-stores")


@pytest.fixture(scope="module")
def own_cluster(servers_folder: Path) -> Iterator[PostgresPair]:
    with primary_with_replica(create_folder(servers_folder), fast=True) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def pod(
    own_cluster: PostgresPair, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PodUnderTest]:
    """A pod with few threads, on a separate pair of servers."""
    migrate(own_cluster.primary.url)
    with psycopg.connect(own_cluster.primary.url) as connection:
        store_sample_locations(connection)
        increment_generation(connection, None)
        connection.commit()
        wait_for_replay(connection, own_cluster.replica)
    settings = Settings.model_validate(
        {
            "database_url": own_cluster.primary.url,
            "replica_urls": own_cluster.replica.url,
            "redis_url": redis_server.database_url(14),
            "data_dir": tmp_path_factory.mktemp("data"),
            "rate_limit": "1000000/minute",
        }
    )
    pod = PodUnderTest(settings, "", RATES_THREADS="2", RATES_SHED_SECONDS="60")
    yield pod
    pod.terminate()


@pytest.mark.parametrize("frozen", ["replica", "primary"])
def test_reads_and_probes_continue_while_a_server_is_frozen(
    pod: PodUnderTest, own_cluster: PostgresPair, frozen: str
) -> None:
    year = {"replica": 2021, "primary": 2022}[frozen]

    def ask(day: int) -> int:
        # Each request asks another question, which no cache can answer.
        query = f"date_from={year}-01-01&date_to={year}-02-{day + 1:02}&orig_code=CNGGZ&dest_code=EETLL"
        return httpx.get(f"{pod.url}/rates?{query}", timeout=60).status_code

    with getattr(own_cluster, frozen).frozen(), ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(ask, range(28)))
        assert httpx.get(f"{pod.operations_url}/healthz", timeout=30).status_code == 200
        assert httpx.get(f"{pod.operations_url}/readyz", timeout=30).status_code == 200
    assert statuses == [200] * 28
