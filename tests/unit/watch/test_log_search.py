"""The log search finds the rules' problems within its bounds; moto applies time, groups, order and limit."""

from __future__ import annotations

import re
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto import mock_aws
from typer.testing import CliRunner

from rates_app.cli import app
from rates_app.watch.errors import SearchError
from rates_app.watch.log_search import query, search
from rates_app.watch.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_logs import CloudWatchLogsClient

GROUP = "/aws/containerinsights/prod-blue/dataplane"
HOUR = timedelta(hours=1)


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[CloudWatchLogsClient]:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        client = boto3.client("logs")
        client.create_log_group(logGroupName=GROUP)
        client.create_log_stream(logGroupName=GROUP, logStreamName="node-1")
        now = int(time.time() * 1000)
        lines = {
            7200: "OOMKilled two hours ago",
            1800: "Back-off restarting failed container app in pod rates-app-1, password=hunter2",
            900: "rates-app-2 is well",
            60: 'Failed to pull image "registry.example/rates"',
        }
        client.put_log_events(
            logGroupName=GROUP,
            logStreamName="node-1",
            logEvents=[{"timestamp": now - age * 1000, "message": text} for age, text in lines.items()],
        )
        yield client


def test_it_finds_the_rules_problems_newest_first(logs: CloudWatchLogsClient) -> None:
    found = search(logs, [GROUP], since=HOUR)
    assert [hit.rule.name if hit.rule else None for hit in found.hits] == ["ImagePullFailure", "PodCrashLoop"]
    assert found.hits[1].line.endswith("password=…")
    assert found.complete
    assert not search(logs, [GROUP], since=HOUR, limit=1).complete


def test_it_finds_a_custom_keyword(logs: CloudWatchLogsClient) -> None:
    (hit,) = search(logs, [GROUP], since=HOUR, keywords=["is well"]).hits
    assert (hit.rule, hit.stream) == (None, "node-1")


def test_the_query_filters_where_the_logs_are() -> None:
    text = query(["a/b (c)", "OOMKilled"], 50)
    pattern = re.search(r"filter @message like /(.*)/ \| sort @timestamp desc \| limit 50$", text)
    assert pattern is not None
    assert re.search(pattern[1], "x a/b (c) y")
    assert re.search(pattern[1], "OOMKilled")
    assert not re.search(pattern[1], "a/b c")
    assert all(phrase in query([phrase], 1) for rule in RULES for phrase in rule.phrases)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"groups": []}, "--group"),
        ({"groups": ["g"] * 51}, "51 log groups"),
        ({"since": timedelta(days=8)}, "7 days"),
        ({"since": timedelta(0)}, "7 days"),
        ({"limit": 10_001}, "10000"),
        ({"groups": ["/gone"]}, "log group does not exist"),
    ],
)
def test_a_search_without_bounds_is_refused(
    logs: CloudWatchLogsClient, bounds: dict[str, object], message: str
) -> None:
    arguments: dict[str, Any] = {"groups": [GROUP], "since": HOUR, **bounds}
    with pytest.raises(SearchError, match=message):
        search(logs, **arguments)


@pytest.mark.usefixtures("logs")
def test_the_command_shows_lines_and_runbooks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    result = CliRunner().invoke(app, ["search-logs", "--group", GROUP, "--since", "45m"])
    assert result.exit_code == 0, result.output
    assert "runbooks/image-pull-failure.md" in result.output
    assert "hunter2" not in result.output
    assert "2 lines" in result.output
    assert isinstance(
        CliRunner().invoke(app, ["search-logs", "--group", GROUP, "--since", "soon"]).exception, SearchError
    )
