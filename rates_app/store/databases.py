"""The primary and its replicas behind two functions: ``write`` and ``read``.

A write is sent to the primary once and never retried blindly. A read is sent to a replica, and to the next server if
that one fails, is busy, or has not replayed a generation that the client may already have seen.

PostgreSQL's error codes classify errors. A server that is *lost* or *hangs* gets no requests until a separate thread
has reached it again. A server that is *busy* (a lock, a deadlock, a full disk, too many connections) still responds to
other requests, so it stays in use.
"""

from __future__ import annotations

import itertools
import threading
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import psycopg
import structlog
from prometheus_client import Counter
from psycopg_pool import ConnectionPool, PoolTimeout

from rates_app.store.connections import GuardedConnection, Health, ServerHangs, limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg.rows import TupleRow

    from rates_app.settings import Settings

    Connection = psycopg.Connection[TupleRow]

Result = TypeVar("Result")

log = structlog.get_logger()

READS = Counter("rates_database_reads", "Reads by server and result.", ["server", "result"])

#: After the first time without a response, a connection probes the server. The second is the timeout of the probe.
#: Together they are less than RATES_SHED_SECONDS: requests that wait meanwhile must not be refused.
DOUBT_SECONDS = 0.3
PROBE_SECONDS = 0.5
#: The server cancels a statement at RATES_QUERY_TIMEOUT_SECONDS. A server that does not is considered to hang after
#: this margin.
LIMIT_MARGIN_SECONDS = 1.0
#: A replica that replays an exclusive lock blocks its readers: they try the next server after this time.
REPLICA_LOCK_TIMEOUT_MS = 500
#: The primary is the last server for a read, and a write may have to wait for another one.
PRIMARY_LOCK_TIMEOUT_MS = 3_000
#: How long a busy server is used only if no other server is left.
BUSY_SECONDS = 1.0


class Unavailable(Exception):
    """No server is available; a retry may succeed."""


class Busy(Unavailable):
    """The server works but cannot do this now: a lock, a conflict, a full disk. Nothing was written."""


class QueryTooSlow(Unavailable):
    """A query exceeded its timeout (``RATES_QUERY_TIMEOUT_SECONDS``)."""


class Stale(Exception):
    """A replica has not replayed the generation that a read needs; raised by the read itself."""


def is_busy(error: psycopg.Error) -> bool:
    """Return whether an error is a refusal of a server that works, by its error code (PostgreSQL, appendix A).

    A lost connection has no code, or one of the classes 08 and 57 (a shutdown by an operator or by the server).
    """
    code = error.sqlstate or ""
    # Transaction rolled back, insufficient resources, object in use, system error (I/O).
    return code[:2] in {"40", "53", "55", "58"}


#: Codes by which PostgreSQL reports that its own state, and not the statement, is the cause (appendix A): a server that
#: is read-only after a failover, a missing privilege, and damaged tables and indexes.
_SERVER_STATE_CODES = {"25006", "42501", "XX001", "XX002"}
#: The same by class: a lost connection, a rolled back transaction, a full disk or too many connections, a lock that
#: is not free, an intervention by an operator, and a failure of the system such as an I/O error.
_SERVER_STATE_CLASSES = {"08", "40", "53", "55", "57", "58"}


def is_server_fault(error: psycopg.Error) -> bool:
    """Return whether the state of the server is the cause, so that the same statement succeeds once it is repaired.

    Args:
        error: An error of a statement or of a connection.
    """
    if error.sqlstate is None:  # the server could not be reached, or refused the connection
        return isinstance(error, psycopg.OperationalError)
    return error.sqlstate in _SERVER_STATE_CODES or error.sqlstate[:2] in _SERVER_STATE_CLASSES


