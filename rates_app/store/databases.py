"""The primary and its replicas behind two calls: ``write`` and ``read``.

A write goes to the primary, once: it is never repeated blindly. A read goes to a replica, and to the next server
when one fails or has not replayed what the reader may already have seen; each server's dead connections are
replaced and the read tried once more before it is left alone for a while.
"""

from __future__ import annotations

import itertools
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import psycopg
import structlog
from prometheus_client import Counter
from psycopg_pool import ConnectionPool, PoolTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg.rows import TupleRow

    from rates_app.settings import Settings

    Connection = psycopg.Connection[TupleRow]

Result = TypeVar("Result")

log = structlog.get_logger()

READS = Counter("rates_database_reads", "Reads by the server that was asked.", ["server", "result"])


class Unavailable(Exception):
    """No server could answer; trying again in a moment may work."""


class QueryTooSlow(Unavailable):
    """A query ran into its deadline (``RATES_QUERY_TIMEOUT_SECONDS``)."""


class Stale(Exception):
    """A replica has not replayed the generation that a read needs; raised by the read itself."""


class Server:
    """One PostgreSQL server and the connections a process keeps to it."""

    def __init__(self, name: str, url: str, settings: Settings, *, read_only: bool = False) -> None:
        self.name = name
        self._url = url
        self._retry_seconds = settings.replica_retry_seconds
        self._reachable = False
        self._left_alone_until = 0.0
        self._options: dict[str, Any] = {
            "connect_timeout": 3,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 10_000,
            "application_name": f"rates-{settings.environment}",
            "options": f"-c statement_timeout={int(settings.query_timeout_seconds * 1000)}",
        }
        self.pool: ConnectionPool[Connection] = ConnectionPool(
            url,
            name=name,
            min_size=0,
            max_size=settings.pool_size,
            timeout=settings.pool_timeout_seconds,
            open=False,
            configure=_read_only if read_only else None,
            kwargs=self._options,
        )

    @property
    def left_alone(self) -> bool:
        """Whether the server failed a moment ago and is given time to recover."""
        return time.monotonic() < self._left_alone_until

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lend a connection for one transaction.

        Raises:
            psycopg.OperationalError: The server cannot be reached, or no connection came free in time.
        """
        if not self._reachable:
            # A pool waits its whole timeout for a server that is down; a connection of our own is refused at once.
            psycopg.connect(self._url, **self._options).close()
            self.pool.check()
            self._reachable = True
        with self.pool.connection() as connection:
            yield connection

    def leave_alone(self, error: psycopg.OperationalError) -> None:
        """Note a failure: the server goes to the end of the line for ``RATES_REPLICA_RETRY_SECONDS``."""
        if isinstance(error, PoolTimeout):
            return  # every connection is busy: the server itself is well
        self._reachable = False
        self._left_alone_until = time.monotonic() + self._retry_seconds
        log.warning("database unreachable", server=self.name, error=str(error).strip().splitlines()[:1])

    def read(self, read: Callable[[Connection], Result]) -> Result:
        """Run a read, a second time on a fresh connection when the first was lost.

        Raises:
            psycopg.OperationalError: The server cannot be reached.
            QueryTooSlow: The read ran into its deadline.
        """
        try:
            try:
                with self.connection() as connection:
                    return read(connection)
            except (psycopg.errors.QueryCanceled, PoolTimeout):
                raise
            except psycopg.OperationalError:
                self._reachable = False  # the other connections were probably lost with it
                with self.connection() as connection:
                    return read(connection)
        except psycopg.errors.QueryCanceled as error:
            raise QueryTooSlow("the query took longer than it may") from error
        except psycopg.OperationalError as error:
            self.leave_alone(error)
            raise


def _read_only(connection: Connection) -> None:
    """Begin every transaction as a read of one snapshot, without a word for it on the wire."""
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.read_only = True


class Databases:
    """The primary and the replicas of one stack, for one process.

    Args:
        settings: Where the servers are, and the limits on connections and time.
    """

    def __init__(self, settings: Settings) -> None:
        self.primary = Server("primary", settings.database_url.get_secret_value(), settings)
        self.replicas = [
            Server(f"replica-{number}", url.get_secret_value(), settings, read_only=True)
            for number, url in enumerate(settings.replica_urls, start=1)
        ]
        self._turn = itertools.count()

    def open(self) -> None:
        """Start the pools; call it after a fork, not before. Connections are made when they are needed."""
        for server in self.servers:
            server.pool.open()

    def close(self) -> None:
        """Give every connection back to its server."""
        for server in self.servers:
            server.pool.close()

    @property
    def servers(self) -> list[Server]:
        """Every server: the primary, then the replicas."""
        return [self.primary, *self.replicas]

    def read(
        self, read: Callable[[Connection], Result], *, prefer: Literal["replica", "primary"] = "replica"
    ) -> Result:
        """Answer a read from the first server that can, as :meth:`read_from` does."""
        return self.read_from(read, prefer=prefer)[0]

    def read_from(
        self, read: Callable[[Connection], Result], *, prefer: Literal["replica", "primary"] = "replica"
    ) -> tuple[Result, str]:
        """Answer a read from the first server that can, and say which it was.

        Args:
            read: Runs the queries on the connection it is given. It may run again on another, so it only reads;
                it raises :class:`Stale` where the server's data is too old for it.
            prefer: Which to ask first; the other kind is asked when it cannot answer.

        Returns:
            What ``read`` returns, and the server's name.

        Raises:
            Unavailable: No server could answer.
            QueryTooSlow: A server ran into the deadline; another would too, so none is asked.
        """
        turn = next(self._turn)
        replicas = [self.replicas[(turn + i) % len(self.replicas)] for i in range(len(self.replicas))]
        order = [*replicas, self.primary] if prefer == "replica" else [self.primary, *replicas]
        # Servers that failed a moment ago go last: when no other is left they are the only hope.
        for server in sorted(order, key=lambda server: server.left_alone):
            try:
                result = server.read(read)
            except Stale:
                READS.labels(server.name, "stale").inc()
            except QueryTooSlow:
                READS.labels(server.name, "timeout").inc()
                raise
            except psycopg.OperationalError:
                READS.labels(server.name, "error").inc()
            else:
                READS.labels(server.name, "ok").inc()
                return result, server.name
        raise Unavailable("no database can answer at the moment")

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open one transaction on the primary; it commits when the block ends and rolls back when it raises.

        Raises:
            Unavailable: The primary could not be reached, was lost, or is a standby that waits for its promotion;
                unless it was lost in the very moment of the commit, nothing was written.
        """
        try:
            self.primary.pool.check()  # a write is never repeated, so it does not start on a dead connection
            with self.primary.connection() as connection, connection.transaction():
                connection.execute("SELECT 1")
                yield connection
        except psycopg.errors.ReadOnlySqlTransaction as error:
            raise Unavailable("the database is a standby that waits for its promotion") from error
        except psycopg.OperationalError as error:
            self.primary.leave_alone(error)
            raise Unavailable("the primary database cannot be reached") from error
