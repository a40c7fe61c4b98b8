"""The running service: several workers, common metrics, and a graceful stop."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Self

import httpx
import pytest

from drills.waiting import wait_until
from tests.serving import LINE_BYTES

if TYPE_CHECKING:
    from drills.pod import Pod
    from tests.fixtures.service import PriceRow, Publisher

QUESTION = "/rates?date_from=2021-01-01&date_to=2021-01-31&orig_code=CNGGZ&dest_code=EETLL"


class RequestLoad:
    """Clients that send requests without a pause, half of them with a new connection each time.

    Like a load balancer, they stop some time after the readiness check fails.
    """

    def __init__(self, url: str, clients: int = 8) -> None:
        self.url = url
        self.statuses: list[int] = []
        self.failures: list[str] = []
        self.closing = 0
        self.stop = threading.Event()
        self.threads = [
            threading.Thread(target=self._query, args=(number % 2 == 0,), daemon=True) for number in range(clients)
        ]
        for thread in self.threads:
            thread.start()

    def _query(self, keep: bool) -> None:
        with httpx.Client(timeout=30) as kept:
            while not self.stop.is_set():
                try:
                    answer = kept.get(self.url + QUESTION) if keep else httpx.get(self.url + QUESTION, timeout=30)
                    self.statuses.append(answer.status_code)
                    self.closing += answer.headers["Connection"] == "close"
                except httpx.TransportError as error:
                    self.failures.append(repr(error))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()  # a failed test must stop its clients, too

    def end(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()


def test_sigterm_loses_no_request(served: Pod, publisher: Publisher, sample_rows: list[PriceRow]) -> None:
    publisher.publish(sample_rows[:2000])
    with RequestLoad(served.url) as load:
        wait_until(lambda: len(load.statuses) >= 100, seconds=120)
        answered = len(load.statuses)
        assert load.closing == 0

        served.process.terminate()
        time.sleep(0.2)
        ready = httpx.get(f"{served.operations_url}/readyz")
        assert ready.status_code == 503
        assert ready.json()["checks"]["server"] == "draining"
        assert httpx.get(f"{served.operations_url}/healthz").status_code == 200
        time.sleep(0.5)  # a load balancer notices late; draining lasts 3 s here

    assert served.terminate() == 0
    assert load.failures == []
    assert set(load.statuses) == {200}
    assert len(load.statuses) > answered
    assert load.closing > 0  # persistent connections are closed, so that clients connect to another pod


def test_a_request_in_progress_is_completed(served: Pod, publisher: Publisher) -> None:
    with httpx.stream("GET", f"{served.url}{QUESTION}") as slow_reader:
        served.process.terminate()
        time.sleep(4)  # draining has ended, but the response is incomplete
        assert slow_reader.read().startswith(b'{"rates"')
    assert served.terminate() == 0


def test_metrics_add_up_over_workers_and_logs_are_json_lines(served: Pod) -> None:
    for _ in range(40):
        httpx.get(served.url + QUESTION)  # new connections: both workers get some

    text = httpx.get(f"{served.operations_url}/metrics").text
    assert 'rates_http_requests_total{method="GET",route="/rates",status="200"} 40.0' in text
    assert "rates_http_requests_in_progress 1.0" in text  # this request
    assert 'rates_replica_lag_seconds{server="replica-1"}' in text
    assert 'rates_pool_connections{server="primary",state="open"}' in text
    assert 'rates_batches{state="published"} 0.0' in text
    assert "rates_generation 2.0" in text

    assert served.terminate() == 0
    events = [json.loads(line) for line in served.output]
    requests = [event for event in events if event["event"] == "request"]
    assert len(requests) == 40
    assert {"timestamp", "level", "request_id", "method", "route", "status", "duration_ms", "bytes"} <= set(requests[0])
    assert {event["generation"] for event in requests} == {2}
    lengths = [len(line.encode()) for line in served.output if '"request"' in line]
    assert sum(lengths) / len(lengths) == pytest.approx(LINE_BYTES, rel=0.1)
    assert not any("orig_code" in line for line in served.output)  # queries are private
