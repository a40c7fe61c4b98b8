"""Run the HTTP service under gunicorn, and stop it without losing a request.

On SIGTERM gunicorn's master would close its listeners at once, while load balancers still send requests for some
seconds. Here it first turns unready and goes on accepting for ``RATES_DRAIN_SECONDS``; then the workers stop as
gunicorn stops them: what is in progress is finished within ``RATES_GRACE_SECONDS``.
"""

from __future__ import annotations

import time
from multiprocessing import RawArray
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.workers.gthread import ThreadWorker

from rates_app.http.draining import begin_draining, is_draining
from rates_app.http.queueing import waited
from rates_app.ops.logs import ServerLogger
from rates_app.ops.metrics import forget_worker
from rates_app.ops.traces import configure_traces

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flask import Flask

    from rates_app.settings import Settings

#: Idle connections are kept this long: longer than a load balancer keeps its own (60 s in AWS), so that it is never
#: this side that closes one on which a request is already on its way.
KEEPALIVE_SECONDS = 75
BACKLOG = 2048
CONNECTIONS = 1000

#: How long a worker leaves a new connection to one that has fewer: time enough to wake up and take it.
TURN_SECONDS = 0.0005


class DrainingArbiter(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """A master that waits between being told to stop and stopping."""

    stop_at: float | None = None

    def handle_term(self) -> None:
        """Turn unready now, and note when to stop; a second SIGTERM does not make it sooner."""
        if self.stop_at is None:
            begin_draining()
            self.stop_at = time.monotonic() + self.app.settings.drain_seconds
            self.log.info("draining")

    def wait_for_signals(self, timeout: float = 1.0) -> list[int]:
        """Wait for signals, and stop when the time of draining is over."""
        if self.stop_at is None:
            return list(super().wait_for_signals(timeout))
        left = self.stop_at - time.monotonic()
        if left <= 0:
            raise StopIteration  # the master's loop takes this for the order to stop gracefully
        return list(super().wait_for_signals(min(timeout, left)))


class Balance:
    """How many connections each worker has open, in memory that all of them share; -1 where none takes any."""

    def __init__(self, places: int) -> None:
        self.open = RawArray("i", [-1] * places)

    def least(self) -> int:
        """Tell how many the worker has that has fewest."""
        return min((count for count in self.open if count >= 0), default=0)


class DrainingWorker(ThreadWorker):  # type: ignore[misc]
    """A worker that notes how long requests wait, and that takes all waiting connections before it stops."""

    place = 0  #: Where in the balance it counts.

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Tell the other workers how many connections are open here, then wait for events."""
        self.app.balance.open[self.place] = self.nr_conns if self.alive else -1
        super().wait_for_and_dispatch_events(timeout)

    def accept(self, listener: Any) -> None:
        """Accept a connection, unless a worker with fewer does: the kernel wakes all, and the busy ones win too often.

        Clients keep their connections, so that one worker would have all the work, and the others none, for long.
        """
        if self.alive:
            self.app.balance.open[self.place] = self.nr_conns
            if self.nr_conns > self.app.balance.least():
                time.sleep(TURN_SECONDS)
        super().accept(listener)

    def enqueue_req(self, conn: Any) -> None:
        """Note when a connection began to wait for a thread."""
        conn.queued_at = time.monotonic()
        super().enqueue_req(conn)

    def handle(self, conn: Any) -> Any:
        """Handle a request, in a thread."""
        waited.seconds = time.monotonic() - conn.queued_at
        return super().handle(conn)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Before the listener is left for good, accept what the kernel has queued: closing would reset it."""
        if not enabled and not self.alive:
            for listener in self.sockets:
                waiting = self.nr_conns + BACKLOG
                before = -1
                while before != self.nr_conns < waiting:
                    before = self.nr_conns
                    self.accept(listener)  # returns without a connection when there is none
        super().set_accept_enabled(enabled)


class Server(BaseApplication):  # type: ignore[misc]
    """gunicorn with this service's configuration instead of a file or flags."""

    def __init__(self, settings: Settings, metrics_folder: Path, create_app: Callable[[Settings], Flask]) -> None:
        self.settings = settings
        self.create_app = create_app
        self.metrics_folder = metrics_folder
        self.balance = Balance(2 * settings.workers)  # a reload has the new ones beside the old for a moment
        super().__init__()

    def load_config(self) -> None:
        """Set what gunicorn calls settings."""
        values: dict[str, Any] = {
            "bind": f"{self.settings.host}:{self.settings.port}",
            "workers": self.settings.workers,
            "threads": self.settings.threads,
            "worker_class": DrainingWorker,
            "worker_connections": CONNECTIONS,
            "backlog": BACKLOG,
            "keepalive": KEEPALIVE_SECONDS,
            "graceful_timeout": self.settings.grace_seconds,
            "timeout": 60,
            "logger_class": ServerLogger,
            "control_socket_disable": True,
            "forwarded_allow_ips": "",
            "pre_request": _close_while_draining,
            "pre_fork": self._place,
            "child_exit": self._forget,
            "worker_exit": _close_application,
        }
        for name, value in values.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Make the application, in the worker that will run it."""
        configure_traces(self.settings, "serve")
        self.app = self.create_app(self.settings)
        return self.app

    def run(self) -> None:
        """Serve until told to stop."""
        DrainingArbiter(self).run()

    def _place(self, arbiter: Arbiter, worker: DrainingWorker) -> None:
        taken = {other.place for other in arbiter.WORKERS.values()}
        worker.place = min(set(range(len(self.balance.open))) - taken)

    def _forget(self, _arbiter: Arbiter, worker: DrainingWorker) -> None:
        self.balance.open[worker.place] = -1
        forget_worker(worker.pid, self.metrics_folder)


def _close_while_draining(_worker: ThreadWorker, request: Any) -> None:
    if is_draining():
        request.force_close()


def _close_application(_arbiter: Arbiter, worker: ThreadWorker) -> None:
    if isinstance(worker.app, Server) and hasattr(worker.app, "app"):
        worker.app.app.extensions["rates"].close()
