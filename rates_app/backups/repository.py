"""Backup repositories: a folder, or a prefix of an S3 bucket, with the same names in both.

``wal/`` contains archived segments under PostgreSQL's names. ``base/LABEL/`` contains the files of a base backup.
``backup.json`` is written last, so a backup without it is incomplete.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple, Protocol, cast

from boto3.exceptions import S3UploadFailedError
from boto3.session import Session
from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_s3 import S3Client


#: The file that is written last.
DESCRIPTION = "backup.json"
#: Prefix of unfinished files, as in PostgreSQL's basic_archive.
UNFINISHED = "archtemp."
INTERRUPTED_AFTER = timedelta(days=1)

#: Maximum size of a file that is sent to S3 in one request, in which S3 can refuse to replace an object.
MAX_SINGLE_PUT_BYTES = 64 * 2**20


class BackupError(Exception):
    """A backup or restore failed; the message includes the next step."""


class StoredFile(NamedTuple):
    """A file in a repository."""

    name: str
    size: int
    at: datetime


class Repository(Protocol):
    """A backup repository; names are relative, with slashes."""

    def files(self, folder: str) -> list[StoredFile]:
        """List the files in a folder and below it, by name."""

    def open(self, name: str) -> IO[bytes]:
        """Open a file for sequential reading."""

    def add(self, name: str, file: Path) -> None:
        """Store a copy of a file atomically; never replace another one."""

    def workspace(self) -> Path:
        """Create a temporary folder for a new backup."""

    def add_folder(self, name: str, folder: Path) -> None:
        """Store a folder from the workspace: atomically, or with ``backup.json`` last."""

    def drop_interrupted(self) -> None:
        """Remove remains of interrupted backups after a day; newer ones may be in progress."""

    def remove(self, name: str) -> None:
        """Remove a file."""


class FolderRepository:
    """A folder of this machine or of a mounted disk."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    def files(self, folder: str) -> list[StoredFile]:
        """List the files, without unfinished ones."""
        return sorted(
            StoredFile(str(path.relative_to(self.path)), path.stat().st_size, _changed(path))
            for path in (self.path / folder).rglob("*")
            if path.is_file() and not any(part.startswith(UNFINISHED) for part in path.parts)
        )

    def open(self, name: str) -> IO[bytes]:
        """Open the file."""
        return (self.path / name).open("rb")

    def add(self, name: str, file: Path) -> None:
        """Copy to a temporary name, flush to the disk, then link: a link never replaces a file."""
        path = self.path / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = path.with_name(f"{UNFINISHED}{path.name}.{os.getpid()}")
        try:
            shutil.copyfile(file, partial)
            _flush(partial)
            try:
                path.hardlink_to(partial)
            except FileExistsError:
                raise _exists(name) from None
        finally:
            partial.unlink(missing_ok=True)
        _flush(path.parent)

    def workspace(self) -> Path:
        """Create the folder on the backup's file system, so that the backup can be renamed instead of copied."""
        base = self.path / "base"
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=base))

    def add_folder(self, name: str, folder: Path) -> None:
        """Flush everything to the disk, then rename."""
        for path in (*folder.iterdir(), folder):
            _flush(path)
        folder.rename(self.path / name)
        _flush((self.path / name).parent)

    def drop_interrupted(self) -> None:
        """Remove old folders that were never renamed."""
        for path in self.path.glob(f"base/{UNFINISHED}*"):
            if datetime.now(UTC) - _changed(path) > INTERRUPTED_AFTER:
                shutil.rmtree(path)

    def remove(self, name: str) -> None:
        """Remove the file, and its folder when that was the last one in it."""
        path = self.path / name
        path.unlink(missing_ok=True)
        if path.parent != self.path / "wal" and not any(path.parent.iterdir()):
            path.parent.rmdir()


class BucketRepository:
    """A prefix of an S3 bucket."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._s3: S3Client = Session().client("s3")

    def files(self, folder: str) -> list[StoredFile]:
        """List the objects."""
        with self._translating():
            pages = self._s3.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=f"{self._prefix}{folder}/"
            )
            return [
                StoredFile(item["Key"].removeprefix(self._prefix), item["Size"], item["LastModified"])
                for page in pages
                for item in page.get("Contents", [])
            ]

    def open(self, name: str) -> IO[bytes]:
        """Stream the object."""
        with self._translating():
            return cast("IO[bytes]", self._s3.get_object(Bucket=self._bucket, Key=self._prefix + name)["Body"])

    def add(self, name: str, file: Path) -> None:
        """Upload with a checksum; S3 refuses to replace an object if the file is sent in one request."""
        key = self._prefix + name
        with self._translating():
            if file.stat().st_size > MAX_SINGLE_PUT_BYTES:
                # Files of this size belong to a base backup, whose label is unique.
                self._s3.upload_file(str(file), self._bucket, key, ExtraArgs={"ChecksumAlgorithm": "SHA256"})
                return
            try:
                with file.open("rb") as body:
                    self._s3.put_object(
                        Bucket=self._bucket, Key=key, Body=body, IfNoneMatch="*", ChecksumAlgorithm="SHA256"
                    )
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] == HTTPStatus.PRECONDITION_FAILED:
                    raise _exists(name) from None
                raise

    def workspace(self) -> Path:
        """Create a temporary folder (in ``TMPDIR``)."""
        return Path(tempfile.mkdtemp(prefix="rates-backup-"))

    def add_folder(self, name: str, folder: Path) -> None:
        """Upload one file after the other."""
        for path in sorted(folder.iterdir(), key=lambda path: path.name == DESCRIPTION):
            self.add(f"{name}/{path.name}", path)

    def drop_interrupted(self) -> None:
        """Remove old files of backups without ``backup.json``."""
        files = self.files("base")
        whole = {file.name.rpartition("/")[0] for file in files if file.name.endswith(f"/{DESCRIPTION}")}
        for file in files:
            if file.name.rpartition("/")[0] not in whole and datetime.now(UTC) - file.at > INTERRUPTED_AFTER:
                self.remove(file.name)

    def remove(self, name: str) -> None:
        """Delete the object."""
        with self._translating():
            self._s3.delete_object(Bucket=self._bucket, Key=self._prefix + name)

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except (BotoCoreError, ClientError, S3UploadFailedError) as error:
            raise BackupError(f"the bucket {self._bucket} of RATES_BACKUP_URL: {error}") from error


class AlreadyKeptError(BackupError):
    """A file of that name exists."""


def repository(url: str) -> Repository:
    """Return the repository of an address, as in ``RATES_BACKUP_URL``."""
    if url.startswith("s3://"):
        bucket, _, prefix = url.removeprefix("s3://").rstrip("/").partition("/")
        return BucketRepository(bucket, prefix)
    return FolderRepository(Path(url))


def same(kept: Repository, name: str, file: Path) -> bool:
    """Return whether a stored file has the same content as a local one."""
    with kept.open(name) as one, file.open("rb") as other:
        while True:
            left, right = one.read(2**20), other.read(2**20)
            if left != right:
                return False
            if not left:
                return True


def _exists(name: str) -> AlreadyKeptError:
    return AlreadyKeptError(f"{name} exists already, and a backup never replaces a file")


def _changed(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
