"""Search CloudWatch Logs for the problems that the watcher's rules describe.

The search is one Logs Insights query, bounded in time, log groups and rows, and cancelled after a timeout, because
Insights charges by the amount of data scanned.
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

#: Quotas of Logs Insights, and this project's limit on the time range, because Insights charges by data scanned.
MAX_GROUPS, MAX_ROWS, MAX_RANGE = 50, 10_000, timedelta(days=7)

POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Hit:
    """A log line that matches a rule or keyword.

    Attributes:
        at: Time of the log entry.
        rule: The matching rule; None if only a keyword of the caller matched.
        group: The log group.
        stream: The log stream. For containers, its name contains the pod and the node.
        line: The line, without secrets.
    """

    at: datetime
    rule: Rule | None
    group: str
    stream: str
    line: str


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Attributes:
        hits: The lines, newest first.
        complete: False if more lines matched than the limit allows.
        scanned_bytes: Amount of data scanned, for which AWS charges.
    """

    hits: list[Hit]
    complete: bool
    scanned_bytes: int


def query(keywords: Sequence[str], limit: int) -> str:
    """Build the query.

    Args:
        keywords: A line must contain one of these texts literally.
        limit: Maximum number of rows.

    Returns:
        A query in the language of Logs Insights.
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
) -> SearchResult:
    """Search log groups for lines that match the watcher's rules.

    Args:
        logs: CloudWatch Logs.
        groups: Names of the log groups.
        since: How far back to search, at most seven days.
        keywords: Texts to search for instead of the rules' phrases.
        limit: Maximum number of lines.
        timeout: Seconds before the query is cancelled.

    Returns:
        The matching lines.

    Raises:
        SearchError: An argument exceeds its limit, a group does not exist, or the query failed or timed out.
    """
    if not groups:
        raise SearchError("No log group. Name at least one: --group /aws/containerinsights/CLUSTER/application")
    if len(groups) > MAX_GROUPS:
        raise SearchError(f"{len(groups)} log groups exceed the maximum of {MAX_GROUPS}. Name fewer groups.")
    if not timedelta(0) < since <= MAX_RANGE:
        raise SearchError(f"--since exceeds the maximum of {MAX_RANGE.days} days. AWS charges by the data scanned.")
    if not 1 <= limit <= MAX_ROWS:
        raise SearchError(f"--limit must be between 1 and {MAX_ROWS}.")
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
    return SearchResult(hits, len(result["results"]) < limit, int(statistics.get("bytesScanned", 0)))


def _wait(logs: CloudWatchLogsClient, query_id: str, timeout: float) -> GetQueryResultsResponseTypeDef:
    deadline = time.monotonic() + timeout
    while True:
        result = logs.get_query_results(queryId=query_id)
        if result["status"] == "Complete":
            return result
        if result["status"] not in {"Scheduled", "Running"}:
            raise SearchError(f"The query ended with status {result['status']}. Narrow it with --since or --group.")
        if time.monotonic() > deadline:
            logs.stop_query(queryId=query_id)
            raise SearchError(f"The query was cancelled after {timeout:.0f} s. Narrow it with --since.")
        time.sleep(POLL_SECONDS)


def _time(text: str) -> datetime:
    """Parse a timestamp of Insights: UTC without an offset, or milliseconds since 1970."""
    if text.isdigit():
        return datetime.fromtimestamp(int(text) / 1000, UTC)
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
