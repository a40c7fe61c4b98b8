"""Drive the machine's Firefox by WebDriver BiDi, its own protocol; Playwright needs a Firefox that it builds itself."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import websocket

from drills.waiting import wait_until
from rates_app.local.server import HOST, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Seconds for Firefox to start and for each command; the machine may be busy.
PATIENCE_SECONDS = 60.0


class Firefox:
    """A tab of a running Firefox.

    Args:
        connection: A connection to its WebDriver BiDi.
    """

    def __init__(self, connection: websocket.WebSocket) -> None:
        self._connection = connection
        self._ids = count(1)
        #: Errors that pages have logged: messages of scripts, of the console and of the browser.
        self.errors: list[str] = []
        self.send("session.new", capabilities={})
        self.send("session.subscribe", events=["log.entryAdded"])
        self._tab = self.send("browsingContext.getTree")["contexts"][0]["context"]

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; errors of pages that arrive meanwhile are recorded."""
        number = next(self._ids)
        self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message: dict[str, Any] = json.loads(self._connection.recv())
            if message.get("method") == "log.entryAdded" and message["params"]["level"] == "error":
                self.errors.append(message["params"]["text"])
            if message.get("id") == number:
                assert message["type"] == "success", message
                result: dict[str, Any] = message["result"]
                return result

    def resize(self, width: int, height: int) -> None:
        """Set the size of the viewport in CSS pixels."""
        self.send("browsingContext.setViewport", context=self._tab, viewport={"width": width, "height": height})

    def open(self, address: str) -> None:
        """Load a page and everything on it."""
        self.send("browsingContext.navigate", context=self._tab, url=address, wait="complete")

    def run(self, script: str, *, wait: bool = False) -> Any:
        """Run a script in the page, whatever the page's policy permits to its own scripts.

        Args:
            script: The script.
            wait: Whether its value is a promise of a text.

        Returns:
            A text or a number; None for other values.
        """
        found = self.send("script.evaluate", expression=script, target={"context": self._tab}, awaitPromise=wait)
        assert found["type"] == "success", found
        return found["result"].get("value")


@contextmanager
def firefox(program: str, profile: Path) -> Iterator[Firefox]:
    """Run Firefox without a window.

    Args:
        program: Its path.
        profile: An empty folder for its profile.
    """
    port = free_port()
    command = [program, "--headless", "--no-remote", "--profile", str(profile), "--remote-debugging-port", str(port)]
    with subprocess.Popen(
        command, env={**os.environ, "HOME": str(profile)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        connections: list[websocket.WebSocket] = []

        def connect() -> bool:
            address = f"ws://{HOST}:{port}/session"
            connections.append(websocket.create_connection(address, timeout=PATIENCE_SECONDS, suppress_origin=True))
            return True

        try:
            wait_until(connect, seconds=PATIENCE_SECONDS, pause=0.2, ignore=(OSError,))
            yield Firefox(connections[0])
        finally:
            for connection in connections:
                connection.close()
            process.terminate()
            process.wait(PATIENCE_SECONDS)
