"""In S3, WAL is stored once and never replaced, and backups can be restored with their WAL."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import boto3
import pytest
from moto import mock_aws

from rates_app.backups import base, wal
from rates_app.backups.repository import BackupError, repository
from rates_app.backups.restore import plan, restore
from rates_app.local.account import private_folder
from rates_app.local.postgres import PostgresServer
from tests.integration.backups.test_backup import archive_everything, execute, rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SEGMENT_BYTES = 16 * 2**20
URL = "s3://backups/rates"


@pytest.fixture
def _bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        boto3.client("s3").create_bucket(Bucket="backups")
        yield


@pytest.mark.usefixtures("_bucket")
@pytest.mark.parametrize("url", [URL, "folder"])
def test_a_segment_is_stored_once_and_never_replaced(tmp_path: Path, url: str) -> None:
    kept = repository(url if url == URL else str(tmp_path / "kept"))
    segment = tmp_path / "000000010000000000000001"
    segment.write_bytes(b"a" * SEGMENT_BYTES)
    assert wal.archive(kept, segment)
    assert not wal.archive(kept, segment)  # the server repeats the call if it crashed before it recorded the first one
    segment.write_bytes(b"b" * SEGMENT_BYTES)
    with pytest.raises(BackupError, match="another server archives to the same"):
        wal.archive(kept, segment)
    with kept.open(f"wal/{segment.name}") as stream:
        assert stream.read(1) == b"a"
    with pytest.raises(BackupError, match="must be 'rates backup archive %p'"):
        wal.archive(kept, tmp_path / "postgresql.conf")
    assert [file.name for file in kept.files("wal")] == [f"wal/{segment.name}"]


@pytest.mark.usefixtures("_bucket")
def test_a_backup_in_a_bucket_is_restored_with_its_wal(archiving: PostgresServer, folder: Path) -> None:
    kept = repository(URL)
    execute(archiving.url, "CREATE TABLE kept AS SELECT 1 AS answer")
    taken = base.create_backup(kept, archiving.backup_url, keep=base.Retention(1))
    execute(archiving.url, "INSERT INTO kept VALUES (2)")
    archive_everything(archiving)
    assert archiving.backups
    for segment in sorted((archiving.backups / "wal").iterdir()):  # as archive_command does, one after the other
        wal.archive(kept, segment)
    assert base.verify(kept, taken).segments

    private_folder(folder / "restored")
    server = PostgresServer(folder / "restored", fast=True)
    steps = []
    restore(kept, plan(kept, None), server.data, None, lambda step, _done, _total: steps.append(step))
    assert list(dict.fromkeys(steps)) == ["unpacking", "fetching WAL", "replaying"]
    shutil.copy(archiving.passwords_file, server.passwords_file)
    with server:
        assert rows(server.url) == [1, 2]

    base.create_backup(kept, archiving.backup_url, keep=base.Retention(1))
    assert taken.label not in {each.label for each in base.find_backups(kept)}
    assert not [file for file in kept.files("base") if taken.label in file.name]


@pytest.mark.usefixtures("_bucket")
def test_a_missing_bucket_is_named() -> None:
    with pytest.raises(BackupError, match="the bucket nowhere of RATES_BACKUP_URL"):
        base.find_backups(repository("s3://nowhere/rates"))
