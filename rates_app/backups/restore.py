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
from typing import TYPE_CHECKING, NamedTuple

from rates_app.backups import wal
from rates_app.backups.base import find_backups
from rates_app.backups.repository import AlreadyKeptError, BackupError, FolderRepository
from rates_app.backups.tools import embedded, run, tool
from rates_app.backups.wal import Archive
from rates_app.local.account import account

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rates_app.backups.base import Backup
    from rates_app.backups.repository import Repository
    from rates_app.backups.wal import Reach

    ProgressReporter = Callable[[str, int, int], None]

#: Attempts of a restore if another one uses its timeline number first.
MAX_ATTEMPTS = 3
#: Folder in the new data directory for WAL from a bucket, until it is replayed.
FETCHED = "restored_wal"
LAST_TRANSACTION = re.compile(r"last completed transaction was at log time (.+)")
POLL_SECONDS = 0.2


class RestorePlan(NamedTuple):
    """The base backup and the WAL of a restore."""

    backup: Backup
    archive: Archive
    timeline: int
    #: The archived WAL to replay; None if the backup is restored without.
    reach: Reach | None


class Restored(NamedTuple):
    """The result of a restore."""

    #: The time of the last replayed transaction as PostgreSQL logs it; empty if there was none.
    last_transaction: str
    #: The new server's timeline.
    timeline: int


def plan(kept: Repository, at: datetime | None, label: str | None = None, timeline: int | None = None) -> RestorePlan:
    """Choose the timeline, and the last base backup on it that had ended at a time.

    Args:
        kept: The repository.
        at: The point in time to restore; None for the latest that is archived.
        label: Label of the base backup; None to choose it.
        timeline: The timeline to follow; None for the one that the service used at that time.

    Raises:
        BackupError: There is no such backup, or the archive has a gap.
    """
    archive = Archive.read(kept)
    backups = find_backups(kept)
    if timeline is None:
        timeline = archive.timeline_for(backups, at)
    fitting = [
        backup
        for backup in archive.including(timeline, backups)
        if (at is None or backup.ended <= at) and label in (None, backup.label)
    ]
    if not fitting:
        what = f"backup {label}" if label else "backup"
        when = f" that had ended at {at:%Y-%m-%d %H:%M:%S %Z}" if at else ""
        raise BackupError(f"there is no {what} of timeline {timeline}{when}: 'rates backup list' lists all")
    backup = fitting[-1]
    # A gap after the time doesn't matter; a gap before it is an error that PostgreSQL reports.
    reach = archive.reach(backup, timeline, up_to_gap=at is not None) if backup.archiving else None
    return RestorePlan(backup, archive, timeline, reach)


def restore(
    kept: Repository, chosen: RestorePlan, into: Path, at: datetime | None, progress: ProgressReporter
) -> Restored:
    """Restore a data directory to a point in time: verified, on a new timeline, and stopped.

    The new timeline's history file is archived before the directory appears. Without it, a later restore could not
    follow the timeline, and another one would take the same number.

    Args:
        kept: The repository.
        chosen: The result of :func:`plan`.
        into: The new data directory; it must not exist. It appears when the restore is complete.
        at: The point in time; None for the end of the archive.
        progress: Called with the step, the amount done and the total.

    Raises:
        BackupError: The restore failed; nothing of it remains.
    """
    if into.exists():
        raise BackupError(f"{into} exists: name a new folder, so that nothing is overwritten")
    into.parent.mkdir(parents=True, exist_ok=True)
    backup = chosen.backup
    segments = chosen.reach.segments if chosen.reach else ()
    needed = backup.data_bytes + (0 if isinstance(kept, FolderRepository) else len(segments) * backup.segment_bytes)
    if (free := shutil.disk_usage(into.parent).free) < needed:
        raise BackupError(f"{into.parent} has {free:,} bytes free, and the restore needs {needed:,}: free some space")
    building = into.with_name(f"{into.name}.building")
    try:
        for attempt in range(1, MAX_ATTEMPTS + 1):
            shutil.rmtree(building, ignore_errors=True)
            building.mkdir(mode=0o700)
            _unpack(kept, backup, building, progress)
            run([tool("pg_verifybackup"), building])
            archive = (
                kept.path / "wal" if isinstance(kept, FolderRepository) else _fetch(kept, segments, building, progress)
            )
            last = _replay(building, archive, chosen, at, progress)
            try:
                timeline = _archive_history(kept, building)
            except AlreadyKeptError:  # another restore or promotion has used the number meanwhile
                if attempt == MAX_ATTEMPTS:
                    raise
            else:
                break
        shutil.rmtree(building / FETCHED, ignore_errors=True)
        building.rename(into)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return Restored(last, timeline)


