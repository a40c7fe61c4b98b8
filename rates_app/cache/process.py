"""Complete responses in the memory of one process, by request.

An entry records its slot and the slot's version. It is used only while the process's lease confirms that this is the
current version. So a publication removes no entry, and none expires.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rates_app.cache.versions import Stamp, Versions

MAX_BYTES = 64 * 2**20

#: The identity of a request: path, query, Accept and Accept-Encoding, unchanged.
Key = tuple[str, str, str | None, str | None]


@dataclass(slots=True)
class CachedResponse:
    """A response that is ready to send.

    Attributes:
        slot: The slot that the response depends on; None if it depends on all data.
        version: The version of the slot.
        question: The query in its canonical form.
        route: The route's pattern.
        headers: All headers that do not depend on the request.
        body: The body in the client's preferred content coding.
        tag: Its entity tag.
        hits: Number of uses since the last report.
    """

    slot: int | None
    version: Stamp
    question: str
    route: str
    headers: list[tuple[str, str]]
    body: bytes
    tag: str
    hits: int = 0


class ProcessAnswers:
    """Responses by request; beyond :data:`MAX_BYTES`, the oldest are evicted."""

    def __init__(self) -> None:
        self._entries: dict[Key, CachedResponse] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Key, versions: Versions) -> CachedResponse | None:
        """Return the response to a request if it is current.

        Args:
            key: The request.
            versions: The current versions.
        """
        cached = self._entries.get(key)
        if cached is None or versions.of(cached.slot) != cached.version:
            return None
        cached.hits += 1
        return cached

    def put(self, key: Key, response: CachedResponse) -> None:
        """Store a response."""
        with self._lock:
            if replaced := self._entries.pop(key, None):
                self._bytes -= _size(key, replaced)
            self._entries[key] = response
            self._bytes += _size(key, response)
            while self._bytes > MAX_BYTES:
                oldest = next(iter(self._entries))
                self._bytes -= _size(oldest, self._entries.pop(oldest))

    def take_hits(self) -> dict[str, int]:
        """Return the uses of each query since the last call, and reset the counts."""
        hits: dict[str, int] = {}
        for cached in list(self._entries.values()):
            if cached.hits:
                hits[cached.question] = hits.get(cached.question, 0) + cached.hits
                cached.hits = 0
        return hits


def _size(key: Key, response: CachedResponse) -> int:
    """Approximate size of an entry in memory, in bytes. The client chooses the size of the key, up to a whole head."""
    return len(response.body) + sum(map(len, filter(None, key))) + 2000
