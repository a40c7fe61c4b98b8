"""Redis fails under load and restarts empty."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httpx

from drills.load import Load
from drills.stack import RunningStack, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from drills.report import Report

PROMISE = "Cache"


def run(folder: Path, report: Report, *, short: bool) -> None:
    """Kill Redis, serve without it, start it, and wait until it is used again."""
    with RunningStack(folder, short=short) as stack:
        with Load(stack) as load:
            wait_for(lambda: _redis_hits(stack) > 0)
            report.log("responses are shared in Redis")
            stack.redis.kill()
            report.breaks("Redis is killed")
            load.wait_for_progress()
            report.log("responses come from process memory and the database; batches continue")
            stack.redis.start()
            before = _redis_hits(stack)
            report.log("Redis is back, empty")
            wait_for(lambda: _redis_hits(stack) > before)
            report.recovered("responses are found in Redis again")
            load.wait_for_progress()
        load.report(report)
        report.rows_lost = load.rows_lost(stack.cluster.url)
        report.expect("rows lost", 0, report.rows_lost)


def _redis_hits(stack: RunningStack) -> float:
    text = "".join(httpx.get(f"{pod.operations_url}/metrics", timeout=30).text for pod in stack.pods)
    pattern = r'^rates_cache_requests_total\{level="redis",result="hit"\} (\S+)'
    return sum(float(hits) for hits in re.findall(pattern, text, re.MULTILINE))
