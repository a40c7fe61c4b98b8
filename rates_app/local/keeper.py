"""Start servers again that have ended by themselves, ever more patiently, and give up on one that keeps ending."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rates_app.local.server import ServerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rates_app.local.server import Server

#: Pauses before a server is started again, one after the other; after the last it is given up.
PAUSES_SECONDS = (0.0, 1.0, 2.0, 4.0)
#: A server that has run for so long since is well: its next end is its first.
STEADY_SECONDS = 60.0


@dataclass
class Keeper:
    """Keeps one server running.

    Args:
        server: The server, running.
        start: Starts it; raises :class:`ServerError` when that does not work.
        tell: Told what happens.
    """

    server: Server
    start: Callable[[], None]
    tell: Callable[[str], None]
    _ends: int = 0
    _next_start: float | None = None
    _well_from: float = 0.0

    def look(self) -> None:
        """See to the server; call it again and again.

        Raises:
            ServerError: It keeps ending, or another program has its port.
        """
        now = time.monotonic()
        if self.server.is_running():
            if self._ends and now >= self._well_from:
                self._ends = 0
            return
        if self._next_start is None:
            if self._ends == len(PAUSES_SECONDS):
                raise self.server.error(f"has ended {self._ends} times and is given up")
            self._next_start = now + PAUSES_SECONDS[self._ends]
            self._ends += 1
            self.tell(f"{self.server.name} has ended by itself; it is started again, attempt {self._ends}")
        if now < self._next_start:
            return
        self._next_start = None
        port = self.server.port
        try:
            self.start()
        except ServerError as error:
            self.tell(str(error))
            return
        if self.server.port != port:
            raise self.server.error(f"could not have its port {port} again, which another program has taken")
        self._well_from = time.monotonic() + STEADY_SECONDS
        self.tell(f"{self.server.name} runs again")
