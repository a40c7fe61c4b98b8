"""The real service, and clients that attack it over loopback."""

from __future__ import annotations

import resource
import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx
import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from drills.pod import Pod, environment_of
from drills.sample import store_sample_locations
from drills.waiting import wait_until
from rates_app.settings import Settings
from rates_app.store.generation import increment_generation
from rates_app.store.tokens import create_token
from tests.fixtures.service import Publisher
from tests.fixtures.stores import MigratedDatabase, create_database, wait_for_replay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rates_app.local.postgres import PostgresPair
    from rates_app.local.redis import RedisServer
    from tests.fixtures.service import PriceRow

QUESTION = "/rates?date_from=2021-01-01&date_to=2021-01-31&orig_code=CNGGZ&dest_code=EETLL"


class PodUnderTest(Pod):
    """A pod of the service, with a supplier's token.

    Args:
        settings: The settings.
        token: The token.
        open_files: The processes' limit of open files; the tests' own by default.
        environment: Further settings.
    """

    def __init__(self, settings: Settings, token: str, *, open_files: int | None = None, **environment: str) -> None:
        self.settings = settings
        self.token = token
        super().__init__(environment_of(settings) | environment)
        if open_files is not None:  # before the workers exist, which inherit it
            resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE, (open_files, open_files))
        self.wait_until_ready()

    def connect(self, *, receive_buffer: int | None = None) -> socket.socket:
        """Open a connection to the public port."""
        client = socket.socket()
        if receive_buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.settimeout(30)
        client.connect(("127.0.0.1", self.port))
        return client

    def exchange(self, request: bytes) -> bytes:
        """Send bytes on a new connection and return the response."""
        with self.connect() as client:
            client.sendall(request)
            client.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: client.recv(65536), b""))

    def metric(self, name: str, **labels: str) -> float:
        """Return a sample of the pod's metrics, or 0."""
        text = httpx.get(f"{self.operations_url}/metrics").text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return float(sample.value)
        return 0.0

    def wait_for_connections(self, expected: int) -> None:
        """Wait until the number of connections is at most a limit, for at most half a minute."""
        wait_until(
            lambda: self.metric("rates_http_connections") <= expected,
            pause=0.1,
            describe=lambda: f"clients still hold {self.metric('rates_http_connections')} connections",
        )

    def wait_for_metric(self, expected: float, name: str, **labels: str) -> None:
        """Wait until a sample has reached a value, for at most half a minute."""
        wait_until(
            lambda: self.metric(name, **labels) >= expected,
            pause=0.1,
            describe=lambda: f"{name}{labels} is {self.metric(name, **labels)}, expected {expected}",
        )


@pytest.fixture(scope="module")
def attacked(cluster: PostgresPair, worker_id: str) -> Iterator[MigratedDatabase]:
    """A database with the sample's ports and regions, for all tests of a module."""
    with create_database(cluster, f"rates_attacked_{worker_id}_{time.monotonic_ns()}") as own:
        with psycopg.connect(own.url) as connection:
            store_sample_locations(connection)
            increment_generation(connection, None)
            connection.commit()
            wait_for_replay(connection, cluster.replica)
        yield own


@pytest.fixture(scope="module")
def token(attacked: MigratedDatabase, sample_rows: list[PriceRow]) -> str:
    """A supplier's token, in a database with prices."""
    Publisher(attacked.url).publish(sample_rows[:2000])
    with psycopg.connect(attacked.url) as connection:
        return create_token(connection, "supplier", ["batches:write"])


@pytest.fixture(scope="module")
def start_pod(
    attacked: MigratedDatabase, token: str, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., object]:
    """Start pods with given settings."""

    @contextmanager
    def start(*, open_files: int | None = None, **environment: str) -> Iterator[PodUnderTest]:
        settings = Settings.model_validate(
            {
                "database_url": attacked.url,
                "replica_urls": ",".join(attacked.replica_urls),
                "redis_url": redis_server.database_url(15),
                "data_dir": tmp_path_factory.mktemp("data"),
                "rate_limit": "1000000/minute",
            }
        )
        pod = PodUnderTest(settings, token, open_files=open_files, **environment)
        try:
            yield pod
        finally:
            pod.terminate()

    return start
