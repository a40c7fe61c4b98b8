"""Base backups: take, list, verify, and forget the oldest."""

from __future__ import annotations

import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from rates_app.backups import wal
from rates_app.backups.repository import DESCRIPTION, BackupError, Folder
from rates_app.backups.tools import run, tool, without_password

if TYPE_CHECKING:
    from collections.abc import Callable

    from rates_app.backups.repository import Repository

#: What pg_basebackup writes.
FILES = ("backup_manifest", "base.tar.gz", "pg_wal.tar.gz")


class Backup(BaseModel):
    """What is known of a base backup; kept with it as ``backup.json``."""

    model_config = ConfigDict(frozen=True)

    label: str
    started: AwareDatetime
    #: From this moment on, points in time can be restored from it.
    ended: AwareDatetime
    #: The WAL segment that it begins in.
    first_segment: str
    server_version: str
    #: Bytes of the data when it is unpacked.
    data_bytes: int
    kept_bytes: int
    #: Whether the server archived its WAL; without that, only the moment of the backup's end can be restored.
    archiving: bool


class _WalRange(BaseModel):
    timeline: int = Field(alias="Timeline")
    start: str = Field(alias="Start-LSN")


class _Manifest(BaseModel):
    ranges: list[_WalRange] = Field(alias="WAL-Ranges")


def take(
    kept: Repository, database_url: str, keep: int, progress: Callable[[int, int], None] = lambda _done, _total: None
) -> Backup:
    """Take a base backup, verify it, keep it, and forget what is no longer to be kept.

    Args:
        kept: Where it goes.
        database_url: The server, for a role that has REPLICATION.
        keep: How many base backups to keep.
        progress: Told how many bytes are done and how many there are.

    Raises:
        BackupError: It could not be made, or is damaged; nothing of it is left.
        psycopg.OperationalError: The server cannot be reached.
    """
    with psycopg.connect(database_url, connect_timeout=5, application_name="rates-backup") as connection:
        row = connection.execute(
            """
            SELECT current_setting('server_version'), current_setting('archive_mode') <> 'off',
                   (SELECT sum(pg_database_size(oid)) FROM pg_database)::bigint
            """
        ).fetchone()
    assert row is not None  # noqa: S101 - a query without a table has one row
    version, archiving, data_bytes = row
    started = datetime.now(UTC)
    label = f"{started:%Y%m%dT%H%M%SZ}"
    kept.drop_interrupted()
    making = kept.workspace()
    if (free := shutil.disk_usage(making).free) < data_bytes:
        making.rmdir()
        raise BackupError(f"{making.parent} has {free:,} bytes left, the data are {data_bytes:,}: make room there")
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
        backup = Backup(
            label=label,
            started=started,
            ended=datetime.now(UTC),
            first_segment=_first_segment(making),
            server_version=version,
            data_bytes=data_bytes,
            kept_bytes=sum(path.stat().st_size for path in making.iterdir()),
            archiving=archiving,
        )
        (making / DESCRIPTION).write_text(backup.model_dump_json(indent=2))
        kept.add_folder(f"base/{label}", making)
    finally:
        shutil.rmtree(making, ignore_errors=True)  # in a folder it has been renamed
    backups = found(kept)
    for old in backups[:-keep]:
        _remove(kept, old.label)
    wal.prune(kept, backups[-keep:][0].first_segment)
    return backup


def found(kept: Repository) -> list[Backup]:
    """List the base backups, oldest first.

    Raises:
        BackupError: A description cannot be read.
    """
    backups = []
    for file in kept.files("base"):
        if file.name.endswith(f"/{DESCRIPTION}"):
            with kept.open(file.name) as source:
                try:
                    backups.append(Backup.model_validate_json(source.read()))
                except ValidationError as error:
                    raise BackupError(f"{file.name} is damaged, and its backup with it: remove it ({error})") from error
    return sorted(backups, key=lambda backup: backup.started)


def verify(kept: Repository, backup: Backup) -> wal.Reach:
    """Check every byte of a base backup against its manifest, and that the archive leads on from it.

    Args:
        kept: Where it is.
        backup: The backup.

    Returns:
        How far the archive leads on.

    Raises:
        BackupError: Something is missing or damaged.
    """
    with tempfile.TemporaryDirectory(prefix="rates-verify-") as folder:
        for name in FILES:
            source = f"base/{backup.label}/{name}"
            if isinstance(kept, Folder):
                if not (kept.path / source).exists():
                    raise BackupError(f"{source} is missing: the backup {backup.label} is of no use; make a new one")
                (Path(folder) / name).symlink_to(kept.path / source)
            else:
                with kept.open(source) as stream, (Path(folder) / name).open("wb") as copy:
                    shutil.copyfileobj(stream, copy)
        run([tool("pg_verifybackup"), "--no-parse-wal", folder])
    return wal.reach(kept, backup.first_segment)


def _first_segment(folder: Path) -> str:
    """Read from the manifest where the backup's WAL begins (PostgreSQL documentation, "Backup Manifest Format")."""
    manifest = _Manifest.model_validate_json((folder / "backup_manifest").read_bytes())
    wal_range = manifest.ranges[0]
    high, low = (int(part, 16) for part in wal_range.start.split("/"))
    return wal.segment(f"{wal_range.timeline:08X}", ((high << 32) + low) // wal.SEGMENT_BYTES)


def _remove(kept: Repository, label: str) -> None:
    """Remove a base backup: its description first, so that a half removed one is never taken for a whole."""
    for name in (DESCRIPTION, *FILES):
        kept.remove(f"base/{label}/{name}")
