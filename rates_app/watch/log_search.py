"""The watcher's rules as a search over CloudWatch Logs, for clusters where only logs are at hand.

One Logs Insights query does the work where the logs are: bounded in time, in log groups and in rows, and cancelled
when it takes too long, since Insights charges by what it scans.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from rates_app.watch.errors import SearchError
from rates_app.watch.excerpt import redact
from rates_app.watch.rules import RULES, Rule, classify

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_logs.type_defs import GetQueryResultsResponseTypeDef

#: Limits of Logs Insights (CloudWatch Logs quotas), and one of our own on time, as what is scanned is paid for.
MOST_GROUPS, MOST_ROWS, LONGEST = 50, 10_000, timedelta(days=7)

POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Hit:
    """A line that speaks of a problem.

    Attributes:
        at: When it was logged.
        rule: The rule that it fits; none where a keyword of the caller's own found it.
        group: The log group.
        stream: The log stream; in a cluster it names pod and node.
        line: The line, without secrets.
    """

    at: datetime
    rule: Rule | None
    group: str
    stream: str
    line: str


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        hits: The lines, newest first.
        complete: False when there were more than were asked for.
        scanned_bytes: What Insights read, and charges for.
    """

    hits: list[Hit]
    complete: bool
    scanned_bytes: int


def query(keywords: Sequence[str], limit: int) -> str:
    """Write the query.

    Args:
        keywords: Texts of which a line must hold one, taken literally.
        limit: Rows, at most.

    Returns:
        A query in Logs Insights' language.
    """
    pattern = "|".join(re.sub(r"([\\^$.|?*+()\[\]{}/])", r"\\\1", keyword) for keyword in keywords)
    return (
        f"fields @timestamp, @log, @logStream, @message | filter @message like /{pattern}/"
        f" | sort @timestamp desc | limit {limit}"
    )


def search(
    logs: CloudWatchLogsClient,
    groups: Sequence[str],
    *,
    since: timedelta,
    keywords: Sequence[str] = (),
    limit: int = 200,
    timeout: float = 60.0,
) -> Found:
    """Search log groups for lines that speak of the watcher's problems.

    Args:
        logs: CloudWatch Logs.
        groups: Names of the log groups.
        since: How far back.
        keywords: Other texts to look for, instead of the rules' own.
        limit: Lines, at most.
        timeout: Seconds that the query may take.

    Returns:
        The lines that were found.

    Raises:
        SearchError: A bound is exceeded, a group does not exist, or the query failed or took too long.
    """
    if not groups:
        raise SearchError("name at least one log group: --group /aws/containerinsights/CLUSTER/application")
    if len(groups) > MOST_GROUPS:
        raise SearchError(f"{len(groups)} log groups are more than one query takes ({MOST_GROUPS}); name fewer")
    if not timedelta(0) < since <= LONGEST:
        raise SearchError(f"--since must be within {LONGEST.days} days, as what is scanned is paid for")
    if not 1 <= limit <= MOST_ROWS:
        raise SearchError(f"--limit must be from 1 to {MOST_ROWS}")
    phrases = list(keywords) or [phrase for rule in RULES for phrase in rule.phrases]
    now = datetime.now(UTC)
    try:
        started = logs.start_query(
            logGroupNames=list(groups),
            startTime=int((now - since).timestamp()),
            endTime=int(now.timestamp()) + 1,
            queryString=query(phrases, limit),
        )
    except logs.exceptions.ResourceNotFoundException as error:
        raise SearchError(f"{error.response['Error']['Message']} Log groups: aws logs describe-log-groups") from None
    result = _wait(logs, started["queryId"], timeout)
    hits = []
    for row in result["results"]:
        cells = {cell["field"]: cell["value"] for cell in row}
        line = cells["@message"]
        if any(phrase in line for phrase in phrases):
            hits.append(
                Hit(_time(cells["@timestamp"]), classify(line), cells["@log"], cells["@logStream"], redact(line))
            )
    statistics = result.get("statistics", {})
    return Found(hits, len(result["results"]) < limit, int(statistics.get("bytesScanned", 0)))


def _wait(logs: CloudWatchLogsClient, query_id: str, timeout: float) -> GetQueryResultsResponseTypeDef:
    deadline = time.monotonic() + timeout
    while True:
        result = logs.get_query_results(queryId=query_id)
        if result["status"] == "Complete":
            return result
        if result["status"] not in {"Scheduled", "Running"}:
            raise SearchError(f"the query ended as {result['status']}; narrow it with --since or --group")
        if time.monotonic() > deadline:
            logs.stop_query(queryId=query_id)
            raise SearchError(f"the query took longer than {timeout:.0f} s and was stopped; narrow it with --since")
        time.sleep(POLL_SECONDS)


def _time(text: str) -> datetime:
    """Read a time as Insights gives it, in UTC without saying so, or in milliseconds since 1970."""
    if text.isdigit():
        return datetime.fromtimestamp(int(text) / 1000, UTC)
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