class Server:
    """A PostgreSQL server and a process's connections to it.

    Args:
        name: Its name in metrics and logs.
        url: Its address.
        settings: Limits of connections, and timeouts.
        alternative: Returns whether another server could serve reads.
        read_only: Whether it is a replica.
    """

    def __init__(
        self, name: str, url: str, settings: Settings, alternative: Callable[[], bool], *, read_only: bool = False
    ) -> None:
        self.name = name
        self._url = url
        self._retry_seconds = settings.replica_retry_seconds
        self._health = Health(
            DOUBT_SECONDS, PROBE_SECONDS, settings.query_timeout_seconds + LIMIT_MARGIN_SECONDS, alternative
        )
        self._reachable = False
        self._left_alone_until = 0.0
        self._busy_until = 0.0
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._recovery: threading.Thread | None = None
        self._options: dict[str, Any] = limits(
            f"rates-{settings.environment}",
            statement_seconds=settings.query_timeout_seconds,
            lock_timeout_ms=REPLICA_LOCK_TIMEOUT_MS if read_only else PRIMARY_LOCK_TIMEOUT_MS,
            pooling=settings.replica_pooling if read_only else "session",
        )
        self._timeout = settings.pool_timeout_seconds
        self.pool: ConnectionPool[GuardedConnection] = ConnectionPool(
            url,
            connection_class=type("ServerConnection", (GuardedConnection,), {"shared_health": self._health}),
            name=name,
            min_size=0,
            max_size=settings.pool_size,
            open=False,
            configure=_read_only if read_only else None,
            kwargs=self._options,
        )

    @property
    def left_alone(self) -> bool:
        """Whether the server failed recently or hangs, and should get no requests."""
        return self._health.hangs or time.monotonic() < self._left_alone_until

    @property
    def hangs(self) -> bool:
        """Whether the server accepts connections but does not respond."""
        return self._health.hangs

    @property
    def order(self) -> tuple[bool, bool]:
        """Sort key: healthy servers, then busy ones, then those that failed."""
        return self.left_alone, time.monotonic() < self._busy_until

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lend a connection for one transaction.

        Raises:
            psycopg.OperationalError: The server cannot be reached, or no connection came free in time.
        """
        if self._health.hangs:
            raise ServerHangs(f"{self.name} does not respond; a thread probes it until it does")
        if not self._reachable:
            # A pool waits its whole timeout for a server that is down. A direct connection is refused immediately.
            GuardedConnection.connect(self._url, **self._options).close()
            self.pool.check()
            self._reachable = True
        with ExitStack() as lent:
            yield self._lend(lent)

    def _lend(self, lent: ExitStack) -> Connection:
        """Wait for a connection of the pool, until its timeout or until the server is found to hang."""
        deadline = time.monotonic() + self._timeout
        while True:
            remaining = deadline - time.monotonic()
            try:
                return lent.enter_context(self.pool.connection(timeout=max(0.0, min(remaining, DOUBT_SECONDS))))
            except PoolTimeout:
                if self._health.hangs:
                    raise ServerHangs(f"{self.name} does not respond") from None
                if remaining <= DOUBT_SECONDS:
                    raise

    def close(self) -> None:
        """Close the pool, and stop the thread that waits for the server's recovery."""
        self._closed.set()
        self.pool.close()
        if self._recovery is not None:
            self._recovery.join()

    def leave_alone(self, error: psycopg.OperationalError) -> None:
        """Record a failure: for ``RATES_REPLICA_RETRY_SECONDS``, the server is used only if no other is left.

        If it hangs, it gets no requests at all, because each would wait for a timeout. A thread probes it until it
        responds.
        """
        if isinstance(error, PoolTimeout):
            return  # all connections are in use; the server itself works
        if is_busy(error):
            self._busy_until = time.monotonic() + BUSY_SECONDS
            log.warning("database_busy", server=self.name, code=error.sqlstate, error=_first_line(error))
            return
        self._reachable = False
        self._left_alone_until = time.monotonic() + self._retry_seconds
        if isinstance(error, ServerHangs | psycopg.errors.ConnectionTimeout):
            self._await_recovery()
        log.warning("database_unreachable", server=self.name, error=_first_line(error))

    def read(self, read: Callable[[Connection], Result]) -> Result:
        """Run a read; retry it once on a new connection if the connection was lost.

        Raises:
            psycopg.OperationalError: The server is unreachable or busy.
            QueryTooSlow: The read exceeded its timeout.
        """
        try:
            try:
                with self.connection() as connection:
                    return read(connection)
            except (psycopg.errors.QueryCanceled, PoolTimeout, ServerHangs):
                raise
            except psycopg.OperationalError as error:
                if is_busy(error):
                    raise
                self._reachable = False  # the other connections were probably lost with it
                with self.connection() as connection:
                    return read(connection)
        except psycopg.errors.QueryCanceled as error:
            raise QueryTooSlow("the query exceeded its timeout") from error
        except psycopg.OperationalError as error:
            self.leave_alone(error)
            raise

    def _await_recovery(self) -> None:
        with self._lock:
            self._health.hangs = True
            if self._recovery is None or not self._recovery.is_alive():
                self._recovery = threading.Thread(target=self._recover, name=f"{self.name}-recovery", daemon=True)
                self._recovery.start()

    def _recover(self) -> None:
        """Try to log in until the server responds; then let requests use it again."""
        while not self._closed.wait(self._retry_seconds):
            try:
                with GuardedConnection.connect(self._url, **self._options) as connection:
                    connection.execute("SELECT 1")
            except psycopg.Error:
                continue
            with self._lock:
                self._health.hangs = False
                self._recovery = None
            log.info("database_recovered", server=self.name)
            return


