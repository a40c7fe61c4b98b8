"""A gunicorn worker whose threads never wait for a client.

An event loop owns every connection that waits: for a request's head, for a client that reads slowly, for the end of a
pause in a stream. A thread gets a connection when its head is complete, and returns it when the kernel accepts no more
bytes. So a silent or slow client occupies a file descriptor only, and loses its connection at its deadline. The
exception is a large body that the application reads: separate threads, limited in number, receive these bodies. See
docs/decisions/0056-slow-clients.md.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
from collections import Counter as Tally
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from gunicorn.http import wsgi
from gunicorn.http.errors import LimitRequestHeaders, NoMoreData
from gunicorn.workers.base import Worker

from rates_app.http.client_threads import ClientThreads
from rates_app.http.connection import MAX_HEAD_BYTES, MAX_UNSENT_BYTES, ClientConnection, ConnectionState, Limits
from rates_app.http.exchange import ENVIRON_KEY
from rates_app.http.limits import client_network
from rates_app.http.malformed import error_response
from rates_app.http.open_files import raise_file_limit
from rates_app.http.streaming import Pause
from rates_app.ops.metrics import CONNECTIONS, CONNECTIONS_CLOSED

if TYPE_CHECKING:
    from collections.abc import Callable

    #: The event loop's next action on a connection.
    Transition = Callable[[ClientConnection], None]
    #: A part of a request's handling, in a thread.
    Work = Callable[[ClientConnection], Transition]

#: Timeout of idle connections. It exceeds the load balancer's (60 s in AWS), so that the server never closes a
#: connection on which a request is already on its way.
KEEPALIVE_SECONDS = 75.0
#: Timeout of idle connections of a stopping worker, for a request that is already on its way.
STOP_LINGER_SECONDS = 2.0
#: After the last response, unread input is discarded for this long. Closing immediately would reset the connection,
#: and the client could lose the response.
LINGER_SECONDS = 2.0
#: How long a worker leaves a new connection to a worker with fewer connections: enough to wake up and accept it.
TURN_SECONDS = 0.0005
MAX_CONNECTIONS = 4000
#: Bytes that the kernel accepts beyond those that the client's window has room for. The event loop sends the rest.
MAX_KERNEL_BYTES = 128 * 2**10
BACKLOG = 2048
_SWEEP_SECONDS = 0.25


class EventWorker(Worker):  # type: ignore[misc]  # gunicorn has no types
    """The event loop, the threads that handle requests, and the threads that receive bodies."""

    index = 0  #: Its index in the balance.

    def init_process(self) -> None:
        """Create the state that processes must not share, then run."""
        settings = self.app.settings
        self._limits = Limits(settings.client_timeout_seconds, settings.client_bytes_per_second)
        # Behind proxies, every address is a proxy's.
        behind_proxies = settings.trusted_proxies > 0
        self._per_client = 0 if behind_proxies else -(-settings.connections_per_client // settings.workers)
        self._client_threads: ClientThreads[tuple[ClientConnection, Work]] = ClientThreads(
            None if behind_proxies else max(1, settings.threads // 2)
        )
        self._max_connections = raise_file_limit(MAX_CONNECTIONS)
        self._selector = selectors.DefaultSelector()
        self._threads = ThreadPoolExecutor(settings.threads, "request")
        self._free_uploads = threading.BoundedSemaphore(settings.upload_threads)
        self._uploads = ThreadPoolExecutor(settings.upload_threads, "upload")
        self._calls: deque[Callable[[], None]] = deque()
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)
        self._accepting = False
        self._clients: Tally[str] = Tally()
        # Each group has one time limit, so the connection that entered first is also due first.
        self._waiting: dict[ClientConnection, None] = {}
        self._idle: dict[ClientConnection, None] = {}
        self._lingering: dict[ClientConnection, None] = {}
        self._sending: dict[ClientConnection, None] = {}
        self._paused: dict[ClientConnection, None] = {}
        self._groups = {
            ConnectionState.HEAD: self._waiting,
            ConnectionState.IDLE: self._idle,
            ConnectionState.LINGERING: self._lingering,
            ConnectionState.SENDING: self._sending,
            ConnectionState.PAUSED: self._paused,
        }
        self.connections = 0
        self._sweep_at = 0.0
        super().init_process()

    def handle_exit(self, _sig: int, _frame: object) -> None:
        """Begin to stop (SIGTERM)."""
        self.alive = False
        self._wake()

    # The event loop

    def run(self) -> None:
        """Serve until SIGTERM, then complete the requests in progress."""
        self._selector.register(self._wake_reader, selectors.EVENT_READ, self._run_calls)
        while self.alive:
            self.notify()
            self._set_accepting(self.connections < self._max_connections or bool(self._largest_group()))
            self._turn()
            if self.ppid != os.getppid():
                self.log.warning("worker_orphaned")
                break
        self._accept_backlog()
        self._set_accepting(False)
        for connection in [*self._idle, *(each for each in self._waiting if not each.head)]:
            connection.deadline = min(connection.deadline, time.monotonic() + STOP_LINGER_SECONDS)
        stop_at = time.monotonic() + self.cfg.graceful_timeout
        while self.connections and time.monotonic() < stop_at:
            self.notify()
            self._turn()
        self._threads.shutdown(wait=False)
        self._uploads.shutdown(wait=False)

    def _turn(self) -> None:
        self.app.balance.open[self.index] = self.connections if self.alive else -1
        busy = self._waiting or self._idle or self._lingering or self._sending or self._paused
        for key, _ in self._selector.select(_SWEEP_SECONDS if busy else 1.0):
            key.data()
        # Not after each event: thousands of clients that do not read would make each event expensive.
        if (now := time.monotonic()) >= self._sweep_at:
            self._sweep_at = now + _SWEEP_SECONDS
            self._sweep(now)

    def _sweep(self, now: float) -> None:
        """Act on every deadline that has passed."""
        for group in (self._waiting, self._idle, self._lingering):
            while group and (connection := next(iter(group))).deadline <= now:
                self._expire(connection)
        for connection in [each for each in self._sending if each.deadline <= now]:
            self._expire(connection)
        for connection in [each for each in self._paused if each.deadline <= now]:
            self._leave(connection)
            self._submit(connection, self._continue)

    def _expire(self, connection: ClientConnection) -> None:
        if connection.state is ConnectionState.HEAD:
            CONNECTIONS_CLOSED.labels("head").inc()
        elif connection.state is ConnectionState.SENDING:
            CONNECTIONS_CLOSED.labels("reader").inc()
        self._discard(connection)

    def _wait(self, connection: ClientConnection, state: ConnectionState, deadline: float, then: Transition) -> None:
        """Give a connection to the event loop until an event or its deadline."""
        connection.state = state
        connection.deadline = deadline
        self._groups[state][connection] = None
        event = selectors.EVENT_WRITE if state is ConnectionState.SENDING else selectors.EVENT_READ
        self._selector.register(connection.socket, event, partial(self._ready, connection, then))

    @staticmethod
    def _ready(connection: ClientConnection, then: Transition) -> None:
        if connection.state is not ConnectionState.HANDLED:  # another event of the same turn has closed it
            then(connection)

    def _leave(self, connection: ClientConnection) -> None:
        """Take a connection from the event loop."""
        self._groups[connection.state].pop(connection)
        self._selector.unregister(connection.socket)
        connection.state = ConnectionState.HANDLED

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # the pipe is full, so the loop wakes up in any case
            os.write(self._wake_writer, b"\0")

    def _run_calls(self) -> None:
        try:
            os.read(self._wake_reader, 4096)
        except BlockingIOError:
            return
        while self._calls:
            self._calls.popleft()()

    # Accepting

    def _set_accepting(self, accepting: bool) -> None:
        if accepting == self._accepting:
            return
        for listener in self.sockets:
            if accepting:
                listener.setblocking(False)
                self._selector.register(listener, selectors.EVENT_READ, partial(self._accept, listener))
            else:
                self._selector.unregister(listener)
        self._accepting = accepting

    def _accept(self, listener: socket.socket) -> bool:
        """Accept a connection, but leave it to a worker with fewer connections if there is one.

        The kernel wakes all workers, and busy ones win too often. Clients keep their connections, so one worker would
        have all the load for a long time.

        Returns:
            Whether there was a connection.
        """
        if self.alive:
            self.app.balance.open[self.index] = self.connections
            if self.connections > self.app.balance.least():
                time.sleep(TURN_SECONDS)
        try:
            sock, peer = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return False
        client = client_network(peer[0])
        if self._per_client and self._clients[client] >= self._per_client:
            CONNECTIONS_CLOSED.labels("client").inc()
            sock.close()
            return True
        if self.connections >= self._max_connections and (group := self._largest_group()):
            CONNECTIONS_CLOSED.labels("evicted").inc()
            self._discard(next(iter(group)))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The kernel would otherwise accept megabytes for a client that does not read, and charge them to the pod.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_KERNEL_BYTES)
        connection = ClientConnection(sock, peer, listener.getsockname(), self.cfg, self._limits)
        self._clients[client] += 1
        self.connections += 1
        CONNECTIONS.inc()
        self._wait(connection, ConnectionState.HEAD, time.monotonic() + self._limits.seconds, self._receive)
        return True

    def _largest_group(self) -> dict[ClientConnection, None]:
        """Return the connections to evict from if the worker is full: those of an attack outnumber the others."""
        return max((self._waiting, self._idle, self._sending), key=len)

    def _accept_backlog(self) -> None:
        """Accept the connections in the kernel's queue before the listener is closed, which would reset them."""
        for listener in self.sockets:
            for _ in range(BACKLOG):
                if not self._accept(listener):
                    break

    def _discard(self, connection: ClientConnection) -> None:
        """Close a connection that the event loop owns."""
        self._leave(connection)
        if connection.body is None:
            self._close(connection)
        else:
            self._submit(connection, self._abandon)

    def _close(self, connection: ClientConnection) -> None:
        connection.close()
        self.connections -= 1
        CONNECTIONS.dec()
        client = client_network(connection.peer[0])
        self._clients[client] -= 1
        if not self._clients[client]:
            del self._clients[client]

    # Waiting for a client

    def _receive(self, connection: ClientConnection) -> None:
        """Receive a request's head, or its first bytes on a connection that was idle."""
        try:
            open_ = connection.receive()
        except OSError:
            open_ = False
        if not open_:
            self._discard(connection)
        elif connection.head_complete or len(connection.head) > MAX_HEAD_BYTES:
            self._leave(connection)
            self._dispatch(connection)
        elif connection.state is ConnectionState.IDLE:
            self._idle.pop(connection)
            connection.state = ConnectionState.HEAD
            connection.deadline = time.monotonic() + self._limits.seconds
            self._waiting[connection] = None

    def _await_small_body(self, connection: ClientConnection) -> None:
        if connection.body_complete:
            connection.return_body()
            self._submit(connection, self._answer)
            return
        deadline = time.monotonic() + self._limits.seconds
        self._wait(connection, ConnectionState.HEAD, deadline, self._receive_small_body)

    def _receive_small_body(self, connection: ClientConnection) -> None:
        try:
            open_ = connection.receive()
        except OSError:
            self._discard(connection)
            return
        if connection.body_complete or not open_:  # the application refuses an incomplete body
            self._leave(connection)
            connection.return_body()
            self._submit(connection, self._answer)

    def _dispatch(self, connection: ClientConnection) -> None:
        """Give a request to a thread."""
        connection.begin()
        self._submit(connection, self._handle)

    def _send(self, connection: ClientConnection) -> None:
        """Send more of a response now that the client reads; when all is sent, a thread continues."""
        sent = connection.outbox.sent
        try:
            done = connection.outbox.flush()
        except OSError:
            self._discard(connection)
            return
        if not done:
            connection.deadline += (connection.outbox.sent - sent) / self._limits.bytes_per_second
            return
        self._leave(connection)
        if connection.iterator is None:
            self._finish(connection)
        else:
            self._submit(connection, self._continue)

    def _await_reader(self, connection: ClientConnection) -> None:
        self._wait(connection, ConnectionState.SENDING, time.monotonic() + self._limits.seconds, self._send)

    def _pause(self, connection: ClientConnection, seconds: float) -> None:
        self._wait(connection, ConnectionState.PAUSED, time.monotonic() + seconds, self._notice_disconnect)

    def _notice_disconnect(self, connection: ClientConnection) -> None:
        """End a paused stream when its client disconnects or sends anything."""
        self._discard(connection)

    def _finish(self, connection: ClientConnection) -> None:
        """Wait for the next request, or close."""
        if not connection.keep:
            try:
                connection.socket.shutdown(socket.SHUT_WR)
            except OSError:
                self._close(connection)
                return
            self._wait(connection, ConnectionState.LINGERING, time.monotonic() + LINGER_SECONDS, self._drop_input)
            return
        connection.take_pipelined()
        if connection.head_complete:
            self._dispatch(connection)
            return
        if connection.head:
            self._wait(connection, ConnectionState.HEAD, time.monotonic() + self._limits.seconds, self._receive)
            return
        seconds = KEEPALIVE_SECONDS if self.alive else STOP_LINGER_SECONDS
        self._wait(connection, ConnectionState.IDLE, time.monotonic() + seconds, self._receive)

    def _drop_input(self, connection: ClientConnection) -> None:
        try:
            open_ = bool(connection.socket.recv(65536))
        except BlockingIOError:
            return
        except OSError:
            open_ = False
        if not open_:
            self._discard(connection)

    # Handling a request, in threads

    def _submit(self, connection: ClientConnection, work: Work) -> None:
        if connection.upload:
            self._uploads.submit(self._work, connection, work, None)
        elif self._client_threads.enter(client := client_network(connection.peer[0]), (connection, work)):
            self._threads.submit(self._work, connection, work, client)

    def _work(self, connection: ClientConnection, work: Work, client: str | None) -> None:
        """Run a part of a request's handling in a thread, then return the connection to the event loop.

        All parts of a request share one context, even in different threads.
        """
        try:
            then = connection.context.run(work, connection)
        except Exception:
            self.log.exception("connection_failed")
            then = self._close
        self._calls.append(partial(self._return, connection, then, client))
        self._wake()

    def _return(self, connection: ClientConnection, then: Transition, client: str | None) -> None:
        """Take a connection back from a thread; the thread is free for the client's next request."""
        if client is not None and (waiting := self._client_threads.leave(client)) is not None:
            self._threads.submit(self._work, *waiting, client)
        then(connection)

    def _handle(self, connection: ClientConnection) -> Transition:
        """Parse a request and pass it to the application."""
        if not connection.head_complete:
            return self._fail(connection, LimitRequestHeaders(f"the headers exceed {MAX_HEAD_BYTES} bytes"))
        try:
            connection.parse()
        except (NoMoreData, StopIteration):
            return self._close
        except Exception as error:  # noqa: BLE001 - any error of the application gets a response or a log event
            return self._fail(connection, error)
        if connection.has_body:
            if self._free_uploads.acquire(blocking=False):
                connection.upload = True
                return partial(self._submit, work=self._answer)
            connection.exchange.refusal = "overloaded"
        if connection.buffered_body:
            return self._await_small_body
        return self._answer(connection)

    def _answer(self, connection: ClientConnection) -> Transition:
        exchange = connection.exchange
        exchange.queue_seconds = time.perf_counter() - exchange.received_at
        try:
            self.cfg.pre_request(self, connection.request)
            connection.response, environ = wsgi.create(
                connection.request, connection.outbox, connection.peer, connection.listener, self.cfg
            )
            environ["wsgi.multithread"] = True
            environ[ENVIRON_KEY] = exchange
            if not self.alive:
                connection.response.force_close()
            connection.body = self.wsgi(environ, connection.response.start_response)
            connection.iterator = iter(connection.body)
        except Exception as error:  # noqa: BLE001 - any error of the application gets a response or a log event
            return self._fail(connection, error)
        return self._continue(connection)

    def _continue(self, connection: ClientConnection) -> Transition:
        """Generate more of a response until the client is behind, the application pauses, or the response ends."""
        assert connection.iterator is not None  # noqa: S101 - a response is being sent
        try:
            for part in connection.iterator:
                if isinstance(part, Pause):
                    if connection.outbox.flush():
                        return partial(self._pause, seconds=part.seconds)
                    return self._await_reader
                connection.response.write(part)
                if connection.outbox.unsent >= MAX_UNSENT_BYTES and not connection.outbox.flush():
                    return self._await_reader
            connection.response.close()
        except Exception as error:  # noqa: BLE001 - any error of the application gets a response or a log event
            return self._fail(connection, error)
        self._end_body(connection)
        connection.keep = not connection.response.should_close()
        return self._flush(connection)

    def _flush(self, connection: ClientConnection) -> Transition:
        """Send the rest of a complete response; if the client is behind, leave that to the event loop."""
        try:
            return self._finish if connection.outbox.flush() else self._await_reader
        except OSError:
            return self._close

    def _fail(self, connection: ClientConnection, error: Exception) -> Transition:
        """Respond to a malformed request or an error of the application; truncate a response that has begun."""
        self._end_body(connection)
        if isinstance(error, OSError) and connection.response is not None:
            return self._close  # the client has gone
        if connection.response is not None and connection.response.headers_sent:
            self.log.exception("response_cut_short")
            return self._close
        connection.outbox.sendall(error_response(error, connection.peer[0]))
        return self._flush(connection)

    def _abandon(self, connection: ClientConnection) -> Transition:
        """End a response that the client no longer reads."""
        self._end_body(connection)
        return self._close

    def _end_body(self, connection: ClientConnection) -> None:
        """Close the application's response, and free the upload thread."""
        body, connection.body, connection.iterator = connection.body, None, None
        try:
            if hasattr(body, "close"):
                body.close()
        except Exception:
            self.log.exception("response_not_closed")
        finally:
            if connection.upload:
                connection.upload = False
                self._free_uploads.release()
