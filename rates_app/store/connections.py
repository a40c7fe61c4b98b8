"""Connections to PostgreSQL with timeouts on both sides, for all processes.

A server that hangs (a stopped process, a frozen host, unresponsive storage) keeps its TCP connections alive: neither
keepalives nor its own timeouts end a statement. So the client probes the server while it waits.
"""

from __future__ import annotations

import socket
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import psycopg
from psycopg.rows import TupleRow

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from rates_app.settings import Pooling, Settings

Value = TypeVar("Value")

#: The request for TLS, which a server answers with one byte before any login (PostgreSQL documentation, "Message
#: Formats", SSLRequest).
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)

#: Timeouts that the server applies, in milliseconds.
LOCK_TIMEOUT_MS = 30_000
IDLE_IN_TRANSACTION_TIMEOUT_MS = 300_000


class ServerHangs(psycopg.OperationalError):
    """The server accepts connections but does not respond: its processes or its host are stopped."""


def _always() -> bool:
    return True


@dataclass
class Health:
    """Whether a server hangs, shared by its connections: all stop waiting when one detects it."""

    #: Seconds without a response to a statement after which the server is probed, and the timeout of the probe. Batches
    #: can wait, and a busy machine must not be mistaken for one that hangs.
    doubt_seconds: float = 10.0
    probe_seconds: float = 10.0
    #: Maximum duration of a statement: the server's own timeout and a margin. No limit if None.
    limit_seconds: float | None = None
    #: Whether another server could respond; if not, a statement gets its full time.
    alternative: Callable[[], bool] = _always
    hangs: bool = False

    def probe(self, host: str, port: int) -> bool:
        """Return whether the server responds; if not, record that it hangs."""
        if self.alternative() and not responds(host, port, self.probe_seconds):
            self.hangs = True
        return not self.hangs


class GuardedConnection(psycopg.Connection[TupleRow]):
    """A connection whose statements end when the server hangs."""

    #: Shared by all connections of a pool; None outside a pool.
    shared_health: ClassVar[Health | None] = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._health = self.shared_health or Health()

    @classmethod
    def connect(cls, conninfo: str = "", **parameters: Any) -> Self:
        """Connect as psycopg does; a server that accepts the connection but not the login hangs.

        Args:
            conninfo: The server.
            parameters: Parameters of libpq and psycopg; ``server_settings`` are PostgreSQL's, for the session.
        """
        server_settings: Mapping[str, int] | None = parameters.pop("server_settings", None)
        try:
            connection = super().connect(conninfo, **parameters)
        except psycopg.errors.ConnectionTimeout:
            if cls.shared_health is not None:
                cls.shared_health.hangs = True
            raise
        if server_settings:
            try:
                connection._set(server_settings)
            except BaseException:
                connection.close()
                raise
        return connection

    def _set(self, settings: Mapping[str, int]) -> None:
        """Set parameters for the session by a statement: RDS Proxy and PgBouncer refuse ``options`` at the login."""
        autocommit = self.autocommit
        self.autocommit = True  # within a transaction, a rollback would revert them
        self.execute(
            "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS setting (name, value)",
            (list(settings), [str(value) for value in settings.values()]),
        )
        self.autocommit = autocommit

    def wait(self, gen: Generator[Any, Any, Value], *arguments: Any, **options: Any) -> Value:
        """Wait for the server as psycopg does, and probe it when it does not respond."""
        return super().wait(self._watch(gen), *arguments, **options)

    def _watch(self, steps: Generator[Any, Any, Value]) -> Generator[Any, Any, Value]:
        began = probed = time.monotonic()
        health = self._health
        try:
            state = next(steps)
            while True:
                ready = yield state
                if not ready:  # a tenth of a second without a response
                    now = time.monotonic()
                    if health.hangs or (health.limit_seconds is not None and now - began > health.limit_seconds):
                        self._give_up()
                    if now - probed > health.doubt_seconds:
                        if not health.probe(self.info.hostaddr or self.info.host, self.info.port):
                            self._give_up()
                        probed = time.monotonic()
                state = steps.send(ready)
        except StopIteration as end:
            value: Value = end.value
            return value

    def _give_up(self) -> None:
        server = f"{self.info.host}:{self.info.port}"
        self.pgconn.finish()  # a statement is in progress, so the connection is unusable
        raise ServerHangs(f"{server} accepts connections but does not respond")


def responds(host: str, port: int, seconds: float) -> bool:
    """Return whether a server responds, without logging in.

    Args:
        host: Its address, or the folder of its Unix socket.
        port: Its port.
        seconds: Timeout of the connection, and of the response.
    """
    local = host.startswith("/")
    address: Any = f"{host}/.s.PGSQL.{port}" if local else (host, port)
    try:
        with socket.socket(socket.AF_UNIX if local else _family(host)) as probe:
            probe.settimeout(seconds)
            probe.connect(address)
            probe.sendall(_SSL_REQUEST)
            return bool(probe.recv(1))
    except TimeoutError:
        return False
    except OSError:
        return True  # refused or reset: the server is gone, which the connection itself detects


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def limits(
    name: str,
    *,
    statement_seconds: float | None = None,
    lock_timeout_ms: int = LOCK_TIMEOUT_MS,
    pooling: Pooling = "session",
) -> dict[str, Any]:
    """Return the parameters of all connections.

    Args:
        name: The application's name in the server's statistics.
        statement_seconds: Statement timeout; None for no timeout, as for statements on whole batches.
        lock_timeout_ms: Lock timeout.
        pooling: The mode of the pooler at this address. In transaction mode, a connection must leave no state on the
            server: no settings, which the pooler makes instead, and no prepared statements.
    """
    parameters: dict[str, Any] = {
        "application_name": name,
        "connect_timeout": 2,  # libpq's minimum
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
    }
    if pooling == "transaction":
        return parameters | {"prepare_threshold": None}
    settings = {
        "lock_timeout": lock_timeout_ms,
        "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_TIMEOUT_MS,
        # With these, the server rolls back the transaction of a disconnected client and releases its locks.
        "tcp_keepalives_idle": 5,
        "tcp_keepalives_interval": 2,
        "tcp_keepalives_count": 3,
        "tcp_user_timeout": 10_000,
    }
    if statement_seconds is not None:
        settings["statement_timeout"] = int(statement_seconds * 1000)
    return parameters | {"server_settings": settings}


def connect(
    url: str,
    name: str,
    *,
    autocommit: bool = False,
    statement_seconds: float | None = None,
    lock_timeout_ms: int = LOCK_TIMEOUT_MS,
    pooling: Pooling = "session",
) -> GuardedConnection:
    """Connect outside a pool, for workers, drivers and commands.

    Args:
        url: The server.
        name: The application's name in the server's statistics.
        autocommit: Whether each statement is a separate transaction.
        statement_seconds: Statement timeout; None for no timeout.
        lock_timeout_ms: Lock timeout.
        pooling: The mode of the pooler at this address, as in :func:`limits`.

    Raises:
        psycopg.OperationalError: The server is unreachable.
    """
    parameters = limits(name, statement_seconds=statement_seconds, lock_timeout_ms=lock_timeout_ms, pooling=pooling)
    return GuardedConnection.connect(url, autocommit=autocommit, **parameters)


def connect_operator(settings: Settings) -> GuardedConnection:
    """Connect to the primary for a command, with the login of operators.

    Args:
        settings: The server and its logins.

    Raises:
        psycopg.OperationalError: The server is unreachable.
    """
    return connect(settings.database_url_of("operator"), "rates-cli")
