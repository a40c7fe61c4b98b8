"""Redis dies under load, and comes back empty."""

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
    """Kill Redis, serve without it, start it, and see it used again."""
    with Site(folder, short=short) as site:
        with Load(site) as load:
            wait_for(lambda: _redis_hits(site) > 0)
            report.note("answers are shared in Redis")
            site.redis.kill()
            report.breaks("Redis is killed")
            load.go_on()
            report.note("answers come from the processes' memory and the database; batches go on")
            site.redis.start()
            before = _redis_hits(site)
            report.note("Redis is back, empty")
            wait_for(lambda: _redis_hits(site) > before)
            report.recovered("answers are found in Redis again")
            load.go_on()
        load.report(report)
        report.rows_lost = load.rows_lost(site.cluster.url)
        report.expect("rows lost", 0, report.rows_lost)


def _redis_hits(site: Site) -> float:
    text = "".join(httpx.get(f"{pod.operations_url}/metrics", timeout=30).text for pod in site.pods)
    pattern = r'^rates_cache_requests_total\{level="redis",result="hit"\} (\S+)'
    return sum(float(hits) for hits in re.findall(pattern, text, re.MULTILINE))
