"""A batch with wrong prices was published; it is taken back out under load."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drills.load import FIRST_PRICE, Load
from drills.site import Site, ask, value

if TYPE_CHECKING:
    from pathlib import Path

    from drills.report import Report

PROMISE = "Batch with wrong prices"
WRONG = 90_000


def run(folder: Path, report: Report, *, short: bool) -> None:
    """Publish wrong prices, withdraw them, and see the very next answers."""
    with Site(folder, short=short) as site:
        with Load(site, writes=False) as load:
            bad = site.ingest(site.priced(WRONG))
            mixed = (FIRST_PRICE + WRONG) / 2
            report.note(f"batch {bad.id} is published with wrong prices")
            report.expect("every pod shows them", [mixed] * 2, [ask(pod) for pod in site.pods])
            load.go_on()
            report.breaks("the operator withdraws it")
            site.run("withdraw", str(bad.id), "--yes")
            told = [ask(pod) for pod in site.pods]
            report.recovered("it is withdrawn, and every pod's very next answer is the one from before")
            report.expect("the next answer of every pod", [float(FIRST_PRICE)] * 2, told)
            marker = len(load.reads)
            load.go_on()
            late = [read for read in load.reads[marker + 4 :] if read.prices[0] != FIRST_PRICE]
            report.expect("wrong answers after that", 0, len(late))
            report.note(site.run("housekeep").strip().splitlines()[-1])
            load.go_on()
        report.requests, report.failed = len(load.reads) + len(load.failures), len(load.failures)
        report.expect("requests failed", 0, report.failed)
        report.rows_lost = load.rows_lost(site.cluster.url)
        report.expect("rows of other batches lost", 0, report.rows_lost)
        left = value(site.cluster.url, f"SELECT count(*) FROM delivered WHERE batch_id = {bad.id}")
        report.expect("rows of it that are left", 0, left)
