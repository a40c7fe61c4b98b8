"""A real dispatcher next to the local stack, with its pauses as much shorter as those of the rules."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from drills.pod import environment_of
from rates_app.local.server import free_port
from tests.incidents.alerting import SPEED
from tests.incidents.process import RehearsedProgram

if TYPE_CHECKING:
    from drills.stack import RunningStack

PROGRAM = (
    f"from rates_app.batches.ledger import attempts; attempts.FIRST_DELAY_SECONDS /= {SPEED}; "
    "from rates_app.cli import main; main()"
)


class DispatcherProcess(RehearsedProgram):
    """``rates dispatch`` on the stack's folder of deliveries.

    Args:
        stack: The stack, which is running.

    Attributes:
        url: Address of its metrics.
    """

    def __init__(self, stack: RunningStack) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        environment = {
            "PATH": os.defpath,
            **environment_of(stack.settings),
            "RATES_HOST": "127.0.0.1",
            "RATES_PORT": str(port),
            "RATES_INGEST_WORKERS": "1",
        }
        command = [sys.executable, "-c", PROGRAM, "dispatch"]
        super().__init__(command, stack.folder / "dispatcher.log", f"{self.url}/readyz", environment)
