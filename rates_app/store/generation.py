"""Increment the generation: every change that readers can see does so.

All transactions that change responses (publish, withdraw, a new tree of locations) end with
:func:`increment_generation`. docs/decisions/0012-read-lease.md describes how that keeps every cache correct.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import structlog
from psycopg.conninfo import make_conninfo

from rates_app.cache.versions import LOCATIONS_SLOT, Stamp
from rates_app.store.connections import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rates_app.store.databases import Connection

    #: Computes answers for the next generation within the transaction, so that it sees the changes.
    Warm = Callable[[Connection], None]

log = structlog.get_logger()

#: Advisory lock. A publisher holds it from before it suspends the caches until its commit. A process holds it in
#: shared mode while it acquires or renews its lease.
PUBLISH_LOCK = 7_246_003

#: Channel for the notification that makes processes release their leases.
SUSPEND_CHANNEL = "rates_suspend"

#: Duration of a lease: the longest time for which a process that hangs can delay a publication.
LEASE_SECONDS = 5.0


class Version(NamedTuple):
    """The version of a lane's data in a transaction's snapshot."""

    #: The newest generation.
    newest: Stamp
    #: The lane's slot, or :data:`LOCATIONS_SLOT` if a location is unknown.
    slot: int
    #: The last generation that changed the slot or the tree of locations.
    lane: Stamp


def lane_version(connection: Connection, origin: str, destination: str) -> Version:
    """Read the current generation, and the last one that changed a lane.

    Args:
        connection: A connection to any server.
        origin: Code or slug; it may be unknown.
        destination: The same.
    """
    row = connection.execute(
        """
        SELECT epoch::text, number, slot, greatest(
            (SELECT generation FROM lane_versions WHERE lane_versions.slot = lane.slot),
            (SELECT generation FROM lane_versions WHERE lane_versions.slot = -1), 0)
        FROM generation, (SELECT coalesce(lane_slot(
            (SELECT id FROM locations WHERE code = %s), (SELECT id FROM locations WHERE code = %s)), -1) AS slot) lane
        """,
        (origin, destination),
    ).fetchone()
    assert row is not None  # noqa: S101 - the first migration inserts the row
    epoch, number, slot, lane = row
    return Version(Stamp(epoch, number), slot, Stamp(epoch, lane))


def record_batch_lanes(connection: Connection, batch_id: int) -> None:
    """Record the lanes that a batch has rollups for: when it is verified, and again when the tree changes.

    Args:
        connection: A connection to the primary, inside a transaction that has locked the tree of locations.
        batch_id: The batch.
    """
    connection.execute("DELETE FROM batch_lanes WHERE batch_id = %s", (batch_id,))
    connection.execute(
        """
        INSERT INTO batch_lanes
        SELECT batch_id, origin_id, destination_id, sum(count), range_agg(daterange(day, day + 1))
        FROM rollups WHERE batch_id = %s GROUP BY batch_id, origin_id, destination_id
        """,
        (batch_id,),
    )
    connection.execute(
        """
        INSERT INTO batch_slots
        SELECT batch_id, array_agg(DISTINCT lane_slot(origin_id, destination_id)) FROM batch_lanes
        WHERE batch_id = %s GROUP BY batch_id
        ON CONFLICT (batch_id) DO UPDATE SET slots = excluded.slots
        """,
        (batch_id,),
    )


def increment_generation(connection: Connection, batches: Sequence[int] | None, warm: Warm | None = None) -> int:
    """Increment the generation for a change that readers can see. Call it last, and commit immediately after.

    The generation's row is locked until the commit, so generations increase in commit order. When this returns, no
    process answers from memory, and none will before the transaction ends. So after one reader has seen the new
    generation, no reader gets an older one.

    Args:
        connection: A connection to the primary, inside the transaction that makes the change.
        batches: The batches that become visible or invisible; None if the tree of locations changes.
        warm: Computes the answers to frequent queries before requests need them.

    Returns:
        The new generation.
    """
    row = connection.execute("SELECT server = server_identity() FROM generation FOR UPDATE").fetchone()
    if row != (True,):
        begin_epoch(connection)
    changed = None if batches is None else list(batches)
    row = connection.execute(
        """
        UPDATE generation SET number = nextval('generations'), changed_at = clock_timestamp() RETURNING number
        """
    ).fetchone()
    assert row is not None  # noqa: S101 - the first migration inserts the row
    generation = int(row[0])
    connection.execute(
        """
        INSERT INTO lane_versions
        SELECT DISTINCT unnest(slots), %(generation)s FROM batch_slots WHERE batch_id = ANY(%(batches)s)
        UNION ALL SELECT %(locations)s, %(generation)s WHERE %(batches)s::integer[] IS NULL
        ON CONFLICT (slot) DO UPDATE SET generation = excluded.generation
        """,
        {"generation": generation, "batches": changed, "locations": LOCATIONS_SLOT},
    )
    connection.execute("UPDATE batches SET generation = %s WHERE id = ANY(%s)", (generation, changed))
    if warm is not None:
        warm(connection)
    _suspend_caches(connection)
    return generation


def begin_epoch(connection: Connection) -> None:
    """Begin an epoch: the data of a generation may differ from that of the same generation in the previous epoch.

    :func:`increment_generation` does this on another server or timeline. After a restored storage snapshot, a crash
    that lost commits, or a switch to a copy, the database cannot detect it: an operator runs `rates epoch`.

    The newest leases may be missing from this data, so this waits for the full duration of a lease.

    Args:
        connection: A connection to the primary, inside a transaction that ends with :func:`increment_generation`.
    """
    connection.execute("UPDATE generation SET epoch = gen_random_uuid(), server = server_identity()")
    log.info("epoch_begun", waits_seconds=LEASE_SECONDS)
    time.sleep(LEASE_SECONDS)


def _suspend_caches(connection: Connection) -> None:
    """Wait until no process holds a lease, and prevent new leases until the transaction ends.

    A process that hangs or is unreachable cannot renew its lease while this transaction holds :data:`PUBLISH_LOCK`, so
    the wait is limited to :data:`LEASE_SECONDS`.
    """
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (PUBLISH_LOCK,))
    started = time.monotonic()
    if _leases(connection):
        # PostgreSQL sends a notification at commit. This transaction commits later, so another connection sends it.
        own = connection.info
        address = make_conninfo(**{**own.get_parameters(), "password": own.password})
        with connect(address, "rates-suspend", autocommit=True) as other:
            other.execute("SELECT pg_notify(%s, '')", (SUSPEND_CHANNEL,))
        pause = 0.001
        # Limited by this clock as well: the server's clock may be set back.
        while _leases(connection) and time.monotonic() - started < LEASE_SECONDS:
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)
        connection.execute("DELETE FROM cache_leases")  # all remaining leases have expired
    if (waited := time.monotonic() - started) > 1:
        log.warning("lease_release_timed_out", seconds=round(waited, 1))


def _leases(connection: Connection) -> int:
    row = connection.execute("SELECT count(*) FROM cache_leases WHERE expires_at > clock_timestamp()").fetchone()
    assert row is not None  # noqa: S101 - an aggregate always has one row
    return int(row[0])
