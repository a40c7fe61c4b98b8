"""Readiness of this process, for load balancers and the kubelet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import psycopg

from rates_app.cache.versions import Stamp
from rates_app.http.draining import is_draining

if TYPE_CHECKING:
    from rates_app.cache.redis import Redis
    from rates_app.store.databases import Databases, Server


class RecordGeneration(Protocol):
    """Records the generation that was read from a server."""

    def __call__(self, newest: Stamp, *, is_primary: bool) -> None:
        """Record a generation, as ``Reads.record_generation`` does."""


def _check(server: Server, record_generation: RecordGeneration) -> str:
    if server.left_alone:
        return "unreachable"
    try:
        with server.connection() as connection:
            row = connection.execute("SELECT epoch::text, number FROM generation").fetchone()
    except psycopg.errors.UndefinedTable:
        return "not migrated: run 'rates migrate'"
    except psycopg.Error as error:
        if isinstance(error, psycopg.OperationalError):
            server.leave_alone(error)
        return "unreachable"
    if row is not None:
        record_generation(Stamp(*row), is_primary=server.name == "primary")
    return "ok"


def readiness(databases: Databases, redis: Redis, record_generation: RecordGeneration) -> tuple[bool, dict[str, str]]:
    """Check whether this process can serve requests.

    The state of Redis is reported but not required: without Redis, responses are computed from the database.

    Args:
        databases: The databases; one reachable server is enough.
        redis: Its state is the one that the latest requests found; a health check does not wait for Redis.
        record_generation: Called with each server's generation, so that a pod without requests follows publications.

    Returns:
        Whether to send requests here, and the result of each check.
    """
    servers = {server.name: _check(server, record_generation) for server in databases.servers}
    checks = {
        "server": "draining" if is_draining() else "ok",
        **servers,
        "redis (not needed)": redis.state,
    }
    return not is_draining() and "ok" in servers.values(), checks
