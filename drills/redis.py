"""Redis fails under load and restarts empty."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httpx

from drills.load import Load
from drills.site import Site, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from drills.report import Report

PROMISE = "Cache"


def run(folder: Path, report: Report, *, short: bool) -> None:
    """Kill Redis, serve without it, start it, and wait until it is used again."""
    with Site(folder, short=short) as site:
        with Load(site) as load:
            wait_for(lambda: _redis_hits(site) > 0)
            report.log("responses are shared in Redis")
            site.redis.kill()
            report.breaks("Redis is killed")
            load.wait_for_progress()
            report.log("responses come from process memory and the database; batches continue")
            site.redis.start()
            before = _redis_hits(site)
            report.log("Redis is back, empty")
            wait_for(lambda: _redis_hits(site) > before)
            report.recovered("responses are found in Redis again")
            load.wait_for_progress()
        load.report(report)
        report.rows_lost = load.rows_lost(site.cluster.url)
        report.expect("rows lost", 0, report.rows_lost)


def _redis_hits(site: Site) -> float:
    text = "".join(httpx.get(f"{pod.operations_url}/metrics", timeout=30).text for pod in site.pods)
    pattern = r'^rates_cache_requests_total\{level="redis",result="hit"\} (\S+)'
    return sum(float(hits) for hits in re.findall(pattern, text, re.MULTILINE))
