"""Which worker takes a new connection."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger

from rates_app.application import create_app
from rates_app.http.server import TURN_SECONDS, Balance, DrainingWorker, Server
from rates_app.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A listener on which a client waits."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        server.setblocking(False)
        yield server


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> DrainingWorker:
    """The first of two workers, with three connections open."""
    monkeypatch.setattr(DrainingWorker, "enqueue_req", lambda _self, conn: conn.close())
    config = Config()
    worker = DrainingWorker(1, 0, [], SimpleNamespace(balance=Balance(2)), 30, config, Logger(config))
    worker.nr_conns = 3
    return worker


@pytest.mark.parametrize("other", [-1, 3, 4])
def test_a_worker_that_has_no_more_than_others_takes_it_at_once(
    worker: DrainingWorker, listener: socket.socket, monkeypatch: pytest.MonkeyPatch, other: int
) -> None:
    monkeypatch.setattr("rates_app.http.server.time.sleep", lambda _seconds: pytest.fail("it waited"))
    worker.app.balance.open[1] = other
    worker.accept(listener)
    assert worker.nr_conns == 4


@pytest.mark.parametrize(("awake", "connections"), [(True, 3), (False, 4)])
def test_a_worker_that_has_more_leaves_others_a_moment(
    worker: DrainingWorker, listener: socket.socket, monkeypatch: pytest.MonkeyPatch, awake: bool, connections: int
) -> None:
    waits: list[float] = []

    def other(seconds: float) -> None:
        waits.append(seconds)
        if awake:
            listener.accept()[0].close()

    monkeypatch.setattr("rates_app.http.server.time.sleep", other)
    worker.app.balance.open[1] = 2
    worker.accept(listener)
    assert waits == [TURN_SECONDS]
    assert worker.nr_conns == connections


def test_a_worker_takes_the_place_of_one_that_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATES_DATABASE_URL", "postgresql://nobody@localhost/none")
    server = Server(load_settings(), tmp_path, create_app)
    workers: dict[int, Any] = {pid: SimpleNamespace(pid=pid, place=0) for pid in (11, 12, 13)}
    arbiter = SimpleNamespace(WORKERS={})
    for pid in (11, 12):
        server.cfg.pre_fork(arbiter, workers[pid])
        arbiter.WORKERS[pid] = workers[pid]
        server.balance.open[workers[pid].place] = 5

    server.cfg.child_exit(arbiter, arbiter.WORKERS.pop(11))
    assert server.balance.least() == 5
    server.cfg.pre_fork(arbiter, workers[13])
    assert (workers[12].place, workers[13].place) == (1, 0)
