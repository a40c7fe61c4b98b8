"""An ingest hangs in the middle of a batch; it is killed, and the next run resumes the batch."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import psutil
import psycopg

from drills.load import Load
from drills.stack import TIMEOUT_SECONDS, RunningStack, value, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from drills.report import Report

PROMISE = "Queue or dispatcher"
#: Joins rows to their batch.
THE_BATCH = "JOIN batches ON batches.id = batch_id AND batches.name = 'stuck.csv'"


def run(folder: Path, report: Report, *, short: bool) -> None:
    """Stop an ingest so that it hangs, kill it, and run it again."""
    with RunningStack(folder, short=short) as stack:
        rows = 60_000 if short else 500_000
        file = stack.generated("stuck", rows)
        small = {"RATES_SLICE_BYTES": str(64 * 1024 if short else 2**20), "RATES_LOG_LEVEL": "error"}
        with Load(stack, writes=False) as load:
            driver = stack.rates("ingest", file, **small)
            wait_for(lambda: len(_staged(stack)) >= 3 or driver.poll() is not None)
            if driver.poll() is not None:
                raise RuntimeError(f"the ingest ended before it could hang: {driver.communicate()[0]}")
            family = [psutil.Process(driver.pid), *psutil.Process(driver.pid).children(recursive=True)]
            for process in family:
                process.send_signal(signal.SIGSTOP)
            report.breaks("the ingest hangs in the middle of a batch")
            slices = value(stack.cluster.url, f"SELECT count(*) FROM slices {THE_BATCH}")
            load.wait_for_progress()
            before = _staged(stack)
            report.log(f"{len(before)} of {slices} slices are staged, without progress")
            report.expect_true("it hung before the end", 0 < len(before) < slices, f"{len(before)} of {slices} staged")
            report.expect("rows of it that readers see", 0, _visible(stack))
            for process in family:
                process.kill()
            driver.communicate(timeout=TIMEOUT_SECONDS)
            report.log("it is killed and restarted")
            output = stack.run("ingest", file, **small)
            report.recovered(output.strip().splitlines()[-1])
            load.wait_for_progress()
        load.report(report)
        after = _staged(stack)
        report.expect_true("staged slices were not staged again", before.items() <= after.items())
        report.expect("slices staged at the end", slices, len(after))
        report.rows_lost = rows - value(stack.cluster.url, f"SELECT count(*) FROM delivered {THE_BATCH}")
        report.expect("rows lost or doubled", 0, report.rows_lost)


def _staged(stack: RunningStack) -> dict[int, Any]:
    query = f"SELECT number, winner, staged_at FROM slices {THE_BATCH} WHERE slices.state = 'staged'"
    with psycopg.connect(stack.cluster.url) as connection:
        return {number: rest for number, *rest in connection.execute(query)}


def _visible(stack: RunningStack) -> int:
    query = "SELECT count(*) FROM batches WHERE name = 'stuck.csv' AND state = 'published'"
    return int(value(stack.cluster.url, query))
