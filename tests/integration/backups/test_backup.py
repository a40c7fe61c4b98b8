"""A restore reaches any moment since the oldest backup, or fails with a clear error."""

from __future__ import annotations

import re
import shutil
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import psycopg
from typer.testing import CliRunner

from drills.waiting import wait_until
from rates_app.backups.base import Backup, Retention
from rates_app.backups.repository import BackupError
from rates_app.cli import app
from rates_app.local.account import private_folder
from rates_app.local.postgres import PostgresServer

if TYPE_CHECKING:
    from pathlib import Path


NOW = datetime(2031, 1, 31, tzinfo=UTC)


def execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)


def rows(url: str) -> list[int]:
    with psycopg.connect(url) as connection:
        return [row[0] for row in connection.execute("SELECT answer FROM kept ORDER BY 1")]


def now(server: PostgresServer) -> datetime:
    with psycopg.connect(server.url) as connection:
        row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    moment: datetime = row[0]
    return moment.astimezone(UTC)


def rates(
    server: PostgresServer, *arguments: str | Path, keep: int = 7, keep_days: int = 0, fails: bool = False
) -> str:
    assert server.backups
    done = CliRunner().invoke(
        app,
        [str(argument) for argument in arguments],
        env={
            "RATES_BACKUP_URL": str(server.backups),
            "RATES_BACKUP_DATABASE_URL": server.backup_url,
            "RATES_BACKUP_KEEP": str(keep),
            "RATES_BACKUP_KEEP_DAYS": str(keep_days),
            "COLUMNS": "200",
        },
        catch_exceptions=True,
    )
    if fails:
        assert isinstance(done.exception, BackupError), done.output
        return str(done.exception)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def archive_everything(server: PostgresServer) -> None:
    """Wait until all WAL written so far is archived."""
    with psycopg.connect(server.admin_url, autocommit=True) as connection:
        row = connection.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchone()
        assert row is not None
        query = "SELECT last_archived_wal >= %s FROM pg_stat_archiver"
        wait_until(
            lambda: connection.execute(query, row).fetchone() == (True,), describe=lambda: f"{row} is not archived"
        )


def restored(server: PostgresServer, folder: Path, name: str, *options: str, archives: bool = False) -> PostgresServer:
    """Restore into a new server and start it. A replacement of the old server archives, too."""
    assert server.backups
    private_folder(folder / name)
    copy = PostgresServer(folder / name, fast=True, backups=server.backups if archives else None)
    rates(server, "restore", copy.data, *options)
    shutil.copy(server.passwords_file, copy.passwords_file)
    copy.start()
    return copy


def test_any_moment_since_the_backup_can_be_restored(archiving: PostgresServer, folder: Path) -> None:
    execute(archiving.url, "CREATE TABLE kept AS SELECT 1 AS answer")
    assert "is verified and stored" in rates(archiving, "backup")
    execute(archiving.url, "INSERT INTO kept VALUES (2)")
    moment = now(archiving)
    execute(archiving.url, "DELETE FROM kept")
    execute(archiving.url, "INSERT INTO kept VALUES (3)")
    archive_everything(archiving)

    before = restored(archiving, folder, "before", "--at", f"{moment:%Y-%m-%dT%H:%M:%S.%f}")
    try:
        assert rows(before.url) == [1, 2]
        assert rows(archiving.url) == [3]  # untouched
        execute(before.url, "INSERT INTO kept VALUES (4)")  # it accepts writes
    finally:
        before.stop()
    latest = restored(archiving, folder, "latest")
    try:
        assert rows(latest.url) == [3]
    finally:
        latest.stop()

    label = re.findall(r"\d{8}T\d{6}Z", rates(archiving, "backup", "list"))[0]
    assert f"Backup {label} is complete, and" in rates(archiving, "backup", "verify")
    message = rates(archiving, "restore", folder / "x", "--at", "2999-01-01T00:00:00", fails=True)
    assert re.search(r"the archive ends at 20.* before 2999-01-01", message)
    assert not list(folder.glob("x*"))
    message = rates(archiving, "restore", folder / "x", "--at", "2001-01-01T00:00:00", fails=True)
    assert "no backup of timeline 1 that had ended at 2001-01-01" in message
    assert "exists: name a new folder" in rates(archiving, "restore", folder, fails=True)


