"""The status page for operators: version, generation, requests, stores, caches and batches."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from rates_app.http.health import readiness
from rates_app.http.service import service
from rates_app.ops.metrics import registry
from rates_app.store.databases import Unavailable
from rates_app.store.metrics import ServerStates
from rates_app.web.rendering import live_page, views

if TYPE_CHECKING:
    from flask import Response

    from rates_app.batches.model import BatchState
    from rates_app.store.databases import Connection


#: Duration of a quick read as in the service's objective; the histogram has a bucket with this bound.
QUICK_SECONDS = 0.25


class Requests(NamedTuple):
    """Requests since this pod started, with the shares of the objectives; a share is None without requests."""

    answered: int
    #: Share of requests with a server error.
    failed: float | None
    #: Share of reads with a response within :data:`QUICK_SECONDS`.
    quick: float | None


class Ledger(NamedTuple):
    """The generation, and the number of batches in each state."""

    generation: int
    changed_at: datetime
    batches: dict[BatchState, int]


@views.get("/status")
def status_page() -> Response:
    """Show the state of this pod and its stores; it also works without any store."""
    databases = service().databases
    service().redis.call(lambda client: client.ping())  # the state is the one that the latest call found
    ready, checks = readiness(databases, service().redis, service().reads.record_generation)
    samples = [sample for metric in ServerStates(databases).collect() for sample in metric.samples]
    try:
        ledger = databases.read(_ledger, prefer="primary")
    except Unavailable:
        ledger = None
    return live_page(
        "status.html",
        200 if ready else 503,
        ready=ready,
        checks=checks,
        lags={each.labels["server"]: each.value for each in samples if each.name == "rates_replica_lag_seconds"},
        ledger=ledger,
        requests=_requests(),
        quick_seconds=QUICK_SECONDS,
        hits=_hits(),
        pid=os.getpid(),
        now=datetime.now(UTC),
    )


def _ledger(connection: Connection) -> Ledger:
    row = connection.execute("SELECT number, changed_at FROM generation").fetchone()
    assert row is not None  # noqa: S101 - the first migration inserts the row
    batches: dict[BatchState, int] = dict(
        connection.execute("SELECT state, count(*) FROM batches GROUP BY state ORDER BY state").fetchall()
    )
    return Ledger(row[0], row[1], batches)


def _requests() -> Requests:
    """Add up the requests of all workers."""
    count = failed = reads = quick = 0.0
    for metric in registry().collect():
        for name, labels, value, *_ in metric.samples:
            if name == "rates_http_requests_total":
                count += value
                failed += value if labels["status"].startswith("5") else 0
            elif labels.get("method") == "GET" and labels.get("route", "").startswith(("/rates", "/v1/")):
                if name == "rates_http_request_duration_seconds_count":
                    reads += value
                elif name == "rates_http_request_duration_seconds_bucket" and float(labels["le"]) == QUICK_SECONDS:
                    quick += value
    return Requests(int(count), failed / count if count else None, quick / reads if reads else None)


def _hits() -> dict[str, float | None]:
    """Return the hit ratio of each cache level over all workers; None without lookups."""
    counts: dict[str, dict[str, float]] = {"process": {}, "redis": {}}
    for metric in registry().collect():
        for sample in metric.samples:
            if sample.name == "rates_cache_requests_total":
                level = counts[sample.labels["level"]]
                level[sample.labels["result"]] = level.get(sample.labels["result"], 0) + sample.value
    asked = {level: sum(results.values()) for level, results in counts.items()}
    return {level: counts[level].get("hit", 0) / total if total else None for level, total in asked.items()}
