"""Under whose account the local servers run, and where that account can read programs and keep data.

An ordinary user runs them as themselves. PostgreSQL refuses to run as root, so root runs them as ``nobody``; what that
account cannot reach (a checkout below a home that only root may enter) gets a place under ``/var/lib/freight-rates``.
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
    """Return the account to run servers under, or None for the one that runs this process."""
    return pwd.getpwnam(ACCOUNT_OF_ROOT) if os.geteuid() == 0 else None


def run(
    command: Sequence[str | Path], *, text: str = "", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a server's program to its end as the servers' account.

    The environment is a minimal one, so that neither a caller's ``PG…`` variables change what is started nor its
    secrets stay readable in a daemon.

    Args:
        command: The program and its arguments.
        text: What it reads from standard input; nothing by default.
        environment: Variables it gets besides the usual ones.

    Returns:
        The finished process, whatever its exit status, with both output streams in ``stdout``.
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
        start_new_session=True,  # Ctrl-C is for the program that started it
        umask=0o077,
        user=owner.pw_uid if owner else None,
        group=owner.pw_gid if owner else None,
        extra_groups=[] if owner else None,
    )


def own(path: Path, mode: int) -> None:
    """Give a file or folder to the servers' account, with the permissions ``mode``."""
    path.chmod(mode)
    if owner := account():
        os.chown(path, owner.pw_uid, owner.pw_gid)


def private_folder(folder: Path) -> Path:
    """Make a folder that the servers' account alone may enter.

    Args:
        folder: The folder that is wanted. Where the account cannot reach it, it becomes a link to one that it can.

    Returns:
        The folder's real path, which exists.
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
            f"{real} holds data but {ACCOUNT_OF_ROOT!r}, under which root's servers run, can no longer reach it: "
            "let others enter the folders above it (chmod o+x), or remove it to begin anew"
        )
    substitute = SHARED / hashlib.sha256(bytes(real)).hexdigest()[:16]
    SHARED.mkdir(mode=0o755, parents=True, exist_ok=True)
    # Whoever removed the link wanted the data gone; what is still there is of no use to anyone.
    shutil.rmtree(substitute, ignore_errors=True)
    substitute.mkdir()
    own(substitute, 0o700)
    real.rmdir()
    real.symlink_to(substitute)
    return substitute


@cache
def programs(package: str, version: str, *companions: str) -> Path:
    """Find an installed package whose programs the servers' account can run.

    Args:
        package: Folder of the package in site-packages.
        version: The package's version: a copy made for another version is not taken for this one.
        companions: Other folders in site-packages that its programs load libraries from, by relative path.

    Returns:
        The package's folder: the installed one, or a readable copy of it.
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
        except OSError:  # another process was first
            shutil.rmtree(building)
    return copy / package
