"""The primary fails under load; the replica is promoted; the old primary returns as its replica."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from drills.load import Load
from drills.stack import RunningStack, contents, value, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from drills.report import Report

PROMISE = "Database"


def run(folder: Path, report: Report, *, short: bool) -> None:
    """Kill the primary, promote the replica, and rejoin the old primary."""
    with RunningStack(folder, short=short) as stack:
        lost, promoted = stack.cluster
        stack.make_synchronous(lost)
        report.log("primary and synchronous standby run; two pods")
        with Load(stack) as load:
            report.log("readers and a writer run")
            lost.kill()
            report.breaks("the primary is killed")
            answers = len(load.reads)
            wait_for(lambda: len(load.reads) > answers + (20 if short else 200))
            report.log("readers get responses from the replica")
            moment = time.monotonic()
            promoted.promote()
            report.log("the replica is promoted")
            changes = len(load.writes)
            wait_for(lambda: len(load.writes) > changes)
            report.recovered("the first change is acknowledged by the new primary")
            load.wait_for_progress()
            how = lost.rejoin(promoted)
            stack.make_synchronous(promoted)
            report.log(f"the old primary is {how} and follows synchronously")
            load.wait_for_progress()
        load.report(report)
        report.rows_lost = load.rows_lost(stack.cluster.url)
        report.expect("rows of acknowledged batches lost", 0, report.rows_lost)
        report.expect_true(
            "a change spans the failover", any(write.started < moment < write.ended for write in load.writes)
        )
        wal = value(promoted.admin_url, "SELECT pg_current_wal_lsn()::text")
        wait_for(lambda: value(lost.admin_url, f"SELECT pg_last_wal_replay_lsn() >= '{wal}'"))
        report.expect_true("both servers have the same rows", contents(lost.url) == contents(promoted.url))
        report.expect("the old primary accepts writes", False, not value(lost.admin_url, "SELECT pg_is_in_recovery()"))
