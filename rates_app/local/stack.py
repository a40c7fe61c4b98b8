"""Start, supervise and stop the whole system on one machine: the implementation of ``rates dev``."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
import sysconfig
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
from rates_app.local.postgres import PostgresPair, PostgresServer, primary_with_replica
from rates_app.local.redis import RedisServer
from rates_app.local.server import HOST, ServerError, port_is_free, wait_until_ended
from rates_app.local.supervisor import Supervisor
from rates_app.ops.logs import configure_logs
from rates_app.rates.locations import read_locations, store_locations
from rates_app.settings import DatabaseRole, load_settings
from rates_app.store.generation import increment_generation
from rates_app.store.roles import ROLES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

SAMPLE_DATA = Path(__file__).parents[2] / "sample_data"
FIRST_PORT = 8080
#: Commands that run the service, in start order, with their roles in the stores.
DATABASE_ROLES: dict[str, DatabaseRole] = {"serve": "serving", "dispatch": "ingest"}
READY_SECONDS = 60
# Time that a role of a previous run gets to drain and exit before it is killed.
LEFTOVER_SECONDS = 40


class StackError(Exception):
    """The stack cannot run or has failed. The message says what to do."""


class _StopRequested(Exception):
    """A signal requested a stop during start-up."""


class LocalStack:
    """PostgreSQL with a replica, Redis, the sample data and the service, in one folder.

    Args:
        folder: The folder for all data; created if missing.
        port: The service's port; the next free port is used if it is taken.
        console: Output for progress messages.
        archive: Archive WAL for `rates restore`, in ``backups``.
    """

    def __init__(self, folder: Path, port: int, console: Console, *, archive: bool = False) -> None:
        self._backups = folder.absolute() / "backups" if archive else None
        self._given_folder = folder
        self.folder = folder.absolute()
        self.port = port
        self._console = console
        self._stop = threading.Event()
        #: Running roles by their name in messages.
        self._roles: dict[str, subprocess.Popen[bytes]] = {}
        self._supervisors: list[Supervisor] = []

    @property
    def url(self) -> str:
        """URL of the web page."""
        return f"http://{HOST}:{self.port}"

    def run(self) -> None:
        """Run until SIGINT, SIGTERM or SIGHUP, then stop everything in order.

        A signal takes effect between two steps: each step completes, so no process is left behind.

        Raises:
            StackError: Another stack is running on the folder, or a role of the service has exited.
            ServerError: PostgreSQL or Redis did not start, or keeps exiting.
        """
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # keep a SIGHUP ignored by nohup ignored
                signal.signal(number, self._request_stop)
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as running:
            running.enter_context(self._only_one())
            try:
                self._start(running)
                self._print_addresses()
                while not self._stop.wait(0.5):
                    for role, process in self._roles.items():
                        if process.poll() is not None:
                            raise StackError(
                                f"{role} exited unexpectedly with code {process.returncode}; see its log above"
                            )
                    for supervisor in self._supervisors:
                        supervisor.check()
            except _StopRequested:
                return
            finally:
                self._console.print("Stopping the service, Redis and PostgreSQL")

    def _start(self, running: ExitStack) -> None:
        """Start everything, one step after another."""
        with self._step("Stop processes of a previous run"):
            self._stop_leftovers()
        with self._step("Start PostgreSQL with a replica"):
            cluster = running.enter_context(primary_with_replica(self.folder / "postgres", backups=self._backups))
        with self._step("Start Redis"):
            redis = running.enter_context(RedisServer(self.folder / "redis"))
        self._configure(cluster, redis)
        with self._step("Migrate the database"):
            cluster.primary.migrate()
        with self._step("Load the sample locations"):
            _load_locations(cluster.primary.url)
        with self._step("Publish the sample prices"):
            batch, _ = engine.ingest(load_settings(), str(SAMPLE_DATA / "prices-2021-01.csv.gz"), supplier="sample")
        if batch.state != "published":
            self._console.print(f"  Batch {batch.id}, the sample prices, is {batch.state}.")
        self._choose_ports()  # only now: another program could take a port that is chosen but not yet in use
        with self._step("Start the service"):
            service = running.enter_context(self._role("serve", self.port))
            self._wait_until_ready(service)
            self._roles["the service"] = service
        with self._step("Start the dispatcher"):
            # Its health endpoint gets the next free port.
            health = _free_port_from(self.port + 1)
            self._roles["the dispatcher"] = running.enter_context(self._role("dispatch", health))
        self._supervisors = [
            Supervisor(cluster.primary, cluster.primary.start, self._report),
            Supervisor(cluster.replica, cluster.replica.start_following, self._report),
            Supervisor(redis, redis.start, self._report),
        ]

    def _report(self, what: str) -> None:
        self._console.print(f"  {what}", markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def _only_one(self) -> Iterator[None]:
        """Hold the folder's lock. The kernel releases it when this process exits."""
        with self._lock.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise StackError(
                    f"a stack is already running on {self.folder}: {file.read() or 'starting'}. "
                    "Use it, stop it with Ctrl-C in its terminal, or choose another folder with --data."
                ) from None
            file.truncate(0)
            yield

    @property
    def _lock(self) -> Path:
        return self.folder / "dev.lock"

    def _choose_ports(self) -> None:
        """Choose free ports, and write the address into the lock file, for the message of a second run."""
        wanted = self.port
        self.port = _free_port_from(wanted)
        if self.port != wanted:
            self._console.print(f"Port {wanted} is in use. The service uses port {self.port}.")
        self.operations_port = _free_port_from(self.port + 1)
        os.environ["RATES_OPERATIONS_PORT"] = str(self.operations_port)
        self._lock.write_text(f"{self.url} (process {os.getpid()})")

    def _stop_leftovers(self) -> None:
        """Stop processes of a killed run. This process holds the lock, so no other stack owns them."""
        for role in DATABASE_ROLES:
            if process := self._recorded(role):
                process.terminate()
                if not wait_until_ended([process], LEFTOVER_SECONDS):
                    process.kill()
        postgres = self.folder / "postgres"
        for server in (
            RedisServer(self.folder / "redis"),
            PostgresServer(postgres / "replica"),
            PostgresServer(postgres / "primary"),
        ):
            server.stop()

    def _configure(self, cluster: PostgresPair, redis: RedisServer) -> None:
        """Set the service's environment variables, and write those of the stores to a file for other terminals."""
        stores = {
            "RATES_DATABASE_URL": cluster.url,
            **{f"RATES_{name.upper()}": url for name, url in cluster.role_urls.items()},
            "RATES_REPLICA_URLS": cluster.serving_replica_url,
            "RATES_REDIS_URL": redis.role_url("operator"),
            "RATES_DATA_DIR": str(self.folder),
            "RATES_CACHE_KEY": secrets.token_hex(32),
        }
        if self._backups:
            stores |= {"RATES_BACKUP_URL": str(self._backups), "RATES_BACKUP_DATABASE_URL": cluster.primary.backup_url}
        os.environ.update(stores, RATES_HOST=HOST)
        os.environ.setdefault("RATES_DRAIN_SECONDS", "0")  # there is no load balancer to wait for
        os.environ.setdefault("RATES_LOG_FORMAT", "console")
        os.environ.setdefault("RATES_PUBLIC_BATCHES", "true")  # the stack listens on this machine only
        environment = self.folder / "env"
        environment.unlink(missing_ok=True)
        environment.touch(mode=0o600)
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in stores.items()]
        commands = shlex.quote(sysconfig.get_path("scripts"))  # the folder of the command `rates`
        environment.write_text("".join([*lines, f'export PATH={commands}:"$PATH"\n']))
        # This process prints its steps; the service's roles log as usual.
        configure_logs(load_settings().model_copy(update={"log_level": "warning"}))

    def _record(self, role: str) -> Path:
        return self.folder / f"{role}.json"

    def _recorded(self, role: str) -> psutil.Process | None:
        """Return a previous run's process. The creation time distinguishes it from a reused process id."""
        try:
            record = json.loads(self._record(role).read_text())
            process = psutil.Process(record["pid"])
        except (FileNotFoundError, psutil.NoSuchProcess):
            return None
        return process if process.create_time() == record["created"] else None

    @contextmanager
    def _role(self, role: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
        """Run a role of the service within the block, then shut it down."""
        command = [sys.executable, "-c", "from rates_app.cli import main; main()", role]
        # A separate session: Ctrl-C reaches only this process, which stops the roles in order.
        environment = {**os.environ, "RATES_PORT": str(port)}
        # As in a cluster, a command has the addresses of its role only.
        for name in ROLES:
            url = environment.pop(f"RATES_{name.upper()}_DATABASE_URL")
            if name == DATABASE_ROLES[role]:
                environment["RATES_DATABASE_URL"] = url
        environment["RATES_REDIS_URL"] = RedisServer(self.folder / "redis").role_url(DATABASE_ROLES[role])
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
                with suppress(ProcessLookupError):  # workers that outlived a dead master or do not exit
                    os.killpg(process.pid, signal.SIGKILL)
        self._record(role).unlink(missing_ok=True)

    def _wait_until_ready(self, service: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not _is_ready(self.operations_port):
            if service.poll() is not None:
                raise StackError(f"the service did not start: exit code {service.returncode}; see its log above")
            if time.monotonic() > deadline:
                raise StackError(f"the service is not ready after {READY_SECONDS} seconds; see {self.url}/readyz")
            if self._stop.wait(0.1):
                raise _StopRequested

    @contextmanager
    def _step(self, what: str) -> Iterator[None]:
        """Run a step and print its duration. Raise :class:`_StopRequested` if a stop was requested."""
        if self._stop.is_set():
            raise _StopRequested
        began = time.monotonic()
        with self._console.status(f"{what} …"):
            yield
        self._console.print(f"  [green]✓[/] {what} [dim]{time.monotonic() - began:.1f} s[/]")

    def _print_addresses(self) -> None:
        environment = shlex.quote(str(self._given_folder / "env"))
        self._console.print(
            f"\n  Page          {self.url}/\n"
            f"  API           {self.url}/docs\n"
            f"  Status        http://{HOST}:{self.operations_port}/status\n"
            f"  Metrics       http://{HOST}:{self.operations_port}/metrics\n"
            f"  Batches       {self._batch_access()}\n"
            f"  [dim]For `rates`, psql etc. in other terminals:[/] . {escape(environment)}\n"
            "  Ctrl-C stops everything and keeps the data.\n",
            highlight=False,
            soft_wrap=True,
        )

    def _batch_access(self) -> str:
        if load_settings().public_batches:
            return "visible to everyone, for demonstration: RATES_PUBLIC_BATCHES=true"
        return "visible to their supplier and to operators, with a token"

    def _request_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stop.set()


def _free_port_from(port: int) -> int:
    """Return the first free port from a port upwards."""
    return next(number for number in itertools.count(port) if port_is_free(number))


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
    """Load the sample locations into an empty database. Existing locations are kept: they may have been changed."""
    with psycopg.connect(url) as connection:
        if connection.execute("SELECT FROM locations LIMIT 1").fetchone() is None:
            store_locations(connection, read_locations(SAMPLE_DATA / "ports.csv", SAMPLE_DATA / "regions.csv"))
            increment_generation(connection, None)


def dev(folder: Path, port: int | None, *, archive: bool = False) -> int:
    """Run the stack and print errors for the user.

    Args:
        folder: The folder for all data.
        port: The service's port; None for the default.
        archive: Archive WAL for `rates restore`.

    Returns:
        The exit code: 0 after a requested stop, 1 after a failure.
    """
    console = Console(stderr=True)
    try:
        LocalStack(folder, port or FIRST_PORT, console, archive=archive).run()
    except (StackError, ServerError) as error:
        console.print(f"rates dev: {error}", markup=False, highlight=False, soft_wrap=True)
        return 1
    except PermissionError as error:
        console.print(
            f"rates dev: {error}. If {folder} belongs to another account, choose another folder with --data, "
            "or remove it under that account.",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        return 1
    return 0