def _archive_history(kept: Repository, folder: Path) -> int:
    """Archive the history file of the timeline that recovery has begun, and return the timeline's number."""
    newest = max((folder / "pg_wal").glob("*.history"), key=lambda path: path.name)
    wal.archive(kept, newest)
    if isinstance(kept, FolderRepository) and (owner := account()) is not None:
        os.chown(kept.path / "wal" / newest.name, owner.pw_uid, owner.pw_gid)
    return int(newest.stem, 16)


def _unpack(kept: Repository, backup: Backup, folder: Path, progress: ProgressReporter) -> None:
    done = 0
    for name, below in (("base.tar.gz", folder), ("pg_wal.tar.gz", folder / "pg_wal")):
        # pg_basebackup writes several gzip members, which gzip reads and tarfile does not.
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


def _fetch(kept: Repository, segments: Sequence[str], folder: Path, progress: ProgressReporter) -> Path:
    archive = folder / FETCHED
    archive.mkdir(mode=0o700)
    histories = [file.name.removeprefix("wal/") for file in kept.files("wal") if file.name.endswith(".history")]
    for name in histories:
        with kept.open(f"wal/{name}") as source, (archive / name).open("wb") as copy:
            shutil.copyfileobj(source, copy)
    for number, name in enumerate(segments, start=1):
        with kept.open(f"wal/{name}") as source, (archive / name).open("wb") as copy:
            shutil.copyfileobj(source, copy)
        progress("fetching WAL", number, len(segments))
    return archive


def _replay(folder: Path, archive: Path, chosen: RestorePlan, at: datetime | None, progress: ProgressReporter) -> str:
    """Run a server without clients on the folder until it has replayed the WAL and is promoted, then stop it."""
    for name, text in (("postgresql.conf", ""), ("pg_hba.conf", "local all all peer\n")):
        if not (folder / name).exists():  # some distributions store these elsewhere
            (folder / name).write_text(text)
    (folder / "recovery.signal").touch(mode=0o600)
    options = {
        "restore_command": f"cp {shlex.quote(str(archive))}/%f %p",
        "recovery_target_timeline": str(chosen.timeline),
        "recovery_target_action": "promote",
        "listen_addresses": "",
        "logging_collector": "off",
        # This server must not archive segments, or wait for replicas, of the original server.
        "archive_mode": "off",
        "synchronous_standby_names": "",
    }
    if at is not None:
        options["recovery_target_time"] = at.astimezone(UTC).isoformat()
    segments = chosen.reach.segments if chosen.reach else ()
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
                progress("replaying", log.read_text().count("restored log file"), len(segments))
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
    """Return the reason from the log of a server that has stopped."""
    if at is not None and "before configured recovery target was reached" in log:
        last = LAST_TRANSACTION.findall(log)
        end = f"at {last[-1]}" if last else "where the backup does"
        return (
            f"the archive ends {end}, before {at:%Y-%m-%d %H:%M:%S %Z}: wait until the WAL of that time is archived "
            "(archive_timeout, or SELECT pg_switch_wal()), or restore without --at"
        )
    return "\n  ".join(["PostgreSQL failed to replay the WAL. The end of its log:", *log.splitlines()[-15:]])
