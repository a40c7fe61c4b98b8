"""No stale and no mixed answer, whoever is asked: a history of many readers is checked against the writer's.

The readers ask two pods of two worker processes each, through every cache there is, while batches are published and
withdrawn. Every state of the data has an average of its own, so an answer tells which state it shows.
"""

from __future__ import annotations

import threading
import time
from datetime import date
from typing import TYPE_CHECKING

import httpx
import pytest

from drills.history import Read, Write, check
from drills.pod import Served, environment_of
from rates_app.cache.redis import Redis
from rates_app.rates.warm import warmer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rates_app.settings import Settings
    from tests.integration.api.conftest import Publisher

DAYS = [date(2021, 1, 1), date(2021, 1, 2)]
QUESTION = "/rates?date_from=2021-01-01&date_to=2021-01-02&orig_code=china_main&dest_code=EETLL"
ROUNDS = 25


@pytest.fixture
def pods(settings: Settings, publisher: Publisher) -> Iterator[list[Served]]:
    started = [Served(environment_of(settings)) for _ in range(2)]
    try:
        for pod in started:
            pod.wait_until_ready()
        yield started
    finally:
        for pod in started:
            pod.terminate()


def publish(publisher: Publisher, dollars: int) -> int:
    return publisher.publish(
        [(port, "EETLL", day, dollars * 100) for day in DAYS for port in ("CNGGZ", "CNCWN", "CNCWN")]
    )


def test_no_reader_is_shown_the_past(pods: list[Served], publisher: Publisher, settings: Settings) -> None:
    publisher.warm = warmer(Redis(settings))
    current = publish(publisher, 1000)
    writes = [Write(0, 0, 1000)]
    reads: list[Read] = []
    stop = threading.Event()

    def read(pod: Served, keep: bool) -> None:
        with httpx.Client() as client:
            while not stop.is_set():
                started = time.monotonic()
                answer = client.get(pod.url + QUESTION, headers={} if keep else {"Connection": "close"})
                ended = time.monotonic()
                assert answer.status_code == 200
                reads.append(Read(started, ended, tuple(each["price"] for each in answer.json()["rates"])))

    readers = [
        threading.Thread(target=read, args=(pods[number % 2], number % 4 < 2), daemon=True) for number in range(6)
    ]
    for reader in readers:
        reader.start()
    for number in range(1, ROUNDS):
        started = time.monotonic()
        following = publish(publisher, 1000 + number)
        writes.append(Write(started, time.monotonic(), 1000 + number - 0.5))  # both are visible
        time.sleep(0.05)
        started = time.monotonic()
        publisher.withdraw(current)
        writes.append(Write(started, time.monotonic(), 1000 + number))
        current = following
        time.sleep(0.05)
    stop.set()
    for reader in readers:
        reader.join()

    check(reads, writes)
    text = "".join(httpx.get(f"{pod.url}/metrics").text for pod in pods)
    assert 'rates_cache_requests_total{level="process",result="hit"}' in text  # the nearest cache took part


@pytest.mark.parametrize(
    ("reads", "fault"),
    [
        ([Read(5, 6, (1.0, 1.0))], "over"),
        ([Read(0, 1, (2.0, 2.0))], "not there yet"),
        ([Read(1, 5, (1.0, 2.0))], "mixture"),
        ([Read(2.1, 2.2, (2.0, 2.0)), Read(2.3, 2.4, (1.0, 1.0))], "after"),
    ],
)
def test_the_checker_finds_what_is_wrong(reads: list[Read], fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        check(reads, [Write(0, 0, 1.0), Write(2, 3, 2.0)])
