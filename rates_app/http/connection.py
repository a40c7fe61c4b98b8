"""A client's connection: received and unsent bytes, and the client's deadlines.

A connection belongs to the event loop while it waits for the client, and to one thread while a request is handled. It
never belongs to both, so nothing here needs a lock.
"""

from __future__ import annotations

import contextvars
import enum
import select
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gunicorn.http.errors import InvalidHeader
from gunicorn.http.parser import RequestParser
from werkzeug.exceptions import RequestTimeout

from rates_app.http.exchange import Exchange

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

#: Maximum size of a request's head; a longer head is refused with 431.
MAX_HEAD_BYTES = 64 * 2**10
RECEIVE_BYTES = 64 * 2**10

#: A body up to this size, such as a form, is received by the event loop and needs no upload thread.
MAX_BUFFERED_BODY_BYTES = 16 * 2**10

#: Buffer of a streamed response. Generation stops when the client is this far behind.
MAX_UNSENT_BYTES = 64 * 2**10

#: Buffers per call of sendmsg; POSIX guarantees 16, Linux accepts 1024.
_PARTS_PER_SEND = 64


class ConnectionState(enum.Enum):
    """The state of a connection."""

    #: Waits for the rest of a request's head or small body; a new connection starts here.
    HEAD = enum.auto()
    #: Waits for the next request.
    IDLE = enum.auto()
    #: Waits for a thread, or a thread handles it.
    HANDLED = enum.auto()
    #: Waits until the client reads more of the response.
    SENDING = enum.auto()
    #: Waits for the end of a pause in a streamed response.
    PAUSED = enum.auto()
    #: Waits until the client closes its side, after the response.
    LINGERING = enum.auto()


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits of slow clients.

    Attributes:
        seconds: Time for a request's head, and maximum time without progress in a request or response body.
        bytes_per_second: Minimum average rate of a body after that time.
    """

    seconds: float
    bytes_per_second: int

    def allowed(self, transferred: int) -> float:
        """Return the maximum duration of a transfer, in seconds.

        Args:
            transferred: Bytes transferred so far.
        """
        return self.seconds + transferred / self.bytes_per_second


class Outbox:
    """Buffer of unsent bytes; gunicorn's response writes to it instead of to the socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._parts: deque[memoryview | bytes] = deque()
        self._interim = b""
        self.unsent = 0
        self.sent = 0

    def sendall(self, data: bytes) -> None:
        """Queue bytes of the response."""
        if data:
            self._parts.append(data)
            self.unsent += len(data)

    def send(self, data: bytes) -> int:
        """Hold ``100 Continue`` back until the application reads the body: a refused request must not get it."""
        self._interim = data
        return len(data)

    def gettimeout(self) -> float:
        """Behave like a non-blocking socket."""
        return 0.0

    def send_interim(self) -> None:
        """Send ``100 Continue`` if the client waits for it."""
        if self._interim:
            self.sendall(self._interim)
            self._interim = b""
            self.flush()

    def flush(self) -> bool:
        """Send as much as the kernel accepts without blocking.

        Returns:
            Whether everything is sent.

        Raises:
            OSError: The connection is lost.
        """
        while self._parts:
            parts = [self._parts[i] for i in range(min(len(self._parts), _PARTS_PER_SEND))]
            try:
                sent = self._socket.sendmsg(parts)
            except BlockingIOError:
                return False
            self.unsent -= sent
            self.sent += sent
            while sent:
                part = self._parts.popleft()
                if sent < len(part):
                    self._parts.appendleft(memoryview(part)[sent:])
                    break
                sent -= len(part)
        return True


class RequestBody:
    """Receive a request's body; gunicorn's parser reads from it instead of from the socket.

    The parser gets a complete head, so it reads from here for the body only.
    """

    def __init__(self, sock: socket.socket, outbox: Outbox, limits: Limits) -> None:
        self._socket = sock
        self._outbox = outbox
        self._limits = limits
        self._waited = 0.0
        self._received = 0
        self.open = False

    def recv(self, size: int) -> bytes:
        """Receive some bytes of the body; none if the request has no body.

        Raises:
            RequestTimeout: The client is too slow. Only the time spent waiting for the client counts.
        """
        if not self.open:
            return b""
        self._outbox.send_interim()
        while True:
            try:
                data = self._socket.recv(size)
            except BlockingIOError:
                self._wait()
                continue
            except ConnectionError:
                return b""  # the body is incomplete, as after an orderly close
            self._received += len(data)
            return data

    def _wait(self) -> None:
        left = self._limits.allowed(self._received) - self._waited
        if left <= 0:
            raise RequestTimeout(
                f"The body arrived too slowly: {self._received} bytes in {self._waited:.0f} seconds. "
                f"Send at least {self._limits.bytes_per_second} bytes per second."
            )
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        started = time.monotonic()
        poll.poll(left * 1000)
        self._waited += time.monotonic() - started


