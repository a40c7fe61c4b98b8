"""``rates watch-pods`` and ``rates search-logs``."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from rates_app.console import AsJson, print_json, print_table
from rates_app.watch.errors import SearchError

UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def watch_pods() -> None:
    """Watch pods and Spark applications, and notify when problems start and end."""
    from rates_app.watch.run import run  # noqa: PLC0415 - other roles don't need the Kubernetes client

    run()


def search_logs(
    group: Annotated[
        list[str],
        typer.Option(envvar="RATES_LOG_GROUPS", help="Log group to search. Repeatable.", show_default=False),
    ],
    since: Annotated[str, typer.Option(help="Start of the search, relative to now: 30m, 1h, 2d; at most 7d.")] = "1h",
    keyword: Annotated[
        list[str] | None,
        typer.Option(help="Text to search for instead of the watcher's rules. Repeatable.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option(help="Maximum number of lines.")] = 200,
    *,
    as_json: AsJson = False,
) -> None:
    """Search CloudWatch Logs for the problems that `rates watch-pods` detects.

    Example: `rates search-logs --group /aws/containerinsights/prod-blue/application --since 1h --keyword OOMKilled`
    """
    import boto3  # noqa: PLC0415 - slow to import

    from rates_app.watch.log_search import search  # noqa: PLC0415

    amount = re.fullmatch(r"(\d{1,6})([mhd])", since)
    if amount is None:
        raise SearchError(f"Invalid --since '{since}'. Examples: 30m, 1h, 2d.")
    found = search(
        boto3.client("logs"),
        group,
        since=timedelta(**{UNITS[amount[2]]: int(amount[1])}),
        keywords=keyword or (),
        limit=limit,
    )
    records = [
        {
            "time": hit.at,
            "problem": hit.rule and hit.rule.name,
            "log_group": hit.group,
            "log_stream": hit.stream,
            "line": hit.line,
            "runbook": hit.rule and hit.rule.runbook,
        }
        for hit in found.hits
    ]
    if as_json:
        print_json({"lines": records, "complete": found.complete, "scanned_bytes": found.scanned_bytes})
        return
    table = Table("time (UTC)", "problem", "log stream", "line", "runbook", box=None)
    for hit in found.hits:
        rule = hit.rule
        table.add_row(
            f"{hit.at:%m-%d %H:%M:%S}",
            rule.name if rule else "",
            hit.stream,
            hit.line,
            f"runbooks/{rule.runbook}.md" if rule else "",
        )
    if found.hits:
        print_table(table)
    more = "" if found.complete else f" There are more lines: raise --limit above {limit} or shorten --since."
    Console(stderr=True).print(f"{len(found.hits)} lines, {found.scanned_bytes / 2**20:,.1f} MiB scanned.{more}")
