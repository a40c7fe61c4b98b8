"""Limit how many long responses a process sends at the same time, and how many of them one client receives."""

from __future__ import annotations

import threading


class Slots:
    """Places for concurrent responses. One client gets at most half of them, so that others always find one.

    Args:
        total: Number of places.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._per_client = max(1, total // 2)
        self._used: dict[str, int] = {}
        self._lock = threading.Lock()

    def acquire(self, client: str) -> bool:
        """Occupy a place without waiting.

        Args:
            client: Name of the client, from :meth:`rates_app.http.limits.Limiter.client`.

        Returns:
            Whether there was one for this client.
        """
        with self._lock:
            used = self._used.get(client, 0)
            if sum(self._used.values()) >= self._total or used >= self._per_client:
                return False
            self._used[client] = used + 1
            return True

    def release(self, client: str) -> None:
        """Free a place that the client has occupied."""
        with self._lock:
            self._used[client] -= 1
            if not self._used[client]:
                del self._used[client]
