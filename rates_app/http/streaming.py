"""Pauses in streamed responses that hold no thread."""

from __future__ import annotations


class Pause(bytes):
    """An empty part of a response body that asks the server to continue after some seconds.

    The server gives the thread to other requests meanwhile. A server that does not know this class sends nothing for
    it and continues at once.
    """

    seconds: float

    def __new__(cls, seconds: float) -> Pause:
        """Create a pause of that many seconds."""
        pause = super().__new__(cls)
        pause.seconds = seconds
        return pause
