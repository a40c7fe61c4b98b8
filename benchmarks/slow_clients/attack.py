"""Open bad connections: ``python -m benchmarks.slow_clients.attack PORT SORT CONNECTIONS SECONDS``.

A separate process with a low priority, so that the attack takes little of the server's processor time.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from contextlib import suppress

#: The server sees this many client addresses, so that a limit per address does not end the attack.
ADDRESSES = 100
#: Seconds between two bytes of a connection that trickles.
TRICKLE_SECONDS = 0.5
#: A response that exceeds the kernel's buffers.
LONG = "/rates?date_from=2013-01-01&date_to=2021-12-31&orig_code=CNGGZ&dest_code=EETLL"
_HEAD = b"GET /rates?orig_code=CNGGZ HTTP/1.1\r\nHost: rates\r\nX-Slow: "
_UPLOAD = b"POST /v1/batches HTTP/1.1\r\nHost: rates\r\nAuthorization: Bearer TOKEN\r\n"
#: The first bytes of each kind of connection, and the bytes that it repeats. TOKEN is replaced by a supplier's token.
SORTS = {
    "silent": (b"", b""),
    "half-head": (_HEAD, b""),
    "trickled-head": (_HEAD, b"x"),
    "trickled-body": (
        _UPLOAD + b"Content-Type: text/csv\r\nContent-Length: 1000000\r\n\r\norig_code,",
        b"x",
    ),
    "never-reading": (f"GET {LONG} HTTP/1.1\r\nHost: rates\r\n\r\n".encode() * 3, b""),
}


class _BadClient(asyncio.Protocol):
    """One bad connection: it never reads, and waits until the server closes it."""

    def __init__(self, first: bytes, again: bytes, *, reads: bool) -> None:
        self._first = first
        self._again = again
        self._reads = reads
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first bytes, and start to trickle."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if not self._reads:
            transport.pause_reading()
        transport.write(self._first)
        if self._again:
            self._trickle()

    def _trickle(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(self._again)
            asyncio.get_running_loop().call_later(TRICKLE_SECONDS, self._trickle)

    def connection_lost(self, error: Exception | None) -> None:
        """Note that the server has closed the connection."""
        if not self.closed.done():
            self.closed.set_result(error)


async def attack(port: int, sort: str, connections: int, seconds: float, token: str = "") -> int:
    """Open connections at a constant rate, and leave each open until the server closes it.

    Args:
        port: The server's port on this machine.
        sort: A key of :data:`SORTS`.
        connections: How many to open.
        seconds: In how much time. The connections that are left are then closed.
        token: A supplier's token, for uploads.

    Returns:
        How many of them the server accepted.
    """
    loop = asyncio.get_running_loop()
    first, again = SORTS[sort]
    first = first.replace(b"TOKEN", token.encode())
    began = loop.time()
    opened = 0
    transports = []
    for number in range(connections):
        await asyncio.sleep(max(0.0, began + number * seconds / connections - loop.time()))
        if loop.time() > began + seconds:  # the server accepts more slowly than they come
            break
        client = socket.socket()
        if sort == "never-reading":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        client.bind((f"127.0.1.{1 + number % ADDRESSES}", 0))
        try:
            async with asyncio.timeout(1):
                await loop.sock_connect(client, ("127.0.0.1", port))
        except (OSError, TimeoutError):
            client.close()
            continue
        transport, _ = await loop.create_connection(
            lambda: _BadClient(first, again, reads=sort != "never-reading"), sock=client
        )
        opened += 1
        transports.append(transport)
    await asyncio.sleep(max(0.0, began + seconds - loop.time()))
    for transport in transports:
        transport.abort()
    return opened


def main() -> None:
    """Attack, and print how many connections were opened."""
    port, sort, connections, seconds = sys.argv[1:]
    with suppress(PermissionError):
        os.nice(19)
    opened = asyncio.run(attack(int(port), sort, int(connections), float(seconds), os.environ.get("ATTACK_TOKEN", "")))
    sys.stdout.write(f"{opened}\n")


if __name__ == "__main__":
    main()
