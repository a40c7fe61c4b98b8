"""A batch with wrong prices is published and withdrawn under load."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drills.load import FIRST_PRICE, Load
from drills.stack import RunningStack, query_price, value

if TYPE_CHECKING:
    from pathlib import Path

    from drills.report import Report

PROMISE = "Batch with wrong prices"
WRONG = 90_000


def run(folder: Path, report: Report, *, short: bool) -> None:
    """Publish wrong prices, withdraw them, and check the next responses."""
    with RunningStack(folder, short=short) as stack:
        with Load(stack, writes=False) as load:
            bad = stack.ingest(stack.priced(WRONG))
            mixed = (FIRST_PRICE + WRONG) / 2
            report.log(f"batch {bad.id} is published with wrong prices")
            report.expect("every pod shows them", [mixed] * 2, [query_price(pod) for pod in stack.pods])
            load.wait_for_progress()
            report.breaks("the operator withdraws it")
            stack.run("withdraw", str(bad.id), "--yes")
            after = [query_price(pod) for pod in stack.pods]
            report.recovered("it is withdrawn, and the next response of every pod is without it")
            report.expect("the next response of every pod", [float(FIRST_PRICE)] * 2, after)
            marker = len(load.reads)
            load.wait_for_progress()
            late = [read for read in load.reads[marker + 4 :] if read.prices[0] != FIRST_PRICE]
            report.expect("wrong responses after that", 0, len(late))
            report.log(stack.run("housekeep").strip().splitlines()[-1])
            load.wait_for_progress()
        report.requests, report.failed = len(load.reads) + len(load.failures), len(load.failures)
        report.expect("requests failed", 0, report.failed)
        report.rows_lost = load.rows_lost(stack.cluster.url)
        report.expect("rows of other batches lost", 0, report.rows_lost)
        left = value(stack.cluster.url, f"SELECT count(*) FROM delivered WHERE batch_id = {bad.id}")
        report.expect("remaining rows of it", 0, left)
