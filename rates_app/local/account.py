"""Choose the account for the local servers, and folders that this account can access.

A normal user runs the servers under their own account. PostgreSQL refuses to run as root, so root runs them as
``nobody``. If that account cannot access a path, such as a checkout in root's home, a folder below
``/var/lib/freight-rates`` is used instead.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import subprocess
import sysconfig
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ACCOUNT_OF_ROOT = "nobody"
SHARED = Path("/var/lib/freight-rates")


@cache
def account() -> pwd.struct_passwd | None:
    """Return the account for servers, or None for the account of this process."""
    return pwd.getpwnam(ACCOUNT_OF_ROOT) if os.geteuid() == 0 else None


def run(
    command: Sequence[str | Path], *, text: str = "", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program under the servers' account and wait until it exits.

    The environment is minimal: ``PG…`` variables of the caller must not affect a server, and secrets must not remain
    readable in a daemon's environment.

    Args:
        command: The program and its arguments.
        text: Standard input.
        environment: Additional environment variables.

    Returns:
        The completed process, with both output streams in ``stdout``. The exit status is not checked.
    """
    owner = account()
    return subprocess.run(
        command,
        check=False,
        cwd="/",
        env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", **(environment or {})},
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C must reach only the starting program
        umask=0o077,
        user=owner.pw_uid if owner else None,
        group=owner.pw_gid if owner else None,
        extra_groups=[] if owner else None,
    )


def own(path: Path, mode: int) -> None:
    """Change a path's owner to the servers' account and its permissions to ``mode``."""
    path.chmod(mode)
    if owner := account():
        os.chown(path, owner.pw_uid, owner.pw_gid)


def private_folder(folder: Path) -> Path:
    """Create a folder that only the servers' account can access.

    Args:
        folder: The folder. If the account cannot reach it, it becomes a symbolic link to a folder that it can reach.

    Returns:
        The real path of the folder.

    Raises:
        PermissionError: The folder contains data, and the account can no longer reach it.
    """
    if folder.is_symlink() and not folder.exists():  # its target was removed
        folder.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    real = folder.resolve()
    own(real, 0o700)
    if run(["test", "-w", real]).returncode == 0:
        return real
    if any(real.iterdir()):
        raise PermissionError(
            f"{real} contains data, but the account {ACCOUNT_OF_ROOT!r}, which runs root's servers, cannot reach it. "
            "Make its parent folders accessible (chmod o+x), or remove it."
        )
    substitute = SHARED / hashlib.sha256(bytes(real)).hexdigest()[:16]
    SHARED.mkdir(mode=0o755, parents=True, exist_ok=True)
    # The link was removed, so the data behind it is obsolete.
    shutil.rmtree(substitute, ignore_errors=True)
    substitute.mkdir()
    own(substitute, 0o700)
    real.rmdir()
    real.symlink_to(substitute)
    return substitute


@cache
def programs(package: str, version: str, *companions: str) -> Path:
    """Return an installed package's folder whose programs the servers' account can run.

    Args:
        package: Folder of the package in site-packages.
        version: Version of the package: copies are kept per version.
        companions: Other folders in site-packages with shared libraries of the programs.

    Returns:
        The installed folder, or a copy that the account can read.
    """
    installed = Path(sysconfig.get_path("platlib"))
    if run(["test", "-x", installed / package]).returncode == 0:
        return installed / package
    copy = SHARED / f"{package}-{version}"
    if not copy.is_dir():
        SHARED.mkdir(mode=0o755, parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(dir=SHARED))
        for name in (package, *companions):
            shutil.copytree(installed / name, building / name)
        for path in (building, *building.rglob("*")):
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if mode & 0o100 else 0o444))
        try:
            building.rename(copy)
        except OSError:  # another process has created the copy
            shutil.rmtree(building)
    return copy / package
