"""The service's Prometheus metrics, and their aggregation over worker processes."""

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

#: Variable with the folder of the workers' metrics; prometheus_client reads it on import.
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

REQUESTS = Counter("rates_http_requests", "HTTP requests by method, route and status.", ["method", "route", "status"])
DURATION = Histogram(
    "rates_http_request_duration_seconds",
    "Seconds from a request's complete headers to the last byte of its response, including the time in the queue.",
    ["method", "route"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
IN_PROGRESS = Gauge("rates_http_requests_in_progress", "HTTP requests in progress.", multiprocess_mode="livesum")
SHED = Counter("rates_requests_shed", "Requests refused by load shedding.")
CONNECTIONS = Gauge("rates_http_connections", "Open client connections.", multiprocess_mode="livesum")
CONNECTIONS_CLOSED = Counter(
    "rates_http_connections_closed",
    "Connections closed because the client was too slow (head, reader), had too many (client), or to free capacity "
    "(evicted).",
    ["reason"],
)
CACHE = Counter("rates_cache_requests", "Cache lookups by level and result.", ["level", "result"])
GENERATION = Gauge("rates_generation", "Newest generation that this process has seen.", multiprocess_mode="max")
OLDEST_GENERATION = Gauge(
    "rates_generation_oldest",
    "Newest generation that the worker has seen that is furthest behind.",
    # Without a label, every process that imports this module, the master too, would count with the value 0.
    ["process"],
    multiprocess_mode="livemin",
)
PUBLISHED = Gauge(
    "rates_generation_published_timestamp_seconds",
    "Unix time at which that generation was published.",
    multiprocess_mode="max",
)
POOL = Gauge(
    "rates_pool_connections",
    "Connections of the pool by server and state.",
    ["server", "state"],
    multiprocess_mode="livesum",
)

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def method_label(method: str) -> str:
    """Return the label for a method: unknown methods are ``other``, which bounds the number of series."""
    return method if method in METHODS else "other"


def registry() -> CollectorRegistry:
    """Return a registry with the metrics of all worker processes."""
    if FOLDER_VARIABLE not in os.environ:
        return REGISTRY
    workers = CollectorRegistry()
    multiprocess.MultiProcessCollector(workers)  # type: ignore[no-untyped-call]
    return workers


def render_metrics(*collectors: Collector) -> tuple[bytes, str]:
    """Render the metrics of all worker processes in Prometheus' text format.

    Args:
        collectors: Collectors that measure at the time of the scrape.

    Returns:
        The text and its media type.
    """
    at_scrape = CollectorRegistry()
    for collector in collectors:
        at_scrape.register(collector)
    return generate_latest(registry()) + generate_latest(at_scrape), CONTENT_TYPE_PLAIN_0_0_4


def remove_worker(pid: int, folder: Path) -> None:
    """Remove the gauges of a worker that has exited. Its counters stay, because counters must never decrease."""
    multiprocess.mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
