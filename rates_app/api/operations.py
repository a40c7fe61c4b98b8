"""Health checks and metrics."""

from __future__ import annotations

import orjson
from flask import Blueprint, Response

from rates_app.batches.ledger.metrics import LedgerCollector
from rates_app.http.health import readiness
from rates_app.http.service import service
from rates_app.ops.metrics import render_metrics
from rates_app.store.metrics import ServerStates

views = Blueprint("operations", __name__)

JSON = "application/json"


@views.get("/healthz")
def alive() -> Response:
    """Report that the process is alive, even without a database: a restart would not help."""
    return Response(b'{"status":"ok"}', content_type=JSON, headers={"Cache-Control": "no-store"})


@views.get("/readyz")
def ready() -> Response:
    """Report whether this process can serve requests, and the result of each check."""
    ok, checks = readiness(service().databases, service().redis, service().reads.record_generation)
    body = orjson.dumps({"status": "ok" if ok else "unavailable", "checks": checks})
    return Response(body, 200 if ok else 503, content_type=JSON, headers={"Cache-Control": "no-store"})


@views.get("/metrics")
def metrics() -> Response:
    """Return the metrics of all workers and of the stores in Prometheus' text format."""
    databases = service().databases
    body, media_type = render_metrics(ServerStates(databases), LedgerCollector(databases))
    return Response(body, content_type=media_type)
