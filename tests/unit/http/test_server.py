"""Which worker accepts a new connection."""

from __future__ import annotations

import contextvars
import os
import socket
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger

from drills.waiting import wait_until
from rates_app.application import create_app
from rates_app.http.server import Balance, HttpServer
from rates_app.http.worker import TURN_SECONDS, EventWorker
from rates_app.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SETTINGS = Settings.model_validate({"database_url": "postgresql://nowhere/rates"})


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A listener with a waiting client."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        server.setblocking(False)
        yield server


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[EventWorker]:
    """The first of two workers, with three connections open."""
    monkeypatch.setattr("gunicorn.workers.base.Worker.init_process", lambda _self: None)
    config = Config()
    app = SimpleNamespace(balance=Balance(2), settings=SETTINGS)
    worker = EventWorker(1, 0, [], app, 30, config, Logger(config))
    worker.init_process()
    worker.connections = 3
    yield worker
    for connection in list(worker._waiting):
        worker._discard(connection)
    worker._selector.close()
    worker.tmp.close()
    for end in (worker._wake_reader, worker._wake_writer):
        os.close(end)


@pytest.mark.parametrize("other", [-1, 3, 4])
def test_a_worker_without_more_connections_accepts_immediately(
    worker: EventWorker, listener: socket.socket, monkeypatch: pytest.MonkeyPatch, other: int
) -> None:
    monkeypatch.setattr("rates_app.http.worker.time.sleep", lambda _seconds: pytest.fail("it waited"))
    worker.app.balance.open[1] = other
    worker._accept(listener)
    assert worker.connections == 4


@pytest.mark.parametrize(("awake", "connections"), [(True, 3), (False, 4)])
def test_a_worker_with_more_connections_waits_first(
    worker: EventWorker, listener: socket.socket, monkeypatch: pytest.MonkeyPatch, awake: bool, connections: int
) -> None:
    waits: list[float] = []

    def other(seconds: float) -> None:
        waits.append(seconds)
        if awake:
            listener.accept()[0].close()

    monkeypatch.setattr("rates_app.http.worker.time.sleep", other)
    worker.app.balance.open[1] = 2
    worker._accept(listener)
    assert waits == [TURN_SECONDS]
    assert worker.connections == connections


def test_a_full_worker_closes_the_connection_that_has_waited_longest(worker: EventWorker) -> None:
    worker.connections, worker._max_connections = 0, 2
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        clients = []
        for _ in range(3):
            clients.append(socket.create_connection(server.getsockname()))
            worker._accept(server)
        assert worker.connections == 2
        clients[0].settimeout(5)
        assert clients[0].recv(1) == b""
        for client in clients[1:]:
            client.setblocking(False)
            with pytest.raises(BlockingIOError):
                client.recv(1)
            client.close()
        clients[0].close()


def test_a_worker_takes_the_place_of_one_that_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATES_DATABASE_URL", "postgresql://nobody@localhost/none")
    server = HttpServer(load_settings(), tmp_path, create_app)
    workers: dict[int, Any] = {pid: SimpleNamespace(pid=pid, place=0) for pid in (11, 12, 13)}
    arbiter = SimpleNamespace(WORKERS={})
    for pid in (11, 12):
        server.cfg.pre_fork(arbiter, workers[pid])
        arbiter.WORKERS[pid] = workers[pid]
        server.balance.open[workers[pid].index] = 5

    server.cfg.child_exit(arbiter, arbiter.WORKERS.pop(11))
    assert server.balance.least() == 5
    server.cfg.pre_fork(arbiter, workers[13])
    assert (workers[12].index, workers[13].index) == (1, 0)


def test_one_client_leaves_threads_to_others(worker: EventWorker) -> None:
    """A slow query of each of its many requests would otherwise delay all clients."""
    release, began = threading.Event(), threading.Semaphore(0)
    finished: list[str] = []

    def connection(address: str) -> Any:
        return SimpleNamespace(peer=(address, 1), upload=False, context=contextvars.Context())

    def slow(each: Any) -> Any:
        began.release()
        assert release.wait(60)
        return lambda _connection: finished.append(each.peer[0])

    def quick(each: Any) -> Any:
        began.release()
        return lambda _connection: finished.append(each.peer[0])

    def count(address: str) -> int:
        """Take back what the threads have finished, as the event loop does, and count it."""
        worker._run_calls()
        return finished.count(address)

    half = SETTINGS.threads // 2
    for _ in range(3 * half):
        worker._submit(connection("192.0.2.1"), slow)
    for _ in range(half):
        assert began.acquire(timeout=60)
    assert not began.acquire(blocking=False), "a client occupies more than half of the threads"
    worker._submit(connection("192.0.2.2"), quick)
    assert began.acquire(timeout=60)
    wait_until(lambda: count("192.0.2.2") == 1)
    assert count("192.0.2.1") == 0
    release.set()
    wait_until(lambda: count("192.0.2.1") == 3 * half)
    assert not worker._client_threads._running


@pytest.mark.parametrize(("proxies", "limited"), [(0, True), (1, False)])
def test_clients_behind_a_proxy_are_not_limited_by_its_address(
    monkeypatch: pytest.MonkeyPatch, proxies: int, limited: bool
) -> None:
    monkeypatch.setattr("gunicorn.workers.base.Worker.init_process", lambda _self: None)
    settings = SETTINGS.model_copy(update={"trusted_proxies": proxies})
    config = Config()
    app = SimpleNamespace(balance=Balance(2), settings=settings)
    worker = EventWorker(1, 0, [], app, 30, config, Logger(config))
    worker.init_process()
    assert bool(worker._per_client) is limited
    work: Any = None
    entered = [worker._client_threads.enter("192.0.2.1", work) for _ in range(settings.threads)]
    assert all(entered) is not limited
    worker._selector.close()
    worker.tmp.close()
    for end in (worker._wake_reader, worker._wake_writer):
        os.close(end)
