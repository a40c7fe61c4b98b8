"""Metrics of the ledger, read when they are collected.

Processes that stage or publish may have ended long before. Every pod exports the same values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from rates_app.batches.ledger import deadline_slack
from rates_app.batches.ledger.pace import IN_PROGRESS
from rates_app.batches.ledger.schedules import list_expectations
from rates_app.batches.model import BatchState
from rates_app.store.databases import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from rates_app.store.databases import Connection, Databases


class LedgerCollector(Collector):
    """The ledger as metrics; nothing while no database can be reached."""

    def __init__(self, databases: Databases) -> None:
        self._databases = databases

    def collect(self) -> Iterator[Metric]:
        """Read the ledger."""
        try:
            # A replica's counts would go back and forth between two scrapes.
            yield from self._databases.read(_ledger, prefer="primary")
        except Unavailable:
            return


def _ledger(connection: Connection) -> list[Metric]:
    found: dict[str, int] = dict(connection.execute("SELECT state, count(*) FROM batches GROUP BY state").fetchall())
    batches = GaugeMetricFamily("rates_batches", "Batches by state.", labels=["state"])
    for state in get_args(BatchState):
        batches.add_metric([state], found.get(state, 0))

    rows = GaugeMetricFamily("rates_batch_rows", "Rows of all batches.", labels=["result"])
    slices = GaugeMetricFamily("rates_batch_slices", "Slices of the batches being staged.", labels=["state"])
    publish = GaugeMetricFamily(
        "rates_batch_publish_seconds", "From verified to published, of the batch that was published last."
    )
    slack = GaugeMetricFamily(
        "rates_batch_deadline_slack_seconds",
        "How long before its deadline the tightest batch will be staged at its pace.",
    )
    stalled = GaugeMetricFamily(
        "rates_batch_stalled_seconds", "Time since the last progress of the batch in progress that waits longest."
    )
    unresolved = GaugeMetricFamily(
        "rates_batches_unresolved", "Batches that failed within a day and were not delivered again since."
    )
    row = connection.execute(
        f"""
        SELECT (SELECT coalesce(sum(rows), 0) FROM batches), (SELECT coalesce(sum(rejected), 0) FROM batches),
            (SELECT count(*) FROM slices JOIN batches ON id = batch_id
             WHERE batches.state = 'staging' AND slices.state = 'pending'),
            (SELECT count(*) FROM slices JOIN batches ON id = batch_id
             WHERE batches.state = 'staging' AND slices.state = 'staged'),
            (SELECT extract(epoch FROM published_at - verified_at) FROM batches
             WHERE published_at IS NOT NULL ORDER BY published_at DESC LIMIT 1),
            (SELECT coalesce(max(extract(epoch FROM clock_timestamp() - progress)), 0) FROM ({IN_PROGRESS}) open),
            (SELECT count(*) FROM batches failed
             WHERE state = 'failed' AND ended_at > clock_timestamp() - interval '1 day' AND NOT EXISTS (
                 SELECT FROM batches later
                 WHERE later.supplier = failed.supplier AND later.content_hash = failed.content_hash
                     AND later.id > failed.id
             ))
        """  # noqa: S608 - a constant of the ledger
    ).fetchone()
    assert row is not None  # noqa: S101 - a query without FROM has one row
    rows.add_metric(["staged"], float(row[0]))
    rows.add_metric(["rejected"], float(row[1]))
    slices.add_metric(["pending"], row[2])
    slices.add_metric(["staged"], row[3])
    if row[4] is not None:
        publish.add_metric([], float(row[4]))
    stalled.add_metric([], float(row[5]))
    unresolved.add_metric([], row[6])
    if (seconds := deadline_slack(connection)) is not None:
        slack.add_metric([], seconds)
    return [batches, rows, slices, publish, slack, stalled, unresolved, *_expectations(connection)]


def _expectations(connection: Connection) -> list[Metric]:
    """Measure each supplier with a schedule."""
    overdue = GaugeMetricFamily(
        "rates_supplier_overdue_seconds",
        "Time since a delivery of the supplier was due of which nothing is published; 0 if none is overdue.",
        labels=["supplier"],
    )
    missing = GaugeMetricFamily(
        "rates_supplier_missing_rows",
        "Prices that the published delivery lacks to the least number of its schedule.",
        labels=["supplier"],
    )
    for found in list_expectations(connection):
        overdue.add_metric([found.supplier], found.overdue_seconds)
        missing.add_metric([found.supplier], found.missing_rows)
    return [overdue, missing]