def test_a_restored_server_can_be_restored_again(archiving: PostgresServer, folder: Path) -> None:
    execute(archiving.url, "CREATE TABLE kept AS SELECT 1 AS answer")
    rates(archiving, "backup")
    moment = now(archiving)
    execute(archiving.url, "INSERT INTO kept VALUES (666)")
    mistaken = now(archiving)
    execute(archiving.url, "INSERT INTO kept VALUES (667)")
    archive_everything(archiving)
    # The service does not use a copy that never archived.
    assert "on timeline 1, and is on timeline 2" in rates(archiving, "restore", folder / "unused")
    archiving.stop()

    second = restored(archiving, folder, "second", "--at", f"{moment:%Y-%m-%dT%H:%M:%S.%f}", archives=True)
    execute(second.url, "INSERT INTO kept VALUES (2)")
    archive_everything(second)
    execute(second.url, "INSERT INTO kept VALUES (3)")
    later = now(second)
    rates(second, "backup")
    execute(second.url, "INSERT INTO kept VALUES (4)")
    archive_everything(second)
    assert "on timeline 3 continue to" in rates(second, "backup", "verify")
    listed = re.findall(r"^ *(\d{8}T\d{6}Z) +\S+ \S+ +(\d)", rates(second, "backup", "list"), re.MULTILINE)
    assert [timeline for _, timeline in listed] == ["1", "3", "3"]
    oldest = listed[0][0]
    second.stop()

    third = restored(second, folder, "third", archives=True)
    try:
        assert rows(third.url) == [1, 2, 3, 4]
        execute(third.url, "INSERT INTO kept VALUES (5)")
        archive_everything(third)
    finally:
        third.stop()
    for name, options, answers in (
        ("latest", ("--backup", oldest), [1, 2, 3, 4, 5]),
        ("between", ("--at", f"{later:%Y-%m-%dT%H:%M:%S.%f}"), [1, 2, 3]),
        ("discarded", ("--at", f"{mistaken:%Y-%m-%dT%H:%M:%S.%f}"), [1, 666]),
    ):
        server = restored(third, folder, name, *options)
        try:
            assert rows(server.url) == answers, name
        finally:
            server.stop()


def test_two_servers_in_one_archive_need_a_decision(archiving: PostgresServer, folder: Path) -> None:
    execute(archiving.url, "CREATE TABLE kept AS SELECT 1 AS answer")
    rates(archiving, "backup")
    execute(archiving.url, "INSERT INTO kept VALUES (2)")  # in an incomplete segment
    copy = restored(archiving, folder, "copy", archives=True)
    try:
        for number in (3, 4):
            for server in (archiving, copy):
                execute(server.url, f"INSERT INTO kept VALUES ({number})")
                archive_everything(server)
                time.sleep(0.01)
    finally:
        copy.stop()
    message = rates(archiving, "restore", folder / "x", fails=True)
    assert "timelines 1 and 2 were archived at the same time" in message
    assert "on timeline 2, and is on timeline 3" in rates(archiving, "restore", folder / "x", "--timeline", "2")


def test_segments_of_another_size(folder: Path) -> None:
    with PostgresServer(folder / "primary", fast=True, backups=folder / "backups", segment_mebibytes=1) as server:
        execute(server.url, "CREATE TABLE kept AS SELECT 1 AS answer")
        rates(server, "backup")
        execute(server.url, "CREATE TABLE filler AS SELECT repeat('x', 100) FROM generate_series(1, 30_000)")
        execute(server.url, "INSERT INTO kept VALUES (2)")
        archive_everything(server)
        assert "is complete, and" in rates(server, "backup", "verify")
        copy = restored(server, folder, "copy")
    try:
        assert rows(copy.url) == [1, 2]
    finally:
        copy.stop()


