"""Base backups: create, list, verify, and remove expired ones."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from rates_app.backups import wal
from rates_app.backups.repository import DESCRIPTION, BackupError, FolderRepository
from rates_app.backups.tools import run, tool, without_password
from rates_app.store.connections import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rates_app.backups.repository import Repository

#: The files that pg_basebackup writes.
FILES = ("backup_manifest", "base.tar.gz", "pg_wal.tar.gz")


class Backup(BaseModel):
    """A base backup's description, stored with it as ``backup.json``."""

    model_config = ConfigDict(frozen=True)

    label: str
    started: AwareDatetime
    #: The earliest point in time that can be restored from it.
    ended: AwareDatetime
    #: The WAL segment that contains its start.
    first_segment: str
    #: Position in the WAL, in bytes, from which it is consistent.
    end_position: int
    #: Length of a WAL segment of its server.
    segment_bytes: int
    server_version: str
    #: Size of the unpacked data.
    data_bytes: int
    kept_bytes: int
    #: Whether the server archived its WAL. Otherwise only the end of the backup can be restored.
    archiving: bool

    @property
    def timeline(self) -> int:
        """The server's timeline."""
        return int(self.first_segment[:8], 16)


class Retention(NamedTuple):
    """Retention of base backups: a backup is kept if either rule requires it."""

    #: Number of newest backups to keep.
    backups: int
    #: Period of which every point in time can be restored.
    period: timedelta = timedelta(0)

    def expired(self, backups: Sequence[Backup], now: datetime) -> list[Backup]:
        """Return the backups that neither rule requires.

        A point in time is restored from the backup before it, so that backup is kept although it is older than the
        period.

        Args:
            backups: All backups, oldest first.
            now: The current time.
        """
        surplus = max(0, len(backups) - self.backups)
        return [
            backup
            for backup, following in itertools.pairwise(backups[: surplus + 1])
            if following.ended <= now - self.period
        ]


class _WalRange(BaseModel):
    timeline: int = Field(alias="Timeline")
    start: str = Field(alias="Start-LSN")
    end: str = Field(alias="End-LSN")


class _Manifest(BaseModel):
    ranges: list[_WalRange] = Field(alias="WAL-Ranges")


def create_backup(
    kept: Repository,
    database_url: str,
    keep: Retention,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Backup:
    """Create, verify and store a base backup, and remove expired backups.

    Args:
        kept: The repository.
        database_url: The server, with a role that has REPLICATION.
        keep: Retention of base backups.
        progress: Called with the number of bytes done, and of all bytes.

    Raises:
        BackupError: The backup failed or is damaged; nothing of it remains.
        psycopg.OperationalError: The server is unreachable.
    """
    with connect(database_url, "rates-backup") as connection:
        row = connection.execute(
            """
            SELECT current_setting('server_version'), current_setting('archive_mode') <> 'off',
                   (SELECT sum(pg_database_size(oid)) FROM pg_database)::bigint,
                   (SELECT setting::integer FROM pg_settings WHERE name = 'wal_segment_size')
            """
        ).fetchone()
    assert row is not None  # noqa: S101 - a query without a table has one row
    version, archiving, data_bytes, segment_bytes = row
    started = datetime.now(UTC)
    label = f"{started:%Y%m%dT%H%M%SZ}"
    kept.drop_interrupted()
    making = kept.workspace()
    if (free := shutil.disk_usage(making).free) < data_bytes:
        making.rmdir()
        raise BackupError(
            f"{making.parent} has {free:,} bytes free, and the backup needs {data_bytes:,}: free some space"
        )
    try:
        address, password = without_password(database_url)
        run(
            [
                tool("pg_basebackup"),
                f"--dbname={address}",
                f"--pgdata={making}",
                f"--label={label}",
                "--format=tar",
                "--compress=gzip:1",
                "--wal-method=stream",  # so that it can be restored by itself
                "--checkpoint=fast",
                "--manifest-checksums=SHA256",
                "--no-password",
                "--progress",
            ],
            password=password,
            progress=progress,
        )
        run([tool("pg_verifybackup"), "--no-parse-wal", making])
        timeline, start, end = _wal_range(making)
        backup = Backup(
            label=label,
            started=started,
            ended=datetime.now(UTC),
            first_segment=wal.segment(timeline, start // segment_bytes, segment_bytes),
            end_position=end,
            segment_bytes=segment_bytes,
            server_version=version,
            data_bytes=data_bytes,
            kept_bytes=sum(path.stat().st_size for path in making.iterdir()),
            archiving=archiving,
        )
        (making / DESCRIPTION).write_text(backup.model_dump_json(indent=2))
        kept.add_folder(f"base/{label}", making)
    finally:
        shutil.rmtree(making, ignore_errors=True)  # a local repository has renamed it
    backups = find_backups(kept)
    expired = keep.expired(backups, backup.ended)
    for old in expired:
        _remove(kept, old.label)
    wal.prune(kept, [each for each in backups if each not in expired])
    return backup


def find_backups(kept: Repository) -> list[Backup]:
    """List the base backups, oldest first.

    Raises:
        BackupError: A description is unreadable.
    """
    backups = []
    for file in kept.files("base"):
        if file.name.endswith(f"/{DESCRIPTION}"):
            with kept.open(file.name) as source:
                try:
                    backups.append(Backup.model_validate_json(source.read()))
                except ValidationError as error:
                    raise BackupError(
                        f"{file.name} is damaged, so its backup is unusable: remove it ({error})"
                    ) from error
    return sorted(backups, key=lambda backup: backup.started)


def verify(kept: Repository, backup: Backup) -> wal.Reach:
    """Verify every byte of a base backup against its manifest, and that the WAL archive has no gap after it.

    Args:
        kept: The repository.
        backup: The backup.

    Returns:
        The archived WAL after the backup, on the timeline that the service uses.

    Raises:
        BackupError: A file is missing or damaged.
    """
    with tempfile.TemporaryDirectory(prefix="rates-verify-") as folder:
        for name in FILES:
            source = f"base/{backup.label}/{name}"
            if isinstance(kept, FolderRepository):
                if not (kept.path / source).exists():
                    raise BackupError(
                        f"{source} is missing: backup {backup.label} is unusable; create a new one with 'rates backup'"
                    )
                (Path(folder) / name).symlink_to(kept.path / source)
            else:
                with kept.open(source) as stream, (Path(folder) / name).open("wb") as copy:
                    shutil.copyfileobj(stream, copy)
        run([tool("pg_verifybackup"), "--no-parse-wal", folder])
    archive = wal.Archive.read(kept)
    return archive.reach(backup, archive.timeline_for(find_backups(kept)))


def _wal_range(folder: Path) -> tuple[int, int, int]:
    """Read the timeline and the positions of the backup's start and end from its manifest.

    The manifest lists the newest timeline first (PostgreSQL documentation, "Backup Manifest Format").
    """
    ranges = _Manifest.model_validate_json((folder / "backup_manifest").read_bytes()).ranges
    return ranges[-1].timeline, wal.lsn(ranges[-1].start), wal.lsn(ranges[0].end)


def _remove(kept: Repository, label: str) -> None:
    """Remove a base backup: its description first, so that a partly removed backup never looks complete."""
    for name in (DESCRIPTION, *FILES):
        kept.remove(f"base/{label}/{name}")
