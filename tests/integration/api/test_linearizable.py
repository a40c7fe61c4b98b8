"""No response is stale or mixed: a history of many readers is checked against the writer's.

The readers query two pods of two worker processes each, through all caches, while batches are published, replaced and
withdrawn, and while processes are killed. A drill (drills/failover.py) covers the failover of a primary. Every
state of the data has a different average, which identifies the state in a response.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from datetime import date
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

from drills.history import Read, Write, check
from drills.pod import Pod, environment_of
from rates_app.cache.redis import Redis
from rates_app.rates.warm import warmer
from rates_app.settings import Settings
from tests.fixtures.service import Publisher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rates_app.local.postgres import PostgresPair

DAYS = [date(2021, 1, 1), date(2021, 1, 2)]
QUESTION = "/rates?date_from=2021-01-01&date_to=2021-01-02&orig_code=china_main&dest_code=EETLL"
ROUNDS = 25


@contextmanager
def pods_of(settings: Settings) -> Iterator[list[Pod]]:
    """Run two pods."""
    started = [Pod(environment_of(settings)) for _ in range(2)]
    try:
        for pod in started:
            pod.wait_until_ready()
        yield started
    finally:
        for pod in started:
            pod.terminate()


def publish(publisher: Publisher, dollars: int, replaces: int | None = None) -> int:
    rows = [(port, "EETLL", day, dollars * 100) for day in DAYS for port in ("CNGGZ", "CNCWN", "CNCWN")]
    return publisher.publish(rows, replaces)


def observe(pods: list[Pod], publisher: Publisher, rounds: int, events: dict[int, Callable[[], None]]) -> int:
    """Run readers while batches are published, replaced and withdrawn, and check the responses.

    Args:
        pods: The pods that are queried.
        publisher: Publishes a batch per round, and withdraws or replaces the previous one.
        rounds: How many there are.
        events: What happens at the beginning of a round.

    Returns:
        The number of requests without a response. All responses must have status 200.
    """
    current = publish(publisher, 1000)
    writes = [Write(0, 0, 1000)]
    reads: list[Read] = []
    lost: list[httpx.TransportError] = []
    faults: list[str] = []
    stop = threading.Event()

    def read(pod: Pod, keep: bool) -> None:
        with httpx.Client(timeout=30) as client:
            while not stop.is_set():
                started = time.monotonic()
                try:
                    answer = client.get(pod.url + QUESTION, headers={} if keep else {"Connection": "close"})
                except httpx.TransportError as error:
                    lost.append(error)
                    continue
                ended = time.monotonic()
                if answer.status_code != 200:
                    faults.append(answer.text)
                    return
                reads.append(Read(started, ended, tuple(each["price"] for each in answer.json()["rates"])))

    readers = [
        threading.Thread(target=read, args=(pods[number % 2], number % 4 < 2), daemon=True) for number in range(6)
    ]
    for reader in readers:
        reader.start()
    for number in range(1, rounds):
        events.get(number, lambda: None)()
        started = time.monotonic()
        if number % 2:  # in one step: readers see exactly one of them
            current = publish(publisher, 1000 + number, replaces=current)
        else:
            following = publish(publisher, 1000 + number)
            writes.append(Write(started, time.monotonic(), 1000 + number - 0.5))  # both are visible
            time.sleep(0.05)
            started = time.monotonic()
            publisher.withdraw(current)
            current = following
        writes.append(Write(started, time.monotonic(), 1000 + number))
        time.sleep(0.05)
    stop.set()
    for reader in readers:
        reader.join()
    assert faults == []
    check(reads, writes)
    return len(lost)


def test_no_reader_sees_stale_data(publisher: Publisher, settings: Settings) -> None:
    publisher.warm = warmer(Redis(settings))
    with pods_of(settings) as pods:
        assert observe(pods, publisher, ROUNDS, {}) == 0
        text = "".join(httpx.get(f"{pod.operations_url}/metrics").text for pod in pods)
    assert 'rates_cache_requests_total{level="process",result="hit"}' in text  # process memory took part


def test_no_reader_sees_stale_data_when_a_worker_and_the_replica_are_killed(
    own_cluster: PostgresPair, redis_url: str, tmp_path: Path
) -> None:
    settings = Settings.model_validate(
        {
            "database_url": own_cluster.url,
            "replica_urls": own_cluster.replica_url,
            "redis_url": redis_url,
            "data_dir": tmp_path,
            "rate_limit": "1000000/minute",
        }
    )
    publisher = Publisher(own_cluster.url, warm=warmer(Redis(settings)))
    with pods_of(settings) as pods:
        workers = psutil.Process(pods[0].process.pid).children()
        assert len(workers) == 2
        lost = observe(pods, publisher, 12, {3: workers[0].kill, 6: own_cluster.replica.kill})
        assert not workers[0].is_running()
        assert len(psutil.Process(pods[0].process.pid).children()) == 2, "another worker has taken its place"
    assert lost <= 3, "only requests in progress in the worker fail"


@pytest.mark.parametrize(
    ("reads", "fault"),
    [
        ([Read(5, 6, (1.0, 1.0))], "after it ended"),
        ([Read(0, 1, (2.0, 2.0))], "before it began"),
        ([Read(1, 5, (1.0, 2.0))], "mixture"),
        ([Read(2.1, 2.2, (2.0, 2.0)), Read(2.3, 2.4, (1.0, 1.0))], "after"),
    ],
)
def test_the_checker_finds_errors(reads: list[Read], fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        check(reads, [Write(0, 0, 1.0), Write(2, 3, 2.0)])
