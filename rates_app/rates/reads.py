"""Read path: determine the current version of the data, then return the answer from the nearest cache that has it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import psycopg
from psycopg_pool import PoolTimeout

from rates_app.cache.answer import Answer
from rates_app.cache.answers import SharedAnswers
from rates_app.ops.metrics import GENERATION, OLDEST_GENERATION, PUBLISHED
from rates_app.store.databases import Busy, Stale, Unavailable, is_busy
from rates_app.store.generation import Version, lane_version

if TYPE_CHECKING:
    from collections.abc import Callable

    from rates_app.cache.redis import Redis
    from rates_app.cache.versions import Stamp
    from rates_app.store.databases import Connection, Databases
    from rates_app.store.lease import Lease

    #: Runs queries in one snapshot and renders the results.
    Render = Callable[[Connection], bytes]
    #: Codes of origin and destination.
    LaneCodes = tuple[str, str]

Result = TypeVar("Result")


class ReadResult(NamedTuple):
    """An answer and its source.

    Attributes:
        answer: The answer.
        source: The cache level or the database server that it came from.
        generation: The current generation when it was read.
        slot: The slot that it depends on; None if it depends on all data.
    """

    answer: Answer
    source: str
    generation: int
    slot: int | None


class _Computed(NamedTuple):
    answer: Answer
    version: Version


class Reads:
    """Reads answers that are never older than any answer that a client may have received before.

    While the process holds its lease, it knows the current version. Otherwise it reads the version from the primary.
    While the primary is unreachable, it caches nothing and reads from a replica that has replayed at least the newest
    generation that this process has seen.

    Args:
        databases: Where answers are computed.
        redis: Where answers are shared.
        lease: Knows the current version while it is valid.
    """

    def __init__(self, databases: Databases, redis: Redis, lease: Lease) -> None:
        self._databases = databases
        self._shared = SharedAnswers(redis)
        self._lease = lease
        self._seen: Stamp | None = None
        self._past_epochs: set[str] = set()
        self._lock = threading.Lock()

    def answer(self, question: str, media_type: str, render: Render, lane: LaneCodes | None = None) -> ReadResult:
        """Answer a query.

        Args:
            question: The query in its canonical form.
            media_type: Media type of the answer.
            render: Renders the body with a database connection; it may run more than once.
            lane: Origin and destination if the answer depends on their prices and names only; otherwise None.

        Raises:
            Unavailable: No database is reachable, or none is recent enough.
        """
        version = self._current(lane)
        if version is None:
            computed, server = self._compute(lane, media_type, render, self._seen)
            return self._result(computed.answer, server, computed.version, lane)
        source = ""

        def compute() -> Answer:
            nonlocal source
            computed, source = self._compute(lane, media_type, render, version.newest)
            return computed.answer

        wanted = version.newest if lane is None else version.lane
        answer, level = self._shared.get(question, wanted, compute)
        return self._result(answer, source or level, version, lane)

    def snapshot(
        self, read: Callable[[Connection, Version], Result], least: Stamp | None = None
    ) -> tuple[Result, Version]:
        """Run a read in one snapshot, without the caches.

        Args:
            read: Runs queries on a connection, with the version of the data in its snapshot; it may run more than once.
            least: A generation that the snapshot includes; the current one by default.

        Returns:
            The result, and the version of the data.

        Raises:
            Unavailable: No database is reachable, or none is recent enough.
        """
        if least is None:
            version = self._current(None)
            least = self._seen if version is None else version.newest
        (result, found), _ = self._read(None, least, read)
        return result, found

    @staticmethod
    def _result(answer: Answer, source: str, version: Version, lane: LaneCodes | None) -> ReadResult:
        return ReadResult(answer, source, version.newest.generation, None if lane is None else version.slot)

    def _current(self, lane: LaneCodes | None) -> Version | None:
        """Return the current version; None if only the primary knows it and is unreachable."""
        if versions := self._lease.versions():
            slot = versions.slot(*lane) if lane else 0
            version = Version(versions.of(None), slot, versions.of(slot))
            PUBLISHED.set(versions.published)
        else:
            if self._databases.primary.left_alone:
                return None  # it failed recently: requests must not queue behind attempts to connect
            try:
                version = self._databases.primary.read(lambda connection: _version(connection, lane))
            except PoolTimeout as error:
                # It works but is busy. A replica may not have replayed its latest publication.
                raise Unavailable("all connections to the primary are busy") from error
            except psycopg.OperationalError as error:
                if is_busy(error):  # it works, so a replica may not have replayed its latest publication
                    raise Busy("the primary database is busy") from error
                return None
        self.record_generation(version.newest, is_primary=True)
        return version

    def record_lease(self) -> None:
        """Record the generation that the lease knows, so that a worker without requests does not seem to lag."""
        if (versions := self._lease.versions()) is not None:
            self.record_generation(versions.of(None), is_primary=True)

    def record_generation(self, newest: Stamp, *, is_primary: bool) -> None:
        """Record a generation that was read: from now on, no older answer is returned.

        An epoch begins on the primary. A new epoch of the primary replaces the recorded one at any generation.
        A replica may still be in the previous epoch.
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
            OLDEST_GENERATION.labels("worker").set(newest.generation)

    def _compute(
        self, lane: LaneCodes | None, media_type: str, render: Render, least: Stamp | None
    ) -> tuple[_Computed, str]:
        def compute(connection: Connection, version: Version) -> _Computed:
            own = version.newest if lane is None else version.lane
            return _Computed(Answer.of(render(connection), media_type, own), version)

        (computed, _), server = self._read(lane, least, compute)
        return computed, server

    def _read(
        self, lane: LaneCodes | None, least: Stamp | None, read: Callable[[Connection, Version], Result]
    ) -> tuple[tuple[Result, Version], str]:
        """Run a read in one snapshot of a server that includes a generation."""

        def run(connection: Connection) -> tuple[Result, Version]:
            if connection.isolation_level is None:  # connections to the primary are not read-only
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            version = _version(connection, lane)
            if least is not None and not version.newest.includes(least):
                raise Stale(f"at {version.newest}, needed {least}")
            return read(connection, version), version

        found, server = self._databases.read_from(run)
        self.record_generation(found[1].newest, is_primary=server == "primary")
        return found, server


def _version(connection: Connection, lane: LaneCodes | None) -> Version:
    return lane_version(connection, *(lane or ("", "")))
