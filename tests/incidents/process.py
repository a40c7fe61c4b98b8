"""A program of a rehearsal that can be stopped and started again."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import httpx

from drills import waiting
from drills.pod import START_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

wait_until = partial(waiting.wait_until, seconds=START_SECONDS, pause=0.2)


class RehearsedProgram:
    """A program that responds over HTTP as soon as it is ready.

    Args:
        command: The program with its arguments.
        log: File to which its output is appended.
        ready_url: Address that responds with success when it is ready.
        environment: Its variables; by default those of this process.
    """

    def __init__(
        self, command: Sequence[str], log: Path, ready_url: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self._command = command
        self._log = log
        self._ready_url = ready_url
        self._environment = environment

    def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            TimeoutError: It is not; the message is the end of its log.
        """
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=log)
        wait_until(
            lambda: httpx.get(self._ready_url).is_success,
            describe=lambda: self.log()[-2000:],
            ignore=(httpx.TransportError,),
        )

    def log(self) -> str:
        """Return what it has logged."""
        return self._log.read_text()

    def stop(self) -> None:
        """Stop it as Kubernetes does."""
        self._process.terminate()
        self._process.wait(60)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start it, and stop it at the end."""
        self.start()
        try:
            yield
        finally:
            self.stop()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop it, and start it again at the end."""
        self.stop()
        try:
            yield
        finally:
            self.start()
