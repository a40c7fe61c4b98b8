"""The process that the control's attack reaches: ``python -m benchmarks.slow_clients.neighbour PORT``.

It accepts connections and neither reads, answers nor closes them.
"""

from __future__ import annotations

import asyncio
import sys


class _Ignored(asyncio.Protocol):
    """A connection whose bytes are left in the kernel's buffer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Do not read."""
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()


async def ignore(port: int) -> None:
    """Accept connections of this machine until the process ends."""
    server = await asyncio.get_running_loop().create_server(_Ignored, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(ignore(int(sys.argv[1])))
