"""The way of a read: find out which version of the data counts now, then take the nearest copy of the answer to it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

import psycopg
from psycopg_pool import PoolTimeout

from rates_app.cache.answer import Answer
from rates_app.cache.answers import SharedAnswers
from rates_app.ops.metrics import GENERATION, PUBLISHED
from rates_app.store.databases import Busy, Stale, Unavailable, is_busy
from rates_app.store.generation import Version, lane_version

if TYPE_CHECKING:
    from collections.abc import Callable

    from rates_app.cache.redis import Redis
    from rates_app.cache.versions import Stamp
    from rates_app.store.databases import Connection, Databases
    from rates_app.store.lease import Lease

    #: Runs queries in one snapshot and renders what they give.
    Render = Callable[[Connection], bytes]
    Lane = tuple[str, str]


class Served(NamedTuple):
    """An answer, where it came from, and the version of what it depends on."""

    answer: Answer
    source: str
    generation: int
    #: What it depends on, None for everything.
    slot: int | None


class _Computed(NamedTuple):
    answer: Answer
    version: Version


class Reads:
    """Answers that are never older than what anybody may have seen before the question was asked.

    While a process holds its lease it knows what counts; else it asks the primary. While it cannot reach the primary
    either, it caches nothing: it answers from a replica that shows at least the newest generation it has seen.

    Args:
        databases: Where answers come from in the end.
        redis: Where they are shared.
        lease: Tells the present version without asking anybody, when it can.
    """

    def __init__(self, databases: Databases, redis: Redis, lease: Lease) -> None:
        self._databases = databases
        self._shared = SharedAnswers(redis)
        self._lease = lease
        self._seen: Stamp | None = None
        self._past_epochs: set[str] = set()
        self._lock = threading.Lock()

    def answer(self, question: str, media_type: str, render: Render, lane: Lane | None = None) -> Served:
        """Answer a question.

        Args:
            question: Its canonical form: equal for equal questions, and different for others.
            media_type: What the answer is.
            render: Makes its body on a database connection; it may run more than once.
            lane: The locations whose prices and names are all that it depends on; None if it depends on more.

        Raises:
            Unavailable: No database can answer, or none that is recent enough.
        """
        version = self._present(lane)
        if version is None:
            computed, server = self._compute(lane, media_type, render, self._seen)
            return self._served(computed.answer, server, computed.version, lane)
        source = ""

        def compute() -> Answer:
            nonlocal source
            computed, source = self._compute(lane, media_type, render, version.newest)
            return computed.answer

        wanted = version.newest if lane is None else version.lane
        answer, level = self._shared.get(question, wanted, compute)
        return self._served(answer, source or level, version, lane)

    @staticmethod
    def _served(answer: Answer, source: str, version: Version, lane: Lane | None) -> Served:
        return Served(answer, source, version.newest.generation, None if lane is None else version.slot)

    def _present(self, lane: Lane | None) -> Version | None:
        """Find the version that counts now; None when only the primary knows and it cannot be reached."""
        if versions := self._lease.versions():
            slot = versions.slot(*lane) if lane else 0
            version = Version(versions.of(None), slot, versions.of(slot))
            PUBLISHED.set(versions.published)
        else:
            if self._databases.primary.left_alone:
                return None  # it failed a moment ago: requests must not queue up behind attempts to connect
            try:
                version = self._databases.primary.read(lambda connection: _version(connection, lane))
            except PoolTimeout as error:
                # It is there but busy: what it has published meanwhile would be missed if another were asked.
                raise Unavailable("all connections to the primary are busy") from error
            except psycopg.OperationalError as error:
                if is_busy(error):  # it works, so what it has published meanwhile counts
                    raise Busy("the primary database is busy") from error
                return None
        self.note(version.newest, is_primary=True)
        return version

    def note(self, newest: Stamp, *, is_primary: bool) -> None:
        """Record a generation that was read: nothing older is answered from now on.

        An epoch begins on the primary, so from there it replaces what was read before, whatever its number is. A
        replica may still be in the last one.
        """
        with self._lock:
            seen = self._seen
            if newest == seen or newest.epoch in self._past_epochs:
                return
            if seen is not None and newest.epoch != seen.epoch:
                if not is_primary:
                    return
                self._past_epochs.add(seen.epoch)
            elif seen is not None and seen.includes(newest):
                return
            self._seen = newest
            GENERATION.set(newest.generation)

    def _compute(
        self, lane: Lane | None, media_type: str, render: Render, least: Stamp | None
    ) -> tuple[_Computed, str]:
        def read(connection: Connection) -> _Computed:
            if connection.isolation_level is None:  # the primary's are for writing, too
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            version = _version(connection, lane)
            if least is not None and not version.newest.includes(least):
                raise Stale(f"at {version.newest}, needed {least}")
            own = version.newest if lane is None else version.lane
            return _Computed(Answer.of(render(connection), media_type, own), version)

        computed, server = self._databases.read_from(read)
        self.note(computed.version.newest, is_primary=server == "primary")
        return computed, server


def _version(connection: Connection, lane: Lane | None) -> Version:
    return lane_version(connection, *(lane or ("", "")))
