"""A mistake destroys prices; a new server is restored to the moment before, and serves."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import psycopg

from drills.load import Load
from drills.stack import QUESTION, RunningStack, contents, value, wait_for
from rates_app.local.account import private_folder
from rates_app.local.postgres import PostgresServer

if TYPE_CHECKING:
    from pathlib import Path

    from drills.report import Report

PROMISE = "Database, destroyed or corrupted"

#: Prices of the batch after the backup, which the restore reads from the archived WAL.
MAX_LATER_ROWS = 1_000_000


def run(folder: Path, report: Report, *, short: bool) -> None:
    """Back up, destroy prices, restore to the moment before, compare, and let a pod serve the restored data."""
    with RunningStack(folder, short=short, archiving=True, base_rows=report.base_rows) as stack:
        primary = stack.cluster.primary
        assert primary.backups
        backups = {"RATES_BACKUP_URL": str(primary.backups), "RATES_BACKUP_DATABASE_URL": primary.backup_url}
        with Load(stack) as load:
            report.log(stack.run("backup", **backups).strip())
            load.wait_for_progress()
        stack.ingest(stack.generated("later", min(stack.base_rows // 2, MAX_LATER_ROWS)))
        before = contents(primary.url)
        answers = _answers(stack.pods[0].url)
        moment: datetime = value(primary.admin_url, "SELECT clock_timestamp()")
        report.log(f"one more batch is published; it is {moment.astimezone(UTC):%H:%M:%S.%f}")
        with psycopg.connect(primary.url) as connection:
            connection.execute("DELETE FROM rollups WHERE batch_id % 2 = 1")
            connection.execute("TRUNCATE segments")
        report.breaks("a mistaken statement destroys prices and rollups")
        destroyed = contents(primary.url)

        segment = value(primary.admin_url, "SELECT pg_walfile_name(pg_switch_wal())")
        wait_for(lambda: value(primary.admin_url, f"SELECT last_archived_wal >= '{segment}' FROM pg_stat_archiver"))
        report.log("the WAL up to now is archived")
        private_folder(folder / "restored")
        server = PostgresServer(folder / "restored", fast=short)
        at = f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}"
        report.log(stack.run("restore", server.data, "--at", at, **backups).strip())
        shutil.copy(primary.passwords_file, server.passwords_file)
        with server:
            after = contents(server.url)
            settings = stack.settings.model_copy(
                update={"database_url": type(stack.settings.database_url)(server.url), "replica_urls": ()}
            )
            pod = stack.start_pod(settings)
            try:
                report.recovered("a pod serves the restored data")
                report.expect_true("its responses are those of before", _answers(pod.url) == answers)
            finally:
                pod.terminate()
        load.report(report)
        report.rows_lost = before["delivered"].rows - after["delivered"].rows
        report.expect("rows of prices", before["delivered"].rows, after["delivered"].rows)
        for table, content in before.items():
            report.expect(f"checksum of {table}", content.checksum, after[table].checksum)
        report.expect_true("the mistake had an effect", destroyed != before)
        report.expect_true("the old server was not touched", contents(primary.url) == destroyed)


def _answers(url: str) -> list[Any]:
    questions = (
        QUESTION,
        "/v1/rates?origin=china_main&destination=scandinavia&date_from=2021-01-01&date_to=2021-03-01&interval=week",
        "/v1/lanes",
    )
    return [httpx.get(url + question, timeout=30).raise_for_status().json() for question in questions]
