"""Good clients: each sends one request on its own connection and reads the response."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

#: Seconds after which a good client gives up.
PATIENCE_SECONDS = 5.0


@dataclass(frozen=True)
class Latencies:
    """Latencies and failures of good clients."""

    #: Sorted, in milliseconds; a request without a response counts with the client's patience.
    milliseconds: list[float]
    #: Requests without the response 200.
    failed: int

    def percentile(self, share: float) -> float:
        """Return a percentile in milliseconds."""
        return self.milliseconds[min(len(self.milliseconds) - 1, int(share * len(self.milliseconds)))]


async def measure(
    port: int, path: str, seconds: float, per_second: float, *, patience: float = PATIENCE_SECONDS
) -> Latencies:
    """Send requests at a constant rate, whether or not earlier ones have been answered.

    Args:
        port: The server's port on this machine.
        path: The requested path and query.
        seconds: Duration.
        per_second: The rate.
        patience: Seconds after which a client gives up.

    Returns:
        The latencies, from the connection's beginning to the response's end.
    """
    loop = asyncio.get_running_loop()
    request = f"GET {path} HTTP/1.1\r\nHost: rates\r\nConnection: close\r\n\r\n".encode()

    async def ask() -> tuple[float, bool]:
        began = loop.time()
        try:
            async with asyncio.timeout(patience):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(request)
                response = await reader.read()
                writer.close()
        except (OSError, TimeoutError):
            return patience, False
        return loop.time() - began, response.startswith(b"HTTP/1.1 200")

    began = loop.time()
    asked = []
    for number in range(int(seconds * per_second)):
        await asyncio.sleep(max(0.0, began + number / per_second - loop.time()))
        asked.append(asyncio.create_task(ask()))
    results = await asyncio.gather(*asked)
    return Latencies(sorted(time * 1000 for time, _ in results), sum(not ok for _, ok in results))