def test_old_backups_are_deleted_with_their_wal(archiving: PostgresServer, folder: Path) -> None:
    execute(archiving.url, "CREATE TABLE kept AS SELECT 1 AS answer")
    labels = []
    for number in (2, 3, 4):
        rates(archiving, "backup", keep=2)
        labels.append(re.findall(r"\d{8}T\d{6}Z", rates(archiving, "backup", "list"))[-1])
        execute(archiving.url, f"INSERT INTO kept VALUES ({number})")
        archive_everything(archiving)
        time.sleep(1)  # labels are seconds

    assert re.findall(r"\d{8}T\d{6}Z", rates(archiving, "backup", "list")) == labels[1:]
    assert archiving.backups
    assert sorted(path.name for path in (archiving.backups / "base").iterdir()) == labels[1:]
    oldest = restored(archiving, folder, "oldest", "--backup", labels[1])  # its WAL is kept
    try:
        assert rows(oldest.url) == [1, 2, 3, 4]
    finally:
        oldest.stop()


def test_backups_that_the_period_needs_remain() -> None:
    """A restore starts from the last backup before the given time, however old that is."""

    def taken(days_ago: float) -> Backup:
        ended = NOW - timedelta(days=days_ago)
        return Backup(
            label=f"{days_ago} days ago",
            started=ended,
            ended=ended,
            first_segment="000000010000000000000001",
            end_position=2**24,
            segment_bytes=2**24,
            server_version="18.6",
            data_bytes=1,
            kept_bytes=1,
            archiving=True,
        )

    backups = [taken(20), taken(9), taken(5), taken(1), taken(0)]
    for retention, expired in (
        (Retention(2), backups[:3]),
        (Retention(4), backups[:1]),
        (Retention(2, timedelta(days=7)), backups[:1]),
        (Retention(2, timedelta(days=30)), []),
        (Retention(9, timedelta(0)), []),
    ):
        assert retention.expired(backups, NOW) == expired, retention


def test_damage_is_detected(archiving: PostgresServer, folder: Path) -> None:
    execute(archiving.url, "CREATE TABLE kept AS SELECT 1 AS answer")
    rates(archiving, "backup")
    for _ in range(3):
        execute(archiving.url, "INSERT INTO kept VALUES (2)")
        archive_everything(archiving)
    assert archiving.backups
    segments = sorted(path for path in (archiving.backups / "wal").iterdir() if len(path.name) == 24)
    hidden = segments[-2].rename(folder / "hidden")
    assert f"lacks segment {segments[-2].name}" in rates(archiving, "backup", "verify", fails=True)
    assert f"lacks segment {segments[-2].name}" in rates(archiving, "restore", folder / "x", fails=True)
    hidden.rename(segments[-2])
    (tar,) = archiving.backups.glob("base/*/base.tar.gz")
    content = bytearray(tar.read_bytes())
    content[len(content) // 2] ^= 0xFF
    tar.write_bytes(content)
    assert "pg_verifybackup failed" in rates(archiving, "backup", "verify", fails=True)


def test_a_failed_backup_leaves_nothing(folder: Path) -> None:
    with PostgresServer(folder / "primary", fast=True) as server:
        server.backups = folder / "backups"
        execute(server.admin_url, "ALTER ROLE replicator NOREPLICATION")
        assert "pg_basebackup failed" in rates(server, "backup", fails=True)
        assert not list((folder / "backups" / "base").iterdir())
        execute(server.admin_url, "ALTER ROLE replicator REPLICATION")
        assert "only the end of this backup can be restored" in rates(server, "backup")
        assert "its end only" in rates(server, "backup", "list")
