"""Restore a base backup into a new data directory, and replay archived WAL to a point in time."""

from __future__ import annotations

import gzip
import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rates_app.backups import wal
from rates_app.backups.base import found
from rates_app.backups.repository import BackupError, Folder
from rates_app.backups.tools import embedded, run, tool
from rates_app.local.account import account

if TYPE_CHECKING:
    from collections.abc import Callable

    from rates_app.backups.base import Backup
    from rates_app.backups.repository import Repository

    Progress = Callable[[str, int, int], None]

#: Where WAL from a bucket waits, within the new data directory, until it is replayed.
FETCHED = "restored_wal"
LAST_TRANSACTION = re.compile(r"last completed transaction was at log time (.+)")
POLL_SECONDS = 0.2


def choose(kept: Repository, at: datetime | None, label: str | None = None) -> Backup:
    """Find the backup to begin with: the last one that had ended at a time.

    Args:
        kept: Where backups are.
        at: The point in time to restore; the latest that there is if None.
        label: The backup that it has to be.

    Raises:
        BackupError: There is none.
    """
    backups = found(kept)
    if label is not None:
        backups = [backup for backup in backups if backup.label == label]
    fitting = [backup for backup in backups if at is None or backup.ended <= at]
    if not fitting:
        what = f"backup {label}" if label else "backup"
        when = f" that had ended at {at:%Y-%m-%d %H:%M:%S %Z}" if at else ""
        raise BackupError(f"there is no {what}{when}: 'rates backup list' shows what can be restored")
    return fitting[-1]


