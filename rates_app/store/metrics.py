"""Metrics of the databases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from rates_app.ops.metrics import POOL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from rates_app.store.databases import Connection, Databases


def measure_pools(databases: Databases) -> None:
    """Record this process's open and idle connections, and the requests that wait for one."""
    for server in databases.servers:
        stats = server.pool.get_stats()
        for state, name in (("open", "pool_size"), ("idle", "pool_available"), ("awaited", "requests_waiting")):
            POOL.labels(server.name, state).set(stats.get(name, 0))


class ReplicaLag(Collector):
    """Collects the lag of each replica; an unreachable replica has no value."""

    def __init__(self, databases: Databases) -> None:
        self._databases = databases

    def collect(self) -> Iterator[Metric]:
        """Read the lag of every replica."""
        lag = GaugeMetricFamily(
            "rates_replica_lag_seconds", "Replication lag of a replica, in seconds.", labels=["server"]
        )
        for replica in self._databases.replicas:
            try:
                with replica.connection() as connection:
                    seconds = replica_lag(connection)
            except psycopg.OperationalError as error:
                replica.leave_alone(error)
                continue
            if seconds is not None:
                lag.add_metric([replica.name], seconds)
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
