"""Run the HTTP service with gunicorn, and stop it without losing a request.

On SIGTERM, gunicorn's master closes its listeners immediately, but load balancers send requests for some more seconds.
This master first becomes unready and continues to accept for ``RATES_DRAIN_SECONDS``. Then the workers complete the
requests in progress within ``RATES_GRACE_SECONDS``.
"""

from __future__ import annotations

import time
from multiprocessing import RawArray
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter

from rates_app.http.draining import begin_draining, is_draining
from rates_app.http.operations import listen, serve_operations
from rates_app.http.worker import BACKLOG, EventWorker
from rates_app.ops.logs import ServerLogger
from rates_app.ops.metrics import remove_worker
from rates_app.ops.traces import configure_traces

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flask import Flask

    from rates_app.settings import Settings


class DrainingArbiter(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """A master that continues to serve for some seconds after SIGTERM."""

    stop_at: float | None = None

    def handle_term(self) -> None:
        """Become unready and schedule the stop; a second SIGTERM changes nothing."""
        if self.stop_at is None:
            begin_draining()
            self.stop_at = time.monotonic() + self.app.settings.drain_seconds
            self.log.info("draining_started")

    def wait_for_signals(self, timeout: float = 1.0) -> list[int]:
        """Wait for signals, and stop when draining is over."""
        if self.stop_at is None:
            return list(super().wait_for_signals(timeout))
        left = self.stop_at - time.monotonic()
        if left <= 0:
            raise StopIteration  # the master's loop then stops gracefully
        return list(super().wait_for_signals(min(timeout, left)))


class Balance:
    """The number of open connections per worker, in shared memory; -1 if a worker accepts none."""

    def __init__(self, workers: int) -> None:
        self.open = RawArray("i", [-1] * workers)

    def least(self) -> int:
        """Return the lowest number of open connections of any worker."""
        return min((count for count in self.open if count >= 0), default=0)


class HttpServer(BaseApplication):  # type: ignore[misc]
    """gunicorn, configured by this service's settings instead of a file or flags."""

    def __init__(self, settings: Settings, metrics_folder: Path, create_app: Callable[[Settings], Flask]) -> None:
        self.settings = settings
        self.create_app = create_app
        self.metrics_folder = metrics_folder
        self.balance = Balance(2 * settings.workers)  # during a reload, old and new workers run
        super().__init__()

    def load_config(self) -> None:
        """Set gunicorn's settings."""
        values: dict[str, Any] = {
            "bind": f"{self.settings.host}:{self.settings.port}",
            "workers": self.settings.workers,
            "threads": self.settings.threads,
            "worker_class": EventWorker,
            "backlog": BACKLOG,
            "graceful_timeout": self.settings.grace_seconds,
            "timeout": 60,
            "logger_class": ServerLogger,
            "control_socket_disable": True,
            "forwarded_allow_ips": "",
            "pre_request": _close_while_draining,
            "pre_fork": self._assign_index,
            "child_exit": self._remove_worker,
            "worker_exit": _close_application,
        }
        for name, value in values.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Create the application, in the worker that will run it."""
        configure_traces(self.settings, "serve")
        self.app = self.create_app(self.settings)
        serve_operations(self.operations, self.app)
        return self.app

    def run(self) -> None:
        """Serve until SIGTERM."""
        with listen(self.settings.host, self.settings.operations_port) as self.operations:
            DrainingArbiter(self).run()

    def _assign_index(self, arbiter: Arbiter, worker: EventWorker) -> None:
        taken = {other.index for other in arbiter.WORKERS.values()}
        worker.index = min(set(range(len(self.balance.open))) - taken)

    def _remove_worker(self, _arbiter: Arbiter, worker: EventWorker) -> None:
        self.balance.open[worker.index] = -1
        remove_worker(worker.pid, self.metrics_folder)


def _close_while_draining(_worker: EventWorker, request: Any) -> None:
    if is_draining():
        request.force_close()


def _close_application(_arbiter: Arbiter, worker: EventWorker) -> None:
    if isinstance(worker.app, HttpServer) and hasattr(worker.app, "app"):
        worker.app.app.extensions["rates"].close()