def restore(kept: Repository, backup: Backup, into: Path, at: datetime | None, progress: Progress) -> str:
    """Make a data directory as it was at a point in time, verified, on a timeline of its own, and stopped.

    Args:
        kept: Where backups are.
        backup: The base backup to begin with.
        into: The new data directory; it must not exist. It appears when all is done.
        at: The point in time; the end of the archive if None.
        progress: Told the step, how much of it is done, and how much there is.

    Returns:
        The time of the last transaction that was replayed, as PostgreSQL tells it; empty if there was none.

    Raises:
        BackupError: It cannot be done; nothing is left.
    """
    if into.exists():
        raise BackupError(f"{into} exists: name a new folder, so that nothing is written over")
    into.parent.mkdir(parents=True, exist_ok=True)
    segments = _segments(kept, backup)
    needed = backup.data_bytes + (0 if isinstance(kept, Folder) else len(segments) * wal.SEGMENT_BYTES)
    if (free := shutil.disk_usage(into.parent).free) < needed:
        raise BackupError(f"{into.parent} has {free:,} bytes left and {needed:,} are needed: make room there")
    building = into.with_name(f"{into.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(mode=0o700)
    try:
        _unpack(kept, backup, building, progress)
        run([tool("pg_verifybackup"), building])
        archive = kept.path / "wal" if isinstance(kept, Folder) else _fetch(kept, segments, building, progress)
        last = _replay(building, archive, len(segments), at, progress)
        shutil.rmtree(building / FETCHED, ignore_errors=True)
        building.rename(into)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return last


def _segments(kept: Repository, backup: Backup) -> list[str]:
    """List what is archived and may be needed: segments from the backup on, and histories of timelines."""
    if backup.archiving:
        wal.reach(kept, backup.first_segment)
    names = [file.name.removeprefix("wal/") for file in kept.files("wal")]
    return [
        name
        for name in names
        if name.endswith(".history")
        or (wal.SEGMENT.fullmatch(name) and wal.position(name) >= wal.position(backup.first_segment))
    ]


def _unpack(kept: Repository, backup: Backup, folder: Path, progress: Progress) -> None:
    done = 0
    for name, below in (("base.tar.gz", folder), ("pg_wal.tar.gz", folder / "pg_wal")):
        # gzip reads a file of several members, as pg_basebackup writes them; tarfile by itself would not.
        with (
            kept.open(f"base/{backup.label}/{name}") as source,
            gzip.open(source) as plain,
            tarfile.open(fileobj=plain, mode="r|") as archive,
        ):
            for member in archive:
                archive.extract(member, below, filter="tar")
                done += member.size
                progress("unpacking", done, backup.data_bytes)
    with (folder / "backup_manifest").open("wb") as copy, kept.open(f"base/{backup.label}/backup_manifest") as source:
        shutil.copyfileobj(source, copy)


def _fetch(kept: Repository, segments: list[str], folder: Path, progress: Progress) -> Path:
    archive = folder / FETCHED
    archive.mkdir(mode=0o700)
    for number, name in enumerate(segments, start=1):
        with kept.open(f"wal/{name}") as source, (archive / name).open("wb") as copy:
            shutil.copyfileobj(source, copy)
        progress("fetching WAL", number, len(segments))
    return archive


def _replay(folder: Path, archive: Path, segments: int, at: datetime | None, progress: Progress) -> str:
    """Run the server on the folder, for nobody, until it has replayed what is wanted; then stop it in good order."""
    for name, text in (("postgresql.conf", ""), ("pg_hba.conf", "local all all peer\n")):
        if not (folder / name).exists():  # distributions keep these elsewhere
            (folder / name).write_text(text)
    (folder / "recovery.signal").touch(mode=0o600)
    options = {
        "restore_command": f"cp {shlex.quote(str(archive))}/%f %p",
        "recovery_target_timeline": "latest",
        "recovery_target_action": "promote",
        "listen_addresses": "",
        "logging_collector": "off",
        # What is replayed here must never reach the archive or the replicas of the server that was backed up.
        "archive_mode": "off",
        "synchronous_standby_names": "",
    }
    if at is not None:
        options["recovery_target_time"] = at.astimezone(UTC).isoformat()
    owner = account()
    if owner is not None:
        if not embedded():
            raise BackupError(
                "PostgreSQL does not run as root: run this as its own account, as in 'runuser -u postgres'"
            )
        for path in (folder, *folder.rglob("*")):
            os.chown(path, owner.pw_uid, owner.pw_gid)
    with tempfile.TemporaryDirectory(prefix="rates-restore-") as private, (Path(private) / "log").open("w") as output:
        log = Path(private) / "log"
        options["unix_socket_directories"] = private
        if owner is not None:
            os.chown(private, owner.pw_uid, owner.pw_gid)
        server = subprocess.Popen(
            [
                tool("postgres"),
                "-D",
                folder,
                *itertools.chain.from_iterable(("-c", f"{name}={value}") for name, value in options.items()),
            ],
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            stdout=output,
            stderr=output,
            start_new_session=True,
            umask=0o077,
            user=owner.pw_uid if owner else None,
            group=owner.pw_gid if owner else None,
            extra_groups=[] if owner else None,
        )
        try:
            while (folder / "recovery.signal").exists() or not _is_in_production(folder):
                if server.poll() is not None:
                    raise BackupError(_why(log.read_text(), at))
                progress("replaying", log.read_text().count("restored log file"), segments)
                time.sleep(POLL_SECONDS)
        finally:
            server.send_signal(signal.SIGINT)  # a fast shutdown
            server.wait()
        replayed = LAST_TRANSACTION.findall(log.read_text())
    return replayed[-1] if replayed else ""


def _is_in_production(folder: Path) -> bool:
    state = subprocess.run([tool("pg_controldata"), folder], check=True, capture_output=True, text=True).stdout
    return "in production" in state


def _why(log: str, at: datetime | None) -> str:
    """Say why the server has ended by itself."""
    if at is not None and "before configured recovery target was reached" in log:
        last = LAST_TRANSACTION.findall(log)
        end = f"at {last[-1]}" if last else "where the backup does"
        return (
            f"the archive ends {end}, before {at:%Y-%m-%d %H:%M:%S %Z}: wait until the WAL of that time is archived "
            "(archive_timeout, or SELECT pg_switch_wal()), or restore without --at"
        )
    return "\n  ".join(["PostgreSQL could not replay the WAL; it said:", *log.splitlines()[-15:]])
