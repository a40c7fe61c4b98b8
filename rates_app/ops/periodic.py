"""Small work between requests, in a thread of its own."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger()


class Periodic:
    """Does some tasks again and again.

    Args:
        seconds: The pause in between.
        tasks: What to do; one that fails is logged and does not keep the others from being done.
    """

    def __init__(self, seconds: float, *tasks: Callable[[], None]) -> None:
        self._seconds = seconds
        self._tasks = tasks
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="periodic", daemon=True)

    def start(self) -> None:
        """Begin; call it after a fork, not before."""
        self._thread.start()

    def stop(self) -> None:
        """End after what is being done."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            for task in self._tasks:
                try:
                    task()
                except Exception:
                    log.exception("periodic task failed")
