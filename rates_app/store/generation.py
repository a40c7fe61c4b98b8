"""Raise the generation: the one way in which what readers see may change.

Everything that changes answers (publish, withdraw, another tree of locations) ends its transaction with
:func:`increment_generation`. How that makes every process's cache true is told in docs/decisions/0012-read-lease.md.
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

    #: Prepares answers for the generation that is about to begin; sees the transaction's changes.
    Warm = Callable[[Connection], None]

log = structlog.get_logger()

#: Advisory lock: a publisher holds it from before it asks caches to stop until its commit; a process holds it in
#: shared mode for the moment in which it takes or renews its lease.
PUBLISH_LOCK = 7_246_003

#: Channel on which processes are asked to stop answering from memory.
SUSPEND_CHANNEL = "rates_suspend"

#: How long a process may answer from memory without renewing its lease: the longest that one which hangs can delay a
#: publish.
LEASE_SECONDS = 5.0


class Version(NamedTuple):
    """What an answer depends on, in a transaction's snapshot."""

    #: The newest generation.
    newest: Stamp
    #: The slot of the lane, or :data:`LOCATIONS_SLOT` when a location is not known.
    slot: int
    #: The generation that changed the slot or the tree of locations last.
    lane: Stamp


def lane_version(connection: Connection, origin: str, destination: str) -> Version:
    """Read which generation counts, and which one changed a lane last.

    Args:
        connection: A connection to any server.
        origin: Code or slug; an unknown one is fine.
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
    assert row is not None  # noqa: S101 - the first migration puts the row there
    epoch, number, slot, lane = row
    return Version(Stamp(epoch, number), slot, Stamp(epoch, lane))


def record_batch_lanes(connection: Connection, batch_id: int) -> None:
    """Note between which locations a batch has rollups; done when it is verified, and again when the tree changes.

    Args:
        connection: A connection to the primary, inside a transaction in which no other tree can come.
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
    """Raise the generation for a change of what readers see; call it last, and commit right after.

    The generation's row is locked until the commit, so generations follow one another in commit order. When this
    returns, no process answers from its memory any more, and none will before the transaction ends: so whoever sees
    the new generation cannot be followed by one who is shown the old.

    Args:
        connection: A connection to the primary, inside the transaction that makes the change.
        batches: The batches that become visible or invisible; None when the location tree changes.
        warm: Prepares answers that are asked for often, before anybody waits for them.

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
    assert row is not None  # noqa: S101 - the first migration puts the row there
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
    """Begin an epoch: the data may not be what the last epoch's numbers meant.

    :func:`increment_generation` does this when it finds itself on another server or timeline. After a storage snapshot,
    a crash that lost commits, or a switch to a copy, nothing in the data shows it: an operator runs `rates epoch`.

    Leases of the last moments may be missing from this data, so their full time is waited for.

    Args:
        connection: A connection to the primary, inside a transaction that ends with :func:`increment_generation`.
    """
    connection.execute("UPDATE generation SET epoch = gen_random_uuid(), server = server_identity()")
    log.info("epoch_begun", waits_seconds=LEASE_SECONDS)
    time.sleep(LEASE_SECONDS)


def _suspend_caches(connection: Connection) -> None:
    """Wait until no process holds a lease, and keep all from taking one until the transaction ends.

    A process that hangs, or that cannot be reached, cannot renew its lease while the gate is closed: it is waited for
    :data:`LEASE_SECONDS` at most.
    """
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (PUBLISH_LOCK,))
    started = time.monotonic()
    if _leases(connection):
        # A notification leaves at its transaction's end, and this one's must come later: so another connection.
        own = connection.info
        address = make_conninfo(**{**own.get_parameters(), "password": own.password})
        with connect(address, "rates-suspend", autocommit=True) as other:
            other.execute("SELECT pg_notify(%s, '')", (SUSPEND_CHANNEL,))
        pause = 0.001
        # By this clock, too: the server's may be set back, and no lease is renewed while the gate is closed.
        while _leases(connection) and time.monotonic() - started < LEASE_SECONDS:
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)
        connection.execute("DELETE FROM cache_leases")  # what is left has expired
    if (waited := time.monotonic() - started) > 1:
        log.warning("lease_release_timed_out", seconds=round(waited, 1))


def _leases(connection: Connection) -> int:
    row = connection.execute("SELECT count(*) FROM cache_leases WHERE expires_at > clock_timestamp()").fetchone()
    assert row is not None  # noqa: S101 - an aggregate always has one row
    return int(row[0])
