"""Can this process serve? What load balancers and kubelets ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from rates_app.ops.draining import is_draining

if TYPE_CHECKING:
    from rates_app.cache.redis import Redis
    from rates_app.store.databases import Databases, Server


def _answers(server: Server) -> str:
    if server.left_alone:
        return "unreachable"
    try:
        with server.connection() as connection:
            connection.execute("SELECT 1 FROM generation")
    except psycopg.errors.UndefinedTable:
        return "not migrated: run 'rates migrate'"
    except psycopg.Error as error:
        if isinstance(error, psycopg.OperationalError):
            server.leave_alone(error)
        return "unreachable"
    return "ok"


def readiness(databases: Databases, redis: Redis) -> tuple[bool, dict[str, str]]:
    """Check what a request needs.

    Redis is told of and not needed: without it answers come from the database.

    Args:
        databases: One server that answers is enough.
        redis: Its state as the last requests found it; a health check does not wait for it.

    Returns:
        Whether to send requests here, and each check's result.
    """
    servers = {server.name: _answers(server) for server in databases.servers}
    checks = {
        "server": "draining" if is_draining() else "ok",
        **servers,
        "redis (not needed)": redis.state,
    }
    return not is_draining() and "ok" in servers.values(), checks
