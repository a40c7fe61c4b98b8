"""The short form of ``python -m benchmarks.slow_clients``: good clients during an attack of each sort.

It measures no time, because the machine may be busy. Every good request must be answered.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import pytest

from benchmarks.slow_clients.attack import SORTS, attack
from benchmarks.slow_clients.good import Latencies, measure
from tests.security.conftest import QUESTION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from tests.security.conftest import PodUnderTest

pytestmark = pytest.mark.xdist_group("bad-connections")

CONNECTIONS = 200
SECONDS = 2.0
REQUESTS_PER_SECOND = 10.0


@pytest.fixture(scope="module")
def pod(start_pod: Callable[..., AbstractContextManager[PodUnderTest]]) -> Iterator[PodUnderTest]:
    """A pod with far fewer threads than there are bad connections."""
    limits = {"RATES_THREADS": "2", "RATES_UPLOAD_THREADS": "2", "RATES_CLIENT_TIMEOUT_SECONDS": "2"}
    with start_pod(RATES_SHED_SECONDS="30", **limits) as pod:
        yield pod


async def both(pod: PodUnderTest, sort: str) -> tuple[int, Latencies]:
    """Attack, and send good requests at the same time."""
    attacking = asyncio.create_task(attack(pod.port, sort, CONNECTIONS, SECONDS, pod.token))
    found = await measure(pod.port, QUESTION, SECONDS, REQUESTS_PER_SECOND, patience=60)
    return await attacking, found


@pytest.mark.parametrize("sort", SORTS)
def test_every_good_request_is_answered_during_an_attack(pod: PodUnderTest, sort: str) -> None:
    opened, found = asyncio.run(both(pod, sort))
    assert opened > CONNECTIONS // 2, "the attack did not take place"
    assert (found.failed, len(found.milliseconds)) == (0, SECONDS * REQUESTS_PER_SECOND)
    assert httpx.get(f"{pod.operations_url}/healthz").status_code == 200
    pod.wait_for_connections(0)
