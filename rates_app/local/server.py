"""What the embedded servers have in common: a folder, a port that stays, a process that is known exactly."""

from __future__ import annotations

import fcntl
import signal
import socket
import threading
import time
from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

import psutil

from rates_app.local.account import own, private_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

HOST = "127.0.0.1"
STOP_SECONDS = 60
LOG_TAIL_LINES = 15


class ServerError(Exception):
    """An embedded server did not do as it was told; the message holds the end of its log."""


class AlreadyRunningError(ServerError):
    """A server already runs on this folder; the message says where, and as which process."""


class Server(ABC):
    """A server program that keeps everything it has in one folder and listens on the loopback address alone.

    It runs as a daemon, so it outlives this process unless it is stopped: use it as a context manager, or call
    ``stop``. Any object made for the same folder can stop it.

    Args:
        folder: Where its data, settings and log are; made when missing.
        port: The port it should have. Without one, or when that one is taken, it keeps the one it had last time, or
            takes a free one.
    """

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        self.folder = private_folder(folder)
        self.log = self.folder / "server.log"
        self._port_file = self.folder / "port"
        self._wanted_port = port
        self._started: psutil.Process | None = None

    @property
    @abstractmethod
    def name(self) -> str:
        """What messages call it."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Address for clients, with the password in it."""

    @property
    @abstractmethod
    def _pid_file(self) -> Path:
        """The file in which the program writes its process id, on the first line."""

    @property
    @abstractmethod
    def _mark(self) -> str:
        """The argument of the program's command line that no other process has."""

    @abstractmethod
    def _build(self) -> None:
        """Make the data when there is none."""

    @abstractmethod
    def _launch(self, port: int) -> str:
        """Start the program, wait until it answers, and return what it printed."""

    @property
    def port(self) -> int:
        """The port it listens on, or did when it last ran."""
        return int(self._port_file.read_text())

    def process(self) -> psutil.Process | None:
        """Return the running server's process, or None.

        The process id in the program's file is believed only when that process was started for this folder: after a
        crash the number may belong to someone else. Without the file (the folder was removed) it is the process that
        this object has started, if that lives.
        """
        try:
            process = psutil.Process(int(self._pid_file.read_text().split(maxsplit=1)[0]))
            return process if self._mark in process.cmdline() else None
        except FileNotFoundError:
            return self._started if self._started and _lives(self._started) else None
        except (IndexError, psutil.NoSuchProcess):
            return None

    def is_running(self) -> bool:
        """Tell whether the server's process is there."""
        return self.process() is not None

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            AlreadyRunningError: It runs already.
            ServerError: It did not start.
        """
        with exclusive(self.folder / "start.lock"):
            if process := self.process():
                raise AlreadyRunningError(
                    f"{self.name} already runs on {self.folder}: port {self.port}, process {process.pid}"
                )
            self._build()
            self._pid_file.unlink(missing_ok=True)
            if self.log.exists():
                self.log.replace(self.log.with_suffix(".previous.log"))
            port = self._choose_port()
            write_private(self._port_file, str(port))
            try:
                output = self._launch(port)
            except BaseException:
                self.stop()
                raise
            self._started = self.process()
            if self._started is None:
                raise self.error("did not start", output)

    def stop(self) -> None:
        """Stop the server in good order: work in progress is ended, data is safe. Nothing happens if it is not running.

        Raises:
            ServerError: It is still there after a minute.
        """
        if process := self.process():
            # SIGINT is PostgreSQL's fast shutdown; Redis ends on it like on SIGTERM.
            process.send_signal(signal.SIGINT)
            if not ended([process], STOP_SECONDS):
                raise self.error(f"did not stop within {STOP_SECONDS} seconds")

    def restart(self) -> None:
        """Stop the server and start it on the same port."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """End the server and all its processes at once, as a power cut would."""
        if process := self.process():
            family = [process, *process.children(recursive=True)]
            for member in family:
                try:
                    member.kill()
                except psutil.NoSuchProcess:
                    continue
            if not ended(family, STOP_SECONDS):
                raise self.error("could not be killed")

    def error(self, what: str, output: str = "") -> ServerError:
        """Describe a failure of this server together with what it said last."""
        logged = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:] if self.log.exists() else []
        return ServerError("\n  ".join([f"{self.name} {what}; it said:", *output.splitlines(), *logged]))

    def _choose_port(self) -> int:
        """Take the port that was asked for, or the last one, or any: the first that is free."""
        last = [self.port] if self._port_file.exists() else []
        for port in (*([self._wanted_port] if self._wanted_port else []), *last):
            if port_is_free(port):
                return port
        return free_port()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def ended(processes: list[psutil.Process], seconds: float) -> bool:
    """Wait until processes have ended, for ``seconds`` at most, and tell whether they have.

    A zombie counts as ended: it only waits for the system's first process, which may take seconds, to note its end.
    """
    deadline = time.monotonic() + seconds
    while any(_lives(process) for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def port_is_free(port: int, host: str = HOST) -> bool:
    """Tell whether a server could listen on ``port`` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """Return a port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def write_private(path: Path, text: str) -> None:
    """Write a file that only the servers' account (and root) can read, whole or not at all."""
    building = path.with_name(f"{path.name}.new")
    building.unlink(missing_ok=True)
    building.touch(mode=0o600)
    building.write_text(text)
    own(building, 0o600)
    building.replace(path)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Wait for, and hold, the lock file ``path``; the system lets go of it when this process ends in any way."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def orderly_exit() -> Iterator[None]:
    """Let SIGTERM unwind the block like Ctrl-C does, so that what it started is stopped.

    A handler that the caller has set stays in place, and outside the main thread nothing changes.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
