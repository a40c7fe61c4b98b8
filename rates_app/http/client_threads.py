"""Limit how many threads of a worker one client occupies.

Otherwise, the expensive queries of one client would delay the requests of all others. A request beyond the limit waits
until another one of its client has left its thread. The time counts as time in the queue, after which load is shed.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections import deque
from typing import Generic, TypeVar

Work = TypeVar("Work")


class ClientThreads(Generic[Work]):
    """The threads that each client occupies, and the work that waits for one. Only the event loop uses it.

    Args:
        limit: Maximum threads per client; None if clients cannot be distinguished.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._running: Tally[str] = Tally()
        self._waiting: dict[str, deque[Work]] = {}

    def enter(self, client: str, work: Work) -> bool:
        """Occupy a thread, or keep the work until a thread of the client is free.

        Args:
            client: The client's network.
            work: What the thread will do.

        Returns:
            Whether the work may begin now.
        """
        if self._limit is not None and self._running[client] >= self._limit:
            self._waiting.setdefault(client, deque()).append(work)
            return False
        self._running[client] += 1
        return True

    def leave(self, client: str) -> Work | None:
        """Free a thread of a client.

        Returns:
            The client's next work, which occupies the thread instead; None if none waits.
        """
        if waiting := self._waiting.get(client):
            work = waiting.popleft()
            if not waiting:
                del self._waiting[client]
            return work
        self._running[client] -= 1
        if not self._running[client]:
            del self._running[client]
        return None
