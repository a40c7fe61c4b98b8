"""The base class of embedded servers: folder, stable port, start and stop, and exact identification of the process."""

from __future__ import annotations

import fcntl
import secrets
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
#: Below the ports that Linux gives to outgoing connections unless it is configured otherwise, from 32,768.
SERVER_PORTS = range(20_000, 32_768)


class ServerError(Exception):
    """An embedded server failed to start, stop or change its role. The message contains the end of its log."""


class AlreadyRunningError(ServerError):
    """A server is already running on this folder. The message contains its port and process id."""


class LocalServer(ABC):
    """A server that keeps its data, settings and log in one folder and listens on the loopback address.

    It runs as a daemon and continues after this process exits unless it is stopped: use it as a context manager, or
    call ``stop``. Any object for the same folder can stop it.

    Args:
        folder: The folder for data, settings and log; created if missing.
        port: The preferred port. If it is not given or in use, the server's last port is used, or a free one.
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
        """Name of the server in messages."""

    @property
    @abstractmethod
    def url(self) -> str:
        """URL for clients, including the password."""

    @property
    @abstractmethod
    def _pid_file(self) -> Path:
        """File with the process id on its first line, written by the server."""

    @property
    @abstractmethod
    def _mark(self) -> str:
        """Argument of the command line that no other process has."""

    @abstractmethod
    def _build(self) -> None:
        """Create the data if there is none."""

    @abstractmethod
    def _launch(self, port: int) -> str:
        """Start the program, wait until it accepts connections, and return its output."""

    @property
    def port(self) -> int:
        """The current port, or the port of the last run."""
        return int(self._port_file.read_text())

    def process(self) -> psutil.Process | None:
        """Return the running server's process, or None.

        The process id in the file is trusted only if the process was started for this folder: after a crash, another
        process may have the same id. If the file is missing because the folder was removed, the process that this
        object has started is returned.
        """
        try:
            process = psutil.Process(int(self._pid_file.read_text().split(maxsplit=1)[0]))
            return process if self._mark in process.cmdline() else None
        except FileNotFoundError:
            return self._started if self._started and _is_alive(self._started) else None
        except (IndexError, psutil.NoSuchProcess):
            return None

    def is_running(self) -> bool:
        """Return whether the server is running."""
        return self.process() is not None

    def start(self) -> None:
        """Start the server and wait until it accepts connections.

        Raises:
            AlreadyRunningError: It is already running.
            ServerError: It did not start.
        """
        with exclusive(self.folder / "start.lock"):
            if process := self.process():
                raise AlreadyRunningError(
                    f"{self.name} is already running on {self.folder}: port {self.port}, process {process.pid}"
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
        """Shut the server down cleanly. Do nothing if it is not running.

        Raises:
            ServerError: It did not exit within a minute.
        """
        if process := self.process():
            # SIGINT is PostgreSQL's fast shutdown. Redis handles it like SIGTERM.
            process.send_signal(signal.SIGINT)
            if not wait_until_ended([process], STOP_SECONDS):
                raise self.error(f"did not stop within {STOP_SECONDS} seconds")

    def restart(self) -> None:
        """Stop the server and start it on the same port."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """Kill the server and its child processes, as a power failure would."""
        if process := self.process():
            family = [process, *process.children(recursive=True)]
            for member in family:
                try:
                    member.kill()
                except psutil.NoSuchProcess:
                    continue
            if not wait_until_ended(family, STOP_SECONDS):
                raise self.error("could not be killed")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop all the server's processes for the time of the block, as a hypervisor or a storage failure does.

        Its connections stay, and the kernel accepts new ones, but nothing answers.
        """
        process = self.process()
        family = [process, *process.children(recursive=True)] if process else []
        try:
            for member in family:
                member.suspend()
            yield
        finally:
            for member in reversed(family):
                if _is_alive(member):
                    member.resume()

    def error(self, what: str, output: str = "") -> ServerError:
        """Create an error with the program's output and the end of its log."""
        logged = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:] if self.log.exists() else []
        return ServerError("\n  ".join([f"{self.name} {what}. Output and log:", *output.splitlines(), *logged]))

    def _choose_port(self) -> int:
        """Return the first free port of: the preferred one, the last one, any."""
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


def wait_until_ended(processes: list[psutil.Process], seconds: float) -> bool:
    """Wait until processes have exited, and return whether they did within ``seconds``.

    A zombie counts as exited: it only waits for its parent to reap it, which may take seconds.
    """
    deadline = time.monotonic() + seconds
    while any(_is_alive(process) for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def port_is_free(port: int, host: str = HOST) -> bool:
    """Return whether a server could listen on ``port`` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """Return a free port of the loopback address that the kernel gives to no outgoing connection.

    A server that restarts needs its port again, and a connection could have taken it meanwhile.
    """
    for _ in SERVER_PORTS:
        if port_is_free(port := secrets.choice(SERVER_PORTS)):
            return port
    raise OSError(f"no port from {SERVER_PORTS.start} to {SERVER_PORTS.stop - 1} is free")


def write_private(path: Path, text: str) -> None:
    """Write a file atomically, readable only by the servers' account and root."""
    building = path.with_name(f"{path.name}.new")
    building.unlink(missing_ok=True)
    building.touch(mode=0o600)
    building.write_text(text)
    own(building, 0o600)
    building.replace(path)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a lock on the file ``path``; the kernel releases it when this process exits."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM within the block, so that context managers stop what they started.

    A handler that the caller has installed is kept. Outside the main thread, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
