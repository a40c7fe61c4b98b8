"""Metrics of the databases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from psycopg_pool import PoolTimeout

from rates_app.ops.metrics import POOL
from rates_app.store.databases import is_busy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from rates_app.store.databases import Connection, Databases


def measure_pools(databases: Databases) -> None:
    """Record this process's connections: open, idle, in use, at most; and the requests that wait for one."""
    for server in databases.servers:
        stats = server.pool.get_stats()
        for state, name in (
            ("open", "pool_size"),
            ("idle", "pool_available"),
            ("max", "pool_max"),
            ("awaited", "requests_waiting"),
        ):
            POOL.labels(server.name, state).set(stats.get(name, 0))
        POOL.labels(server.name, "used").set(stats.get("pool_size", 0) - stats.get("pool_available", 0))


class ServerStates(Collector):
    """Collects whether each server responds, and the lag of each replica.

    A server that does not respond gets no reads, so the reads that fail cannot show it.
    """

    def __init__(self, databases: Databases) -> None:
        self._databases = databases

    def collect(self) -> Iterator[Metric]:
        """Ask every server."""
        up = GaugeMetricFamily(
            "rates_database_up", "Whether the server responded to this pod at the scrape.", labels=["server"]
        )
        lag = GaugeMetricFamily(
            "rates_replica_lag_seconds", "Replication lag of a replica, in seconds.", labels=["server"]
        )
        for server in self._databases.servers:
            try:
                with server.connection() as connection:
                    seconds = replica_lag(connection)
            except PoolTimeout:
                up.add_metric([server.name], 1)  # all connections are in use; the server itself works
                continue
            except psycopg.OperationalError as error:
                server.leave_alone(error)
                up.add_metric([server.name], is_busy(error))
                continue
            up.add_metric([server.name], 1)
            if seconds is not None and server in self._databases.replicas:
                lag.add_metric([server.name], seconds)
        yield up
        yield lag


def replica_lag(connection: Connection) -> float | None:
    """Return how far a replica is behind (PostgreSQL documentation, "Recovery Information Functions").

    Args:
        connection: A connection to the replica.

    Returns:
        Seconds; None on a server that has replayed no commit, such as a primary.
    """
    # Without writes, the last replayed commit gets old although the replica is up to date.
    row = connection.execute(
        """
        SELECT CASE WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
               ELSE extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) END
        """
    ).fetchone()
    return None if row is None or row[0] is None else float(row[0])
