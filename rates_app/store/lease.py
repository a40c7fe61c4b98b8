"""The lease with which a process may answer from memory without asking the primary.

While any lease is valid, no publication can commit, so the versions read with the lease are still current. A publisher
requests the release of all leases and waits; a lease that is not released expires. docs/decisions/0012-read-lease.md
proves that no answer can be stale.
"""

from __future__ import annotations

import threading
import time
import uuid
from typing import TYPE_CHECKING

import psycopg
import structlog

from rates_app.cache.versions import LOCATIONS_SLOT, Versions
from rates_app.store.connections import connect
from rates_app.store.generation import LEASE_SECONDS, PUBLISH_LOCK, SUSPEND_CHANNEL

if TYPE_CHECKING:
    from psycopg.rows import TupleRow

    Connection = psycopg.Connection[TupleRow]

log = structlog.get_logger()

RENEW_SECONDS = 1.0
#: Maximum delay until a request to release the lease is noticed.
LISTEN_SECONDS = 0.1
#: By how much the database server's clock may be set forward, or run faster than this one, during a lease.
MARGIN_SECONDS = 1.0
RETRY_SECONDS = 1.0


class Lease:
    """Holds a lease in a separate thread with a separate connection.

    Args:
        database_url: The primary.
        application_name: The connection's name in the server's statistics.
    """

    def __init__(self, database_url: str, application_name: str) -> None:
        self._url = database_url
        self._name = application_name
        self._holder = uuid.uuid4()
        self._valid_until = 0.0
        self._versions = Versions("", 0, 0.0, {}, {})
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cache-lease", daemon=True)

    def start(self) -> None:
        """Start the thread. Call it after a fork."""
        self._thread.start()

    def stop(self) -> None:
        """Release the lease and stop the thread."""
        self._stop.set()
        self._thread.join()

    def versions(self) -> Versions | None:
        """Return the current versions; None without a valid lease."""
        if time.monotonic() >= self._valid_until:
            return None
        return self._versions

    def _run(self) -> None:
        logged = False
        while not self._stop.is_set():
            try:
                with connect(self._url, f"{self._name}-lease", autocommit=True) as connection:
                    logged = False
                    try:
                        self._hold(connection)
                    finally:
                        self._valid_until = 0.0  # before the pause: another server may be the primary
            except psycopg.Error as error:
                if not logged:
                    log.warning("lease_not_acquired", reason=str(error).strip().splitlines()[:1])
                    logged = True
                self._stop.wait(RETRY_SECONDS)

    def _hold(self, connection: Connection) -> None:
        # After a failover this is another server, which may lack changes that were not replicated.
        self._versions = Versions("", 0, 0.0, {}, {})
        connection.execute(f"LISTEN {SUSPEND_CHANNEL}")
        renew_at = self._acquire(connection)
        while not self._stop.is_set():
            asked = any(True for _ in connection.notifies(timeout=LISTEN_SECONDS, stop_after=1))
            if not asked and time.monotonic() < renew_at:
                continue
            renew_at = time.monotonic() + RENEW_SECONDS
            if asked or not self._renew(connection):
                self._valid_until = 0.0
                connection.execute("DELETE FROM cache_leases WHERE holder = %s", (self._holder,))
                renew_at = self._acquire(connection)
        self._valid_until = 0.0
        connection.execute("DELETE FROM cache_leases WHERE holder = %s", (self._holder,))

    def _acquire(self, connection: Connection) -> float:
        """Wait for a publication in progress, then acquire a lease and read the changed versions.

        Returns:
            When to renew the lease, by the monotonic clock.
        """
        known = self._versions
        sent = time.monotonic()  # before the server reads its clock, so that this side's lease ends first
        # Pipelined, because requests have to ask the database until the lease is acquired.
        with connection.pipeline(), connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock_shared(%s)", (PUBLISH_LOCK,))
            connection.execute(
                """
                INSERT INTO cache_leases
                SELECT %(holder)s, clock_timestamp() + %(time)s * interval '1 second', epoch FROM generation
                ON CONFLICT (holder) DO UPDATE SET expires_at = excluded.expires_at, epoch = excluded.epoch
                """,
                {"holder": self._holder, "time": LEASE_SECONDS},
            )
            newest = connection.execute(
                "SELECT epoch::text, number, extract(epoch FROM changed_at)::float8 FROM generation"
            )
            changes = connection.execute(
                "SELECT slot, generation FROM lane_versions WHERE generation > %s", (known.generation,)
            )
            row, changed = newest.fetchone(), changes.fetchall()
            assert row is not None  # noqa: S101 - the first migration inserts the row
            ids = known.ids
            if not ids or any(slot == LOCATIONS_SLOT for slot, _ in changed):
                ids = dict(connection.execute("SELECT code, id FROM locations").fetchall())
        # In this order: a thread that sees the lease as valid must see these versions or newer ones.
        epoch, number, published = row
        self._versions = Versions(epoch, number, published, {**known.slots, **dict(changed)}, ids)
        self._valid_until = sent + LEASE_SECONDS - MARGIN_SECONDS
        return sent + RENEW_SECONDS

    def _renew(self, connection: Connection) -> bool:
        """Extend the lease; not possible while a publisher holds the lock, after it expired, and in another epoch."""
        sent = time.monotonic()
        renewed = connection.execute(
            """
            UPDATE cache_leases SET expires_at = clock_timestamp() + %(time)s * interval '1 second'
            WHERE holder = %(holder)s AND expires_at > clock_timestamp() AND epoch = (SELECT epoch FROM generation)
              AND pg_try_advisory_xact_lock_shared(%(lock)s)
            """,
            {"holder": self._holder, "time": LEASE_SECONDS, "lock": PUBLISH_LOCK},
        ).rowcount
        if renewed:
            self._valid_until = sent + LEASE_SECONDS - MARGIN_SECONDS
        return bool(renewed)
