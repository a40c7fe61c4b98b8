"""Pauses in streamed responses that hold no thread."""

from __future__ import annotations


class Pause(bytes):
    """An empty chunk of a response body that makes the server continue after some seconds.

    The server uses the thread for other requests meanwhile. A server that does not know this class sends nothing for
    it and continues immediately.
    """

    seconds: float

    def __new__(cls, seconds: float) -> Pause:
        """Create a pause.

        Args:
            seconds: Its duration.
        """
        pause = super().__new__(cls)
        pause.seconds = seconds
        return pause
