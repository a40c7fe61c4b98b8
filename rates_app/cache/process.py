"""The nearest copy: finished responses in the memory of one process, for exactly the same request.

An entry says what it depends on and which version of it; it is used only while the process's lease says that this is
the version that counts. So nothing is removed when something is published, and nothing expires.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rates_app.cache.versions import Stamp, Versions

MAX_BYTES = 64 * 2**20

#: What makes two requests the same: path, query, Accept and Accept-Encoding as they were sent.
Key = tuple[str, str, str | None, str | None]


@dataclass(slots=True)
class Kept:
    """A response that is ready to send.

    Attributes:
        slot: What it depends on; None for everything.
        version: The version of that.
        question: The question in its canonical form.
        route: The route's pattern.
        headers: All headers that do not depend on the request.
        body: The body, compressed as the client likes it.
        tag: What the entity tags of this content have in common, whatever its coding.
        hits: How often it was used since that was last told.
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
    """Responses by request, oldest out first when the memory they may take is full."""

    def __init__(self) -> None:
        self._entries: dict[Key, Kept] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Key, versions: Versions) -> Kept | None:
        """Return the response to a request if it is true.

        Args:
            key: The request.
            versions: What counts at this moment.
        """
        kept = self._entries.get(key)
        if kept is None or versions.of(kept.slot) != kept.version:
            return None
        kept.hits += 1
        return kept

    def put(self, key: Key, kept: Kept) -> None:
        """Keep a response."""
        size = len(kept.body) + 2000
        with self._lock:
            if replaced := self._entries.pop(key, None):
                self._bytes -= len(replaced.body) + 2000
            self._entries[key] = kept
            self._bytes += size
            while self._bytes > MAX_BYTES:
                oldest = next(iter(self._entries))
                self._bytes -= len(self._entries.pop(oldest).body) + 2000

    def take_hits(self) -> dict[str, int]:
        """Count the uses of each question since the last call."""
        hits: dict[str, int] = {}
        for kept in list(self._entries.values()):
            if kept.hits:
                hits[kept.question] = hits.get(kept.question, 0) + kept.hits
                kept.hits = 0
        return hits