def _read_only(connection: Connection) -> None:
    """Make every transaction read-only with one snapshot, without a separate statement."""
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.read_only = True


def _first_line(error: psycopg.Error) -> str:
    return str(error).strip().partition("\n")[0]


class Databases:
    """The primary and the replicas of one stack, for one process.

    Args:
        settings: Addresses of the servers, limits of connections, and timeouts.
    """

    def __init__(self, settings: Settings) -> None:
        urls = {"primary": settings.database_url_of("serving")}
        urls |= {f"replica-{number}": url.get_secret_value() for number, url in enumerate(settings.replica_urls, 1)}
        self.primary, *self.replicas = (
            Server(name, url, settings, partial(self._has_other, name), read_only=name != "primary")
            for name, url in urls.items()
        )
        self._turn = itertools.count()

    def _has_other(self, name: str) -> bool:
        return any(server.name != name and not server.left_alone for server in self.servers)

    def open(self) -> None:
        """Start the pools. Call it after a fork. Connections are opened when they are needed."""
        for server in self.servers:
            server.pool.open()

    def close(self) -> None:
        """Close all connections."""
        for server in self.servers:
            server.close()

    @property
    def servers(self) -> list[Server]:
        """Every server: the primary, then the replicas."""
        return [self.primary, *self.replicas]

    def read(
        self, read: Callable[[Connection], Result], *, prefer: Literal["replica", "primary"] = "replica"
    ) -> Result:
        """Run a read on the first server that can serve it, as :meth:`read_from` does."""
        return self.read_from(read, prefer=prefer)[0]

    def read_from(
        self, read: Callable[[Connection], Result], *, prefer: Literal["replica", "primary"] = "replica"
    ) -> tuple[Result, str]:
        """Run a read on the first server that can serve it, and return the server's name, too.

        Args:
            read: Runs the queries on the given connection. It may run again on another connection, so it must not
                write. It raises :class:`Stale` if the server's data is too old.
            prefer: The kind of server to use first; the other kind is used if that fails.

        Returns:
            The result of ``read``, and the server's name.

        Raises:
            Unavailable: No server could serve the read.
            QueryTooSlow: The read exceeded its timeout; it would on another server, too, so none is tried.
        """
        turn = next(self._turn)
        replicas = [self.replicas[(turn + i) % len(self.replicas)] for i in range(len(self.replicas))]
        order = [*replicas, self.primary] if prefer == "replica" else [self.primary, *replicas]
        # Servers that failed recently are tried last.
        for server in sorted(order, key=lambda server: server.order):
            try:
                result = server.read(read)
            except Stale:
                READS.labels(server.name, "stale").inc()
            except QueryTooSlow:
                READS.labels(server.name, "timeout").inc()
                raise
            except psycopg.OperationalError as error:
                READS.labels(server.name, "busy" if is_busy(error) else "error").inc()
            else:
                READS.labels(server.name, "ok").inc()
                return result, server.name
        raise Unavailable("no database is available")

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction on the primary; it commits when the block ends, and rolls back on an exception.

        Raises:
            Busy: The primary is busy; nothing was written.
            Unavailable: The primary is unreachable, was lost, or is a standby that waits for its promotion. Nothing was
                written, unless it was lost during the commit.
        """
        try:
            if not self.primary.hangs:
                self.primary.pool.check()  # a write is never retried, so it must not start on a dead connection
            with self.primary.connection() as connection, connection.transaction():
                connection.execute("SELECT 1")
                yield connection
        except psycopg.errors.ReadOnlySqlTransaction as error:
            raise Unavailable("the database is a standby that waits for its promotion") from error
        except psycopg.OperationalError as error:
            self.primary.leave_alone(error)
            if is_busy(error):
                raise Busy(f"the database is busy ({_first_line(error)}): nothing was written; try again") from error
            raise Unavailable("the primary database is unreachable") from error
