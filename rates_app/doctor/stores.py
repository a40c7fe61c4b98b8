"""Checks of PostgreSQL, Redis and the ledger."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import redis

from rates_app.batches.ledger.pace import IN_PROGRESS
from rates_app.batches.ledger.schedules import list_expectations
from rates_app.cache.redis import connect_redis
from rates_app.ops.check import CheckResult, Fault
from rates_app.ops.text import counted
from rates_app.store.connections import connect
from rates_app.store.metrics import replica_lag
from rates_app.store.migrate import pending

if TYPE_CHECKING:
    from rates_app.settings import Pooling
    from rates_app.store.databases import Connection

#: Statement timeout of each check, in seconds.
STATEMENT_SECONDS = 5.0

#: Replication lag from which the alert ReplicaLag fires, in seconds.
MAX_LAG_SECONDS = 30.0

#: A session that waits longer for a lock, in seconds, is a problem. Reads give up after five seconds, so a longer time
#: would never show a lock that only reads wait for.
MAX_WAIT_SECONDS = 2

#: Share of ``max_connections`` from which new pods may not get any.
MAX_CONNECTIONS_SHARE = 0.9

#: A batch without a newly staged slice for longer is stuck, as in the alert BatchStuck.
STUCK_MINUTES = 30

#: Share of the memory limit above which Redis refuses writes soon if it evicts nothing, as in the alarm cache-memory.
MAX_MEMORY_SHARE = 0.9

#: Timeout of a connection to Redis, and of each command, in seconds.
REDIS_SECONDS = 2.0

_NAME = "rates-doctor"


def check_primary(url: str) -> CheckResult:
    """Check that the primary accepts writes, has this version's schema, connections left, and no blocked session.

    Args:
        url: The primary, with the login of the role operator.

    Raises:
        psycopg.OperationalError: It is unreachable or hangs.
    """
    with connect(url, _NAME, statement_seconds=STATEMENT_SECONDS) as connection:
        standby, used, limit = _row(
            connection,
            """
            SELECT pg_is_in_recovery(), count(*), current_setting('max_connections')::integer
            FROM pg_stat_activity WHERE backend_type = 'client backend'
            """,
        )
        if standby:
            return CheckResult("", [Fault("the server is a standby: it accepts no writes", "database-failover")])
        problems = _blocked(connection) or _locked(connection)
        if not _keeps_sessions(url, connection):
            text = "a pooler in transaction mode is in front of it: leases and drivers need sessions"
            problems.append(Fault(text, "database-errors"))
        if used >= MAX_CONNECTIONS_SHARE * limit:
            problems.append(Fault(f"{used} of {limit} connections are in use", "pool-exhausted"))
    if missing := pending(url):
        problems.append(Fault(f"{counted(len(missing), 'migration')} not applied: rates migrate", "migration-failed"))
    return CheckResult(f"accepts writes, {used} of {limit} connections in use", problems)


def _blocked(connection: Connection) -> list[Fault]:
    """Name sessions that wait for a lock, and the sessions that hold it.

    Every role sees the locks of all sessions. The holder's name and state are visible to the role operator only.
    """
    rows = connection.execute(
        """
        SELECT waiting.pid, extract(epoch FROM clock_timestamp() - waiting.waitstart)::integer, blocking.pid,
            coalesce(nullif(holder.application_name, ''), 'without a name'), coalesce(holder.state, 'state not visible')
        FROM pg_locks waiting
        CROSS JOIN LATERAL unnest(pg_blocking_pids(waiting.pid)) AS blocking(pid)
        LEFT JOIN pg_stat_activity holder ON holder.pid = blocking.pid
        WHERE NOT waiting.granted AND waiting.waitstart < clock_timestamp() - make_interval(secs => %s)
        ORDER BY 2 DESC LIMIT 5
        """,
        (MAX_WAIT_SECONDS,),
    ).fetchall()
    return [
        Fault(
            f"session {waiting} has waited {seconds} s for a lock of session {holder} ({name}, {state}): "
            f"select pg_terminate_backend({holder}) ends it",
            "database-errors",
        )
        for waiting, seconds, holder, name, state in rows
    ]


def _locked(connection: Connection) -> list[Fault]:
    """Name tables that a session has locked exclusively for :data:`MAX_WAIT_SECONDS`.

    Reads that give up are not visible as waiting sessions. Uncommitted tables, which their session has locked, are not
    visible either.
    """
    query = """
        SELECT held.pid, held.virtualtransaction, held.relation::regclass::text,
            coalesce(nullif(holder.application_name, ''), 'without a name'), coalesce(holder.state, 'state not visible')
        FROM pg_locks held
        JOIN pg_class ON pg_class.oid = held.relation AND pg_class.relkind IN ('r', 'p')
        LEFT JOIN pg_stat_activity holder ON holder.pid = held.pid
        WHERE held.granted AND held.mode = 'AccessExclusiveLock'
            AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        ORDER BY 1, 3 LIMIT 5
        """
    earlier = {row[:3] for row in connection.execute(query).fetchall()}
    if not earlier:
        return []
    connection.commit()
    time.sleep(MAX_WAIT_SECONDS)
    return [
        Fault(
            f"session {pid} ({name}, {state}) holds the table {table} exclusively for more than {MAX_WAIT_SECONDS} s, "
            f"and reads wait for its lock: select pg_terminate_backend({pid}) ends it",
            "database-errors",
        )
        for pid, transaction, table, name, state in connection.execute(query).fetchall()
        if (pid, transaction, table) in earlier
    ]


def _keeps_sessions(url: str, connection: Connection) -> bool:
    """Return whether a connection to the server is used by one client until the client disconnects."""
    connection.commit()
    (first,) = _row(connection, "SELECT pg_backend_pid()")
    connection.commit()  # a pooler in transaction mode may lend the connection to another client now
    with connect(url, _NAME, statement_seconds=STATEMENT_SECONDS) as other:
        (second,) = _row(other, "SELECT pg_backend_pid()")
        (third,) = _row(connection, "SELECT pg_backend_pid()")
    return bool(first != second and first == third)


def check_replica(url: str, pooling: Pooling = "session") -> CheckResult:
    """Check that a replica is up to date.

    Args:
        url: The replica.
        pooling: The mode of the pooler at this address.

    Raises:
        psycopg.OperationalError: It is unreachable or hangs.
    """
    with connect(url, _NAME, statement_seconds=STATEMENT_SECONDS, pooling=pooling) as connection:
        (standby,) = _row(connection, "SELECT pg_is_in_recovery()")
        lag = replica_lag(connection)
    if not standby:
        return CheckResult("", [Fault("the server is no replica: it accepts writes", "database-failover")])
    if lag is not None and lag > MAX_LAG_SECONDS:
        return CheckResult("", [Fault(f"it is {lag:.0f} seconds behind", "replica-lag")])
    return CheckResult(f"{lag or 0:.1f} seconds behind")


def check_redis(url: str) -> CheckResult:
    """Check that Redis responds, accepts writes and has memory left.

    Args:
        url: Redis.

    Raises:
        redis.RedisError: It is unreachable.
    """
    with connect_redis(url, REDIS_SECONDS) as client:
        client.ping()
        try:
            server = client.info()
        except redis.exceptions.NoPermissionError:
            return CheckResult("responds; this login may not read its state")
    if server.get("role") != "master":
        return CheckResult("", [Fault("it is a replica and refuses writes", "cache-down")])
    used, limit = server["used_memory"], server.get("maxmemory", 0)
    if limit and used > MAX_MEMORY_SHARE * limit and server.get("maxmemory_policy") == "noeviction":
        return CheckResult("", [Fault(f"{used:,} of {limit:,} bytes are in use, and nothing is evicted", "cache-down")])
    return CheckResult(f"responds, {used / 2**20:.0f} MiB in use")


def check_ledger(url: str) -> CheckResult:
    """Check for batches that are stuck, late, failed or held, and for deliveries that fail or are missing.

    Args:
        url: The primary, with the login of the role operator.

    Raises:
        psycopg.OperationalError: It is unreachable or hangs.
    """
    with connect(url, _NAME, statement_seconds=STATEMENT_SECONDS) as connection:
        problems = [
            Fault(text, page)
            for text, page in connection.execute(
                f"""
                SELECT text, page FROM (
                    SELECT 1, id, format('batch %%s of %%s is %%s without progress for %%s minutes', id, supplier,
                        state, (extract(epoch FROM clock_timestamp() - progress) / 60)::integer), 'batch-stuck'
                    FROM ({IN_PROGRESS}) open
                    WHERE progress < clock_timestamp() - make_interval(mins => %s)
                    UNION ALL
                    SELECT 2, id, format('batch %%s of %%s has missed its deadline', id, supplier), 'batch-late'
                    FROM ({IN_PROGRESS}) open WHERE deadline < clock_timestamp()
                    UNION ALL
                    SELECT 3, id, format('batch %%s of %%s has failed: %%s', id, supplier, left(failure, 200)),
                        'batch-failed'
                    FROM batches WHERE state = 'failed' AND ended_at > clock_timestamp() - interval '1 day'
                    UNION ALL
                    SELECT 4, id, format('batch %%s of %%s waits for a decision', id, supplier), 'batch-held'
                    FROM batches WHERE state = 'held'
                    UNION ALL
                    SELECT 5, batch_id, format('a delivery has failed %%s times: %%s', attempts + outages,
                        left(error, 200)), 'batch-failed'
                    FROM delivery_attempts WHERE error IS NOT NULL
                ) AS found (severity, id, text, page)
                ORDER BY severity, id LIMIT 20
                """,  # noqa: S608 - a constant of the ledger
                (STUCK_MINUTES,),
            )
        ]
        problems += _missing_deliveries(connection)
        generation, batches, leases = _row(
            connection,
            """
            SELECT (SELECT number FROM generation), (SELECT count(*) FROM batches WHERE state = 'published'),
                (SELECT count(*) FROM cache_leases)
            """,
        )
    text = f"generation {generation}, published batches: {batches}, leases: {leases}"
    return CheckResult(text, problems)


def _missing_deliveries(connection: Connection) -> list[Fault]:
    """Name suppliers whose latest delivery is missing or too small."""
    problems = []
    for found in list_expectations(connection):
        if found.state == "overdue":
            due = f"a delivery of {found.supplier} was due {found.due_at:%Y-%m-%d %H:%M} UTC"
            problems.append(Fault(f"{due}; batches that arrived: {found.arrived}", "delivery-overdue"))
        elif found.state == "too_small":
            text = f"{found.supplier} delivered {found.rows:,} of at least {counted(found.schedule.min_rows, 'price')}"
            problems.append(Fault(text, "delivery-too-small"))
    return problems


def server_name(url: str) -> str:
    """Return the hosts and ports of an address, without its password."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _row(connection: Connection, query: str) -> tuple[Any, ...]:
    row = connection.execute(query).fetchone()
    assert row is not None  # noqa: S101 - each query has one row
    return row
