"""A real dispatcher next to the local stack, with its pauses as much shorter as those of the rules."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx

from drills.pod import START_SECONDS, environment_of
from drills.waiting import wait_until
from rates_app.local.server import free_port
from tests.incidents.alerting import SPEED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drills.stack import RunningStack

PROGRAM = (
    f"from rates_app.batches.ledger import attempts; attempts.FIRST_DELAY_SECONDS /= {SPEED}; "
    "from rates_app.cli import main; main()"
)


class DispatcherProcess:
    """``rates dispatch`` on the stack's folder of deliveries.

    Args:
        stack: The stack, which is running.

    Attributes:
        url: Address of its metrics.
    """

    def __init__(self, stack: RunningStack) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._log = stack.folder / "dispatcher.log"
        self._environment = {
            "PATH": os.defpath,
            **environment_of(stack.settings),
            "RATES_HOST": "127.0.0.1",
            "RATES_PORT": str(port),
            "RATES_INGEST_WORKERS": "1",
        }

    def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            TimeoutError: It is not; the message is the end of its log.
        """
        with self._log.open("ab") as log:
            command = [sys.executable, "-c", PROGRAM, "dispatch"]
            self._process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)
        wait_until(
            lambda: httpx.get(f"{self.url}/readyz").is_success,
            seconds=START_SECONDS,
            pause=0.2,
            describe=lambda: self._log.read_text()[-2000:],
            ignore=(httpx.TransportError,),
        )

    def stop(self) -> None:
        """Stop it as Kubernetes does."""
        self._process.terminate()
        self._process.wait(60)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop it, and start it again at the end."""
        self.stop()
        try:
            yield
        finally:
            self.start()
