"""The whole system on one machine, from start to stop: what ``rates dev`` runs."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import psycopg
from rich.console import Console
from rich.markup import escape

from rates_app.batches.pipeline import engine
from rates_app.local.keeper import Keeper
from rates_app.local.postgres import Cluster, PostgresServer, primary_with_replica
from rates_app.local.redis import RedisServer
from rates_app.local.server import HOST, ServerError, ended, port_is_free
from rates_app.ops.logs import configure_logs
from rates_app.rates.locations import read_locations, store_locations
from rates_app.settings import load_settings
from rates_app.store.generation import raise_generation
from rates_app.store.migrate import migrate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

SAMPLE_DATA = Path(__file__).parents[2] / "sample_data"
FIRST_PORT = 8080
#: What of the service runs, in the order in which it is started.
ROLES = ("serve", "dispatch")
READY_SECONDS = 60
# A service that was told to stop may take its drain and grace; after that it is no longer waited for.
LEFTOVER_SECONDS = 40


class StackError(Exception):
    """The stack cannot run here or has ended by itself; the message says what to do."""


class _StopRequested(Exception):
    """Somebody asked for the end while the stack was starting."""


class LocalStack:
    """PostgreSQL with a replica, Redis, the sample data and the service, in one folder.

    Args:
        folder: Where everything is kept; made when missing.
        port: The service's port; the next free one when it is taken.
        console: Where progress is told.
        archive: Keep WAL for `rates restore`, in ``backups``.
    """

    def __init__(self, folder: Path, port: int, console: Console, *, archive: bool = False) -> None:
        self._backups = folder.absolute() / "backups" if archive else None
        self._given_folder = folder
        self.folder = folder.absolute()
        self.port = port
        self._console = console
        self._stop = threading.Event()
        #: What runs, by what messages call it.
        self._roles: dict[str, subprocess.Popen[bytes]] = {}
        self._keepers: list[Keeper] = []

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://{HOST}:{self.port}"

    def run(self) -> None:
        """Run until SIGINT, SIGTERM or SIGHUP, then stop everything in order.

        A signal is noted and acted upon between two steps: no step is left half done, so no process is left behind.

        Raises:
            StackError: Another one runs on the folder, or a role of the service ended by itself.
            ServerError: PostgreSQL or Redis did not start, or keeps ending.
        """
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP, and means it
                signal.signal(number, self._request_stop)
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as running:
            running.enter_context(self._only_one())
            try:
                self._start(running)
                self._tell_addresses()
                while not self._stop.wait(0.5):
                    for role, process in self._roles.items():
                        if process.poll() is not None:
                            raise StackError(f"{role} ended by itself with exit code {process.returncode}; see above")
                    for keeper in self._keepers:
                        keeper.look()
            except _StopRequested:
                return
            finally:
                self._console.print("Stopping: the service, then Redis and PostgreSQL")

    def _start(self, running: ExitStack) -> None:
        """Start everything, each step once the one before it is done."""
        with self._step("Stop what an earlier run has left behind"):
            self._stop_leftovers()
        self._take_port()
        with self._step("Start PostgreSQL with a replica"):
            cluster = running.enter_context(primary_with_replica(self.folder / "postgres", backups=self._backups))
        with self._step("Start Redis"):
            redis = running.enter_context(RedisServer(self.folder / "redis"))
        self._configure(cluster, redis)
        with self._step("Bring the schema up to date"):
            migrate(cluster.primary.url)
        with self._step("Load the sample locations"):
            _load_locations(cluster.primary.url)
        with self._step("Publish the sample prices, once"):
            batch, _ = engine.ingest(load_settings(), str(SAMPLE_DATA / "prices-2021-01.csv.gz"), supplier="sample")
        if batch.state != "published":
            self._console.print(f"  The sample prices are batch {batch.id}, which is {batch.state}.")
        with self._step("Start the service"):
            service = running.enter_context(self._role("serve", self.port))
            self._wait_until_ready(service)
            self._roles["the service"] = service
        with self._step("Start the dispatcher, which takes what is delivered"):
            # Its health is told on the next free port.
            free = next(port for port in itertools.count(self.port + 1) if port_is_free(port))
            self._roles["the dispatcher"] = running.enter_context(self._role("dispatch", free))
        self._keepers = [
            Keeper(cluster.primary, cluster.primary.start, self._tell),
            Keeper(cluster.replica, cluster.replica.start_to_follow, self._tell),
            Keeper(redis, redis.start, self._tell),
        ]

    def _tell(self, what: str) -> None:
        self._console.print(f"  {what}", markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def _only_one(self) -> Iterator[None]:
        """Hold the folder's lock; the system lets go of it however this process ends."""
        with self._lock.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise StackError(
                    f"it runs already on {self.folder}: {file.read() or 'starting'}. "
                    "Use that one, stop it with Ctrl-C where it runs, or take another folder with --data"
                ) from None
            file.truncate(0)
            yield

    @property
    def _lock(self) -> Path:
        return self.folder / "dev.lock"

    def _take_port(self) -> None:
        """Settle on a port, and write it where a second run looks."""
        wanted = self.port
        while not port_is_free(self.port):
            self.port += 1
        if self.port != wanted:
            self._console.print(f"Port {wanted} is taken; the page is on port {self.port} instead.")
        self.operations_port = self.port + 1
        while not port_is_free(self.operations_port):
            self.operations_port += 1
        self._lock.write_text(f"{self.url} (process {os.getpid()})")

    def _stop_leftovers(self) -> None:
        """End what a killed run could not: the lock is held, so whatever runs on this folder has no owner."""
        for role in ROLES:
            if process := self._recorded(role):
                process.terminate()
                if not ended([process], LEFTOVER_SECONDS):
                    process.kill()
        postgres = self.folder / "postgres"
        for server in (
            RedisServer(self.folder / "redis"),
            PostgresServer(postgres / "replica"),
            PostgresServer(postgres / "primary"),
        ):
            server.stop()

    def _configure(self, cluster: Cluster, redis: RedisServer) -> None:
        """Set the service's variables for this process and its children, and keep the stores' for other terminals."""
        stores = {
            "RATES_DATABASE_URL": cluster.url,
            "RATES_REPLICA_URLS": cluster.replica_url,
            "RATES_REDIS_URL": redis.url,
            "RATES_DATA_DIR": str(self.folder),
        }
        if self._backups:
            stores |= {"RATES_BACKUP_URL": str(self._backups), "RATES_BACKUP_DATABASE_URL": cluster.primary.backup_url}
        os.environ.update(
            stores, RATES_HOST=HOST, RATES_PORT=str(self.port), RATES_OPERATIONS_PORT=str(self.operations_port)
        )
        os.environ.setdefault("RATES_DRAIN_SECONDS", "0")  # no load balancer has to take note
        os.environ.setdefault("RATES_LOG_FORMAT", "console")
        environment = self.folder / "env"
        environment.unlink(missing_ok=True)
        environment.touch(mode=0o600)
        environment.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in stores.items()))
        # The steps tell of what this process does itself; the service logs as it always does.
        configure_logs(load_settings().model_copy(update={"log_level": "warning"}))

    def _record(self, role: str) -> Path:
        return self.folder / f"{role}.json"

    def _recorded(self, role: str) -> psutil.Process | None:
        """Find the process that an earlier run started: the one of that number, begun at that very moment."""
        try:
            record = json.loads(self._record(role).read_text())
            process = psutil.Process(record["pid"])
        except (FileNotFoundError, psutil.NoSuchProcess):
            return None
        return process if process.create_time() == record["created"] else None

    @contextmanager
    def _role(self, role: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
        """Run a role of the service; at the end of the block it finishes what runs."""
        command = [sys.executable, "-c", "from rates_app.cli import main; main()", role]
        # In a session of its own, Ctrl-C reaches this process alone, which stops the others in their turn.
        environment = {**os.environ, "RATES_PORT": str(port)}
        with subprocess.Popen(command, env=environment, start_new_session=True) as process:
            record = {"pid": process.pid, "created": psutil.Process(process.pid).create_time()}
            self._record(role).write_text(json.dumps(record))
            try:
                yield process
            finally:
                process.terminate()
                settings = load_settings()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(settings.drain_seconds + settings.grace_seconds + 10)
                with suppress(ProcessLookupError):  # workers that a dead master has left, or that do not end
                    os.killpg(process.pid, signal.SIGKILL)
        self._record(role).unlink(missing_ok=True)

    def _wait_until_ready(self, service: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not _is_ready(self.operations_port):
            if service.poll() is not None:
                raise StackError(f"the service did not start: exit code {service.returncode}; see above")
            if time.monotonic() > deadline:
                raise StackError(f"the service is not ready after {READY_SECONDS} seconds: see {self.url}/readyz")
            if self._stop.wait(0.1):
                raise _StopRequested

    @contextmanager
    def _step(self, what: str) -> Iterator[None]:
        """Tell of a step and how long it took; begin none once the end was asked for."""
        if self._stop.is_set():
            raise _StopRequested
        began = time.monotonic()
        with self._console.status(f"{what} …"):
            yield
        self._console.print(f"  [green]✓[/] {what} [dim]{time.monotonic() - began:.1f} s[/]")

    def _tell_addresses(self) -> None:
        environment = shlex.quote(str(self._given_folder / "env"))
        self._console.print(
            f"\n  Page          {self.url}/\n"
            f"  API           {self.url}/docs\n"
            f"  Status        http://{HOST}:{self.operations_port}/status\n"
            f"  Metrics       http://{HOST}:{self.operations_port}/metrics\n"
            f"  [dim]To use `rates`, psql and so on with it, elsewhere:[/] . {escape(environment)}\n"
            "  Ctrl-C stops everything; the data stays.\n",
            highlight=False,
            soft_wrap=True,
        )

    def _request_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stop.set()


def _is_ready(port: int) -> bool:
    connection = HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _load_locations(url: str) -> None:
    """Load the sample's tree into an empty database; one that has a tree already may have been changed on purpose."""
    with psycopg.connect(url) as connection:
        if connection.execute("SELECT FROM locations LIMIT 1").fetchone() is None:
            store_locations(connection, read_locations(SAMPLE_DATA / "ports.csv", SAMPLE_DATA / "regions.csv"))
            raise_generation(connection, None)


def dev(folder: Path, port: int | None, *, archive: bool = False) -> int:
    """Run the stack and tell the user what happens.

    Args:
        folder: Where everything is kept.
        port: The service's port, if the user wants a certain one.
        archive: Keep WAL for `rates restore`.

    Returns:
        The exit code: 0 when it was asked to stop, 1 when it could not run.
    """
    console = Console(stderr=True)
    try:
        LocalStack(folder, port or FIRST_PORT, console, archive=archive).run()
    except (StackError, ServerError) as error:
        console.print(f"rates dev: {error}", markup=False, highlight=False, soft_wrap=True)
        return 1
    except PermissionError as error:
        console.print(
            f"rates dev: {error}. If another account has used {folder}, take another one with --data, "
            "or have that account remove it",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        return 1
    return 0
