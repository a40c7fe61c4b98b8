"""The connection that a dispatcher and its workers keep between tasks.

A small batch takes about as long as the logins of its tasks, and each new session of the server begins without the
descriptions of the tables that it uses.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from rates_app.store.connections import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rates_app.store.databases import Connection

#: Maximum age of a kept connection. After it, a new one follows a failover and a rotated login, and the server frees
#: what its process has cached about the tables of earlier batches.
MAX_AGE_SECONDS = 60.0


@dataclass
class _Kept:
    """An idle connection."""

    connection: Connection
    url: str
    opened_at: float


@dataclass
class _Process:
    """What this process keeps."""

    keeps: bool = False
    idle: _Kept | None = None


_process = _Process()


def keep_connections() -> None:
    """Keep this process's connection between tasks from now on.

    Only for a process that runs one task at a time: tasks in several threads would take each other's connection.
    """
    _process.keeps = True


@contextmanager
def task_connection(url: str, name: str) -> Iterator[Connection]:
    """Return a connection for one task: the kept one if it works, otherwise a new one.

    As with a connection of psycopg, the transaction is committed at the end of the block and rolled back by an error,
    which closes the connection.

    Args:
        url: The server.
        name: The task's name in the server's statistics.

    Raises:
        psycopg.OperationalError: The server is unreachable.
    """
    kept = _reuse(url, name) or _Kept(connect(url, name), url, time.monotonic())
    try:
        yield kept.connection
        if not kept.connection.closed:
            kept.connection.commit()
    except BaseException:
        kept.connection.close()
        raise
    if _process.keeps and _process.idle is None and not kept.connection.closed:
        _process.idle = kept
    else:
        kept.connection.close()


def _reuse(url: str, name: str) -> _Kept | None:
    """Return the kept connection, if it is to this server, young enough, and still works."""
    kept, _process.idle = _process.idle, None
    if kept is None:
        return None
    if kept.url == url and time.monotonic() - kept.opened_at < MAX_AGE_SECONDS:
        try:
            kept.connection.execute("SELECT set_config('application_name', %s, false)", (name,))
            kept.connection.commit()
        except psycopg.OperationalError:
            pass  # the server has closed it since the last task
        else:
            return kept
    kept.connection.close()
    return None
