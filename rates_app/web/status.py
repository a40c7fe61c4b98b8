"""What is serving, for operators: version, generation, stores, caches, batches under way."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from rates_app.api.service import service
from rates_app.ops.health import readiness
from rates_app.ops.metrics import registry
from rates_app.store.databases import Unavailable
from rates_app.store.metrics import ReplicaLag
from rates_app.web.rendering import live_page, views

if TYPE_CHECKING:
    from flask import Response

    from rates_app.batches.model import State
    from rates_app.store.databases import Connection


class Hits(NamedTuple):
    """How often a level of the cache had the answer, since this pod started."""

    level: str
    asked: int
    ratio: float | None


class Ledger(NamedTuple):
    """What the primary says: the generation, and how many batches are in each state."""

    generation: int
    changed_at: datetime
    batches: dict[State, int]


@views.get("/status")
def status_page() -> Response:
    """Show how this pod and its stores are; it answers whatever is away."""
    databases = service().databases
    ready, checks = readiness(databases, service().redis, service().reads.note)
    {sample.labels["server"]: sample.value for metric in ReplicaLag(databases).collect() for sample in metric.samples}
    samples = [sample for metric in ReplicaLag(databases).collect() for sample in metric.samples]
    try:
        ledger = databases.read(_ledger, prefer="primary")
    except Unavailable:
        ledger = None
    return live_page(
        "status.html",
        200 if ready else 503,
        ready=ready,
        checks=checks,
        lags={sample.labels["server"]: sample.value for sample in samples},
        ledger=ledger,
        hits=_hits(),
        pid=os.getpid(),
        now=datetime.now(UTC),
    )


def _ledger(connection: Connection) -> Ledger:
    row = connection.execute("SELECT number, changed_at FROM generation").fetchone()
    assert row is not None  # noqa: S101 - the first migration puts the row there
    batches: dict[State, int] = dict(
        connection.execute("SELECT state, count(*) FROM batches GROUP BY state ORDER BY state").fetchall()
    )
    return Ledger(row[0], row[1], batches)


def _hits() -> list[Hits]:
    """Add up the look-ups of all workers."""
    counts: dict[str, dict[str, float]] = {"process": {}, "redis": {}}
    for metric in registry().collect():
        for sample in metric.samples:
            if sample.name == "rates_cache_requests_total":
                level = counts[sample.labels["level"]]
                level[sample.labels["result"]] = level.get(sample.labels["result"], 0) + sample.value
    totals = {level: sum(results.values()) for level, results in counts.items()}
    return [
        Hits(level, int(total), counts[level].get("hit", 0) / total if total else None)
        for level, total in totals.items()
    ]
