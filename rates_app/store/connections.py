"""Connections to PostgreSQL with limits on both sides, for every process that makes one.

A server that hangs (a stopped process, a frozen host, storage that no longer answers) keeps its TCP connections alive:
neither keepalives nor its own timeouts end a statement. So this side looks at the server whenever it waits.
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
    from collections.abc import Callable, Generator

Value = TypeVar("Value")

#: The request whether a server speaks TLS, which it answers by one byte before any login (PostgreSQL documentation,
#: "Message Formats", SSLRequest).
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)

#: Limits that the server applies. Milliseconds, as PostgreSQL counts them.
LOCK_TIMEOUT_MS = 30_000
IDLE_IN_TRANSACTION_TIMEOUT_MS = 300_000


class ServerHangs(psycopg.OperationalError):
    """The server accepts connections and does not answer: its processes or its host are stopped."""


def _always() -> bool:
    return True


@dataclass
class Health:
    """Whether a server hangs, for all connections that share this: they stop waiting when one finds out."""

    #: Seconds without an answer to a statement before the server itself is examined, and in which it has to answer
    #: then. Batches can wait: a busy machine must not be taken for one that hangs.
    doubt_seconds: float = 10.0
    probe_seconds: float = 10.0
    #: Seconds that a statement may take in all: the server's own limit and a margin. No limit if None.
    limit_seconds: float | None = None
    #: Whether another server could answer; if not, a statement has its full time.
    alternative: Callable[[], bool] = _always
    hangs: bool = False

    def examine(self, host: str, port: int) -> bool:
        """Return whether the server answers; if not, record that it hangs."""
        if self.alternative() and not responds(host, port, self.probe_seconds):
            self.hangs = True
        return not self.hangs


class GuardedConnection(psycopg.Connection[TupleRow]):
    """A connection whose statements end when the server hangs."""

    #: Shared by all connections of a pool; None for one that stands alone.
    shared_health: ClassVar[Health | None] = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._health = self.shared_health or Health()

    @classmethod
    def connect(cls, conninfo: str = "", **parameters: Any) -> Self:
        """Connect as psycopg does; a server that accepts a connection and no login hangs."""
        try:
            return super().connect(conninfo, **parameters)
        except psycopg.errors.ConnectionTimeout:
            if cls.shared_health is not None:
                cls.shared_health.hangs = True
            raise

    def wait(self, gen: Generator[Any, Any, Value], *arguments: Any, **options: Any) -> Value:
        """Wait for the server as psycopg does, and examine it when it is silent."""
        return super().wait(self._watch(gen), *arguments, **options)

    def _watch(self, steps: Generator[Any, Any, Value]) -> Generator[Any, Any, Value]:
        began = examined = time.monotonic()
        health = self._health
        try:
            state = next(steps)
            while True:
                ready = yield state
                if not ready:  # a tenth of a second without an answer
                    now = time.monotonic()
                    if health.hangs or (health.limit_seconds is not None and now - began > health.limit_seconds):
                        self._give_up()
                    if now - examined > health.doubt_seconds:
                        if not health.examine(self.info.hostaddr or self.info.host, self.info.port):
                            self._give_up()
                        examined = time.monotonic()
                state = steps.send(ready)
        except StopIteration as end:
            value: Value = end.value
            return value

    def _give_up(self) -> None:
        server = f"{self.info.host}:{self.info.port}"
        self.pgconn.finish()  # a statement is under way, so the connection cannot be used any more
        raise ServerHangs(f"{server} accepts connections but does not answer")


def responds(host: str, port: int, seconds: float) -> bool:
    """Return whether a server answers at all, without logging in.

    Args:
        host: Its address, or the folder of its Unix socket.
        port: Its port.
        seconds: How long to wait for the connection, and then for the answer.
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
        return True  # refused or reset: the server is gone, which the connection itself finds out


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def limits(
    name: str, *, statement_seconds: float | None = None, lock_timeout_ms: int = LOCK_TIMEOUT_MS
) -> dict[str, Any]:
    """Return the parameters that every connection has.

    Args:
        name: The application's name in the server's statistics.
        statement_seconds: Time of a statement; no limit if None, as for statements that handle whole batches.
        lock_timeout_ms: How long a statement waits for a lock.
    """
    options = {
        "lock_timeout": lock_timeout_ms,
        "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_TIMEOUT_MS,
        # The server's side: it rolls back the transaction of a client that was cut off, and releases its locks.
        "tcp_keepalives_idle": 5,
        "tcp_keepalives_interval": 2,
        "tcp_keepalives_count": 3,
        "tcp_user_timeout": 10_000,
    }
    if statement_seconds is not None:
        options["statement_timeout"] = int(statement_seconds * 1000)
    return {
        "application_name": name,
        "connect_timeout": 2,  # the least that libpq knows
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
        "options": " ".join(f"-c {option}={value}" for option, value in options.items()),
    }


def connect(
    url: str,
    name: str,
    *,
    autocommit: bool = False,
    statement_seconds: float | None = None,
    lock_timeout_ms: int = LOCK_TIMEOUT_MS,
) -> GuardedConnection:
    """Connect outside of a pool, as workers, drivers and commands do.

    Args:
        url: The server.
        name: The application's name in the server's statistics.
        autocommit: Whether each statement is a transaction of its own.
        statement_seconds: Time of a statement; no limit if None.
        lock_timeout_ms: How long a statement waits for a lock.

    Raises:
        psycopg.OperationalError: The server cannot be reached.
    """
    parameters = limits(name, statement_seconds=statement_seconds, lock_timeout_ms=lock_timeout_ms)
    return GuardedConnection.connect(url, autocommit=autocommit, **parameters)
