"""A running pod measures what its clients wait for, each of its workers, and servers that do not respond."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psycopg
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from drills.pod import Pod, environment_of
from drills.waiting import wait_until
from rates_app.store.databases import Databases
from rates_app.store.generation import increment_generation
from rates_app.store.metrics import ServerStates

if TYPE_CHECKING:
    from rates_app.settings import Settings
    from tests.fixtures.service import Publisher

BUCKET = "rates_http_request_duration_seconds_bucket"


def measure(pod: Pod, name: str, **labels: str) -> float:
    """Return the sum of a metric's samples with these labels."""
    text = httpx.get(f"{pod.operations_url}/metrics", timeout=30).text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def test_a_requests_duration_includes_its_wait_for_a_thread(settings: Settings, publisher: Publisher) -> None:
    pod = Pod({**environment_of(settings), "RATES_WORKERS": "1", "RATES_THREADS": "1", "RATES_SHED_SECONDS": "0.1"})
    try:
        pod.wait_until_ready()
        found: list[int] = []

        def get(path: str) -> None:
            found.append(httpx.get(pod.url + path, timeout=30).status_code)

        with psycopg.connect(publisher.url) as holder, psycopg.connect(publisher.url, autocommit=True) as observer:
            holder.execute("LOCK TABLE batches")
            first = threading.Thread(target=get, args=("/v1/batches",))
            first.start()
            wait_until(
                lambda: observer.execute(
                    "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'batches'::regclass"
                ).fetchone()
            )
            second = socket.create_connection(("127.0.0.1", pod.port), timeout=30)
            second.sendall(b"GET /v1/locations/CNSGH HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            time.sleep(1)  # more than the bucket's bound and than the limit of the queue
            holder.rollback()
        first.join()
        with second:
            assert second.recv(12) == b"HTTP/1.1 503"
        assert found == [200]
        route = {"method": "GET", "route": "/v1/locations/<code>"}
        assert measure(pod, "rates_http_requests_total", status="503", **route) == 1
        assert measure(pod, "rates_http_request_duration_seconds_count", **route) == 1
        assert measure(pod, BUCKET, le="0.25", **route) == 0
    finally:
        pod.terminate()


def test_a_worker_that_lags_is_not_hidden_by_the_others(settings: Settings, publisher: Publisher) -> None:
    pod = Pod({**environment_of(settings), "RATES_WORKERS": "2"})
    try:
        pod.wait_until_ready()

        def generations() -> tuple[float, float]:
            return measure(pod, "rates_generation_oldest"), measure(pod, "rates_generation")

        # Without any request of a client.
        wait_until(lambda: len(set(generations())) == 1 and min(generations()) > 0)
        children = Path(f"/proc/{pod.process.pid}/task/{pod.process.pid}/children").read_text()
        worker = int(children.split()[0])
        os.kill(worker, signal.SIGSTOP)
        try:
            with psycopg.connect(publisher.url) as connection:
                increment_generation(connection, None)
            wait_until(lambda: generations()[0] < generations()[1])
        finally:
            os.kill(worker, signal.SIGCONT)
        wait_until(lambda: len(set(generations())) == 1)
    finally:
        pod.terminate()


def test_a_server_that_does_not_respond_is_down_although_no_read_fails(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hanging = f"postgresql://u:p@127.0.0.1:{silent.getsockname()[1]}/rates"
        databases = Databases(settings.model_copy(update={"replica_urls": (SecretStr(hanging),)}))
        databases.open()
        try:
            found = {
                (sample.name, sample.labels["server"]): sample.value
                for metric in ServerStates(databases).collect()
                for sample in metric.samples
            }
        finally:
            databases.close()
    assert found == {("rates_database_up", "primary"): 1, ("rates_database_up", "replica-1"): 0}
