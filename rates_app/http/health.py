"""Can this process serve? What load balancers and kubelets ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import psycopg

from rates_app.cache.versions import Stamp
from rates_app.http.draining import is_draining

if TYPE_CHECKING:
    from rates_app.cache.redis import Redis
    from rates_app.store.databases import Databases, Server


class Note(Protocol):
    """Takes the generation that was read from a server."""

    def __call__(self, newest: Stamp, *, is_primary: bool) -> None:
        """Record a generation, as ``Reads.note`` does."""


def _answers(server: Server, note: Note) -> str:
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
        note(Stamp(*row), is_primary=server.name == "primary")
    return "ok"


def readiness(databases: Databases, redis: Redis, note: Note) -> tuple[bool, dict[str, str]]:
    """Check what a request needs.

    Redis is told of and not needed: without it answers come from the database.

    Args:
        databases: One server that answers is enough.
        redis: Its state as the last requests found it; a health check does not wait for it.
        note: Takes each server's generation, so that a pod which nobody asks yet knows of publishes, too.

    Returns:
        Whether to send requests here, and each check's result.
    """
    servers = {server.name: _answers(server, note) for server in databases.servers}
    checks = {
        "server": "draining" if is_draining() else "ok",
        **servers,
        "redis (not needed)": redis.state,
    }
    return not is_draining() and "ok" in servers.values(), checks
