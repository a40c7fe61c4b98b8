"""The service's Prometheus metrics, and their exposition over several worker processes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

if TYPE_CHECKING:
    from pathlib import Path

    from prometheus_client.registry import Collector

#: Folder that workers write their metrics to; prometheus_client reads the variable when it is imported.
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

REQUESTS = Counter("rates_http_requests", "Requests answered.", ["method", "route", "status"])
DURATION = Histogram(
    "rates_http_request_duration_seconds",
    "Time from the complete head of a request to the last byte of its response, the wait for a thread included.",
    ["method", "route"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
IN_PROGRESS = Gauge("rates_http_requests_in_progress", "Requests being answered.", multiprocess_mode="livesum")
SHED = Counter("rates_requests_shed", "Requests refused because the service was beyond its capacity.")
CONNECTIONS = Gauge("rates_http_connections", "Connections of clients.", multiprocess_mode="livesum")
CONNECTIONS_CLOSED = Counter(
    "rates_http_connections_closed",
    "Connections closed because the client was too slow (head, reader), held too many (client), or to make room for "
    "others (evicted).",
    ["reason"],
)
CACHE = Counter("rates_cache_requests", "Look-ups in the cache of answers.", ["level", "result"])
GENERATION = Gauge("rates_generation", "Newest generation seen.", multiprocess_mode="max")
PUBLISHED = Gauge(
    "rates_generation_published_timestamp_seconds", "When that generation was published.", multiprocess_mode="max"
)
POOL = Gauge("rates_pool_connections", "Connections to a database.", ["server", "state"], multiprocess_mode="livesum")

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def method_label(method: str) -> str:
    """Keep the label's values few: whatever a client makes up as a method is ``other``."""
    return method if method in METHODS else "other"


def registry() -> CollectorRegistry:
    """Return what holds the metrics of all worker processes."""
    if FOLDER_VARIABLE not in os.environ:
        return REGISTRY
    workers = CollectorRegistry()
    multiprocess.MultiProcessCollector(workers)  # type: ignore[no-untyped-call]
    return workers


def exposition(*collectors: Collector) -> tuple[bytes, str]:
    """Render the metrics of all worker processes.

    Args:
        collectors: What is measured at the moment of asking.

    Returns:
        The text and its media type.
    """
    asked = CollectorRegistry()
    for collector in collectors:
        asked.register(collector)
    return generate_latest(registry()) + generate_latest(asked), CONTENT_TYPE_PLAIN_0_0_4


def forget_worker(pid: int, folder: Path) -> None:
    """Drop the gauges of a worker that has ended; its counters stay, as counters must never fall."""
    multiprocess.mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
