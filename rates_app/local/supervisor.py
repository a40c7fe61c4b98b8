"""Restart servers that have exited, with increasing delays, and give up on a server that keeps exiting."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rates_app.local.server import ServerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rates_app.local.server import LocalServer

#: Delays before consecutive restarts. After the last, the supervisor gives up.
RESTART_DELAYS_SECONDS = (0.0, 1.0, 2.0, 4.0)
#: Reset the restart count after this much uptime.
RESET_SECONDS = 60.0


@dataclass
class Supervisor:
    """Restarts one server when it exits.

    Args:
        server: The running server.
        start: Starts the server, or raises :class:`ServerError`.
        report: Receives a message about each event.
    """

    server: LocalServer
    start: Callable[[], None]
    report: Callable[[str], None]
    _restarts: int = 0
    _next_start: float | None = None
    _reset_at: float = 0.0

    def check(self) -> None:
        """Restart the server if it has exited. Call this periodically.

        Raises:
            ServerError: The server keeps exiting, or another program uses its port.
        """
        now = time.monotonic()
        if self.server.is_running():
            if self._restarts and now >= self._reset_at:
                self._restarts = 0
            return
        if self._next_start is None:
            if self._restarts == len(RESTART_DELAYS_SECONDS):
                raise self.server.error(f"has exited {self._restarts} times and is not restarted again")
            self._next_start = now + RESTART_DELAYS_SECONDS[self._restarts]
            self._restarts += 1
            self.report(f"{self.server.name} has exited unexpectedly; restarting it, attempt {self._restarts}")
        if now < self._next_start:
            return
        self._next_start = None
        port = self.server.port
        try:
            self.start()
        except ServerError as error:
            self.report(str(error))
            return
        if self.server.port != port:
            raise self.server.error(f"could not be restarted on port {port}, which another program uses now")
        self._reset_at = time.monotonic() + RESET_SECONDS
        self.report(f"{self.server.name} has been restarted")