class ClientConnection:
    """A client's connection and the request on it.

    Args:
        sock: The accepted socket.
        peer: The client's address and port.
        listener: The address that the client connected to.
        cfg: gunicorn's configuration, for its parser.
        limits: Time limits of the client.
    """

    __slots__ = (
        "_inbox",
        "body",
        "buffered_body",
        "context",
        "deadline",
        "exchange",
        "has_body",
        "head",
        "iterator",
        "keep",
        "listener",
        "outbox",
        "parser",
        "peer",
        "request",
        "response",
        "socket",
        "state",
        "upload",
    )

    def __init__(self, sock: socket.socket, peer: Any, listener: Any, cfg: Any, limits: Limits) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.peer = peer
        self.listener = listener
        self.outbox = Outbox(sock)
        self._inbox = RequestBody(sock, self.outbox, limits)
        self.parser: Any = RequestParser(cfg, self._inbox, peer)
        self.head = bytearray()
        self.state = ConnectionState.HEAD
        self.deadline = 0.0
        self.begin()

    def begin(self) -> None:
        """Reset the state for a new request, whose head is complete."""
        self.context = contextvars.Context()
        self.exchange = Exchange(public=True)
        self.request: Any = None
        self.response: Any = None
        self.body: Any = None
        self.iterator: Iterator[bytes] | None = None
        #: Whether the request has a body that an upload thread has to receive.
        self.has_body = False
        #: Bytes of a small body, which the event loop receives; 0 if there is none.
        self.buffered_body = 0
        #: Whether the request occupies one of the upload threads.
        self.upload = False
        self.keep = False

    def receive(self) -> bool:
        """Receive more of a request's head.

        Returns:
            False when the client has closed the connection.

        Raises:
            OSError: The connection is lost.
        """
        try:
            data = self.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return True
        self.head += data
        return bool(data)

    @property
    def head_complete(self) -> bool:
        """Whether the head is complete, or has wrong line endings, which the parser refuses."""
        return b"\r\n\r\n" in self.head or b"\n\n" in self.head

    def parse(self) -> None:
        """Parse the request whose head is complete.

        Raises:
            StopIteration: There is no request.
            gunicorn.http.errors.ParseException: The head is malformed.
        """
        self.parser.unreader.unread(bytes(self.head))
        self.head.clear()
        self.request = request = next(self.parser)
        hosts = sum(name == "HOST" for name, _ in request.headers)
        if hosts > 1 or (hosts == 0 and request.version >= (1, 1)):  # RFC 9112, 3.2
            raise InvalidHeader("HOST")
        fields = dict(request.headers)
        chunked = "TRANSFER-ENCODING" in fields
        length = int(fields.get("CONTENT-LENGTH", 0))
        if not chunked and length == 0:
            return
        # The application may not read the whole body. Its rest would be parsed as the next request.
        request.force_close()
        if chunked or length > MAX_BUFFERED_BODY_BYTES or "EXPECT" in fields:
            self.has_body = self._inbox.open = True
        else:
            self.buffered_body = length
            self.head += self.parser.unreader.take_buffered()

    @property
    def body_complete(self) -> bool:
        """Whether the small body is complete."""
        return len(self.head) >= self.buffered_body

    def return_body(self) -> None:
        """Give the small body to the parser, from which the application reads it."""
        self.parser.unreader.unread(bytes(self.head))
        self.head.clear()
        self.exchange.received_at = time.perf_counter()  # the client's time is not that of the queue

    def take_pipelined(self) -> None:
        """Start the next head with the bytes that the client sent after the last request."""
        self.head += self.parser.unreader.take_buffered()

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()
