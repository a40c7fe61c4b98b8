"""Run periodic tasks on a background thread."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger()


class Periodic:
    """Run tasks at an interval.

    Args:
        seconds: Seconds between runs.
        tasks: The tasks. If one fails, the error is logged and the others still run.
    """

    def __init__(self, seconds: float, *tasks: Callable[[], None]) -> None:
        self._seconds = seconds
        self._tasks = tasks
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="periodic", daemon=True)

    def start(self) -> None:
        """Start the thread; call it after a fork."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the current task."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            for task in self._tasks:
                try:
                    task()
                except Exception:
                    log.exception("periodic_task_failed")
