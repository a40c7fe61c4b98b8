"""The function outside the clusters asks the public name, and each of its questions has an alarm that pages."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from components.probe import FILES
from lambdas.probe import handler
from moto import mock_aws
from rehearsal import ROOT, Rehearsal, rehearse, stack_config
from settings import StackSettingsError

from rates_app.ops.probe import KnownAnswer
from tests.infra.archives import assert_importable
from tests.serving import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("infra")

ALARM = "aws:cloudwatch/metricAlarm:MetricAlarm"
KNOWN: dict[str, Any] = {"origin": "HKHKG", "destination": "SESTO", "day": "2021-01-31", "average": 1171.33}


def rehearsed(stack: str, **probe: str) -> Rehearsal:
    return rehearse(stack, stack_config(stack) | {"rates:probe": json.dumps(KNOWN | probe)})


@pytest.fixture(scope="module")
def prod_with_batches() -> Rehearsal:
    return rehearsed("prod", tokenSecret="probe-token")


def variables(stack: Rehearsal) -> dict[str, str]:
    found: dict[str, str] = stack.of_type("aws:lambda/function:Function")["probe"].inputs["environment"]["variables"]
    return found


def test_each_question_has_an_alarm_that_pages(prod_with_batches: Rehearsal) -> None:
    alarms = {name: one for name, one in prod_with_batches.of_type(ALARM).items() if name.startswith("probe-")}
    assert alarms.keys() == {"probe-page", "probe-api", "probe-batch"}
    metric = (variables(prod_with_batches)["NAMESPACE"], variables(prod_with_batches)["METRIC"])
    for name, alarm in alarms.items():
        inputs = alarm.inputs
        assert (inputs["namespace"], inputs["metricName"]) == metric
        assert inputs["dimensions"] == {"Question": name.removeprefix("probe-")}
        assert (inputs["statistic"], inputs["threshold"]) == ("Maximum", 0)
        assert inputs["comparisonOperator"] == "GreaterThanThreshold"
        # A function that does not run is a failure.
        assert inputs["treatMissingData"] == "breaching"
        assert inputs["alarmDescription"].endswith("Runbook: runbooks/probe-failed.md")
        (topic,) = inputs["alarmActions"]
        assert topic.endswith("alerts-critical")
        periods = (900, 2) if name == "probe-batch" else (60, 3)
        assert (inputs["period"], inputs["evaluationPeriods"]) == periods


def test_a_schedule_invokes_each_kind_of_question(prod_with_batches: Rehearsal) -> None:
    rules = prod_with_batches.of_type("aws:cloudwatch/eventRule:EventRule")
    targets = prod_with_batches.of_type("aws:cloudwatch/eventTarget:EventTarget")
    permissions = prod_with_batches.of_type("aws:lambda/permission:Permission")
    function = prod_with_batches.of_type("aws:lambda/function:Function")["probe"]
    for name, schedule, event in (
        ("probe-questions", "rate(1 minute)", {}),
        ("probe-batch", "rate(15 minutes)", {"batch": True}),
    ):
        assert rules[name].inputs["scheduleExpression"] == schedule
        assert json.loads(targets[name].inputs["input"]) == event
        assert targets[name].inputs["arn"].endswith(f"-{function.name}")
        assert permissions[name].inputs["principal"] == "events.amazonaws.com"


def test_the_function_is_outside_the_network_and_may_do_nothing_else(prod_with_batches: Rehearsal) -> None:
    assert "vpcConfig" not in prod_with_batches.of_type("aws:lambda/function:Function")["probe"].inputs
    statements = json.loads(prod_with_batches.of_type("aws:iam/rolePolicy:RolePolicy")["probe"].inputs["policy"])
    allowed = {action: one for one in statements["Statement"] for action in one["Action"]}
    assert allowed.keys() == {
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "cloudwatch:PutMetricData",
        "secretsmanager:GetSecretValue",
    }
    namespace = variables(prod_with_batches)["NAMESPACE"]
    assert allowed["cloudwatch:PutMetricData"]["Condition"] == {"StringEquals": {"cloudwatch:namespace": namespace}}
    (secret,) = allowed["secretsmanager:GetSecretValue"]["Resource"]
    assert secret.endswith(":secret:probe-token-??????")


def test_the_public_name_is_asked(prod: Rehearsal) -> None:
    assert variables(prod)["URL"] == "https://rates.rehearsal.test"
    assert KnownAnswer(**json.loads(variables(prod)["KNOWN_ANSWER"])) == KnownAnswer(**KNOWN)
    # Without a token there is no test batch.
    assert "TOKEN_SECRET" not in variables(prod)
    assert "probe-batch" not in prod.of_type(ALARM)


def test_a_stack_without_a_domain_is_asked_at_its_load_balancer() -> None:
    stack = rehearsed("dev")
    assert variables(stack)["URL"].startswith("http://")
    assert {"probe-page", "probe-api"} <= stack.of_type(ALARM).keys()


def test_a_token_is_not_sent_over_http() -> None:
    with pytest.raises(StackSettingsError, match="token must not be sent over HTTP"):
        rehearsed("dev", tokenSecret="probe-token")


def test_a_stack_without_a_known_answer_has_no_function(dev: Rehearsal) -> None:
    assert "probe" not in dev.of_type("aws:lambda/function:Function")


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with mock_aws():
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        for name, value in (
            ("NAMESPACE", "Rates/test"),
            ("METRIC", "ProbeFailed"),
            ("KNOWN_ANSWER", json.dumps(KNOWN)),
            ("TOKEN_SECRET", "probe-token"),
        ):
            monkeypatch.setenv(name, value)
        boto3.client("secretsmanager").create_secret(Name="probe-token", SecretString="right\n")
        yield boto3.client("cloudwatch")


def published(client: Any, question: str) -> list[float]:
    points = client.get_metric_statistics(
        Namespace="Rates/test",
        MetricName="ProbeFailed",
        Dimensions=[{"Name": "Question", "Value": question}],
        StartTime=datetime.now(UTC) - timedelta(minutes=5),
        EndTime=datetime.now(UTC) + timedelta(minutes=5),
        Period=3600,
        Statistics=["Maximum"],
    )["Datapoints"]
    return [point["Maximum"] for point in points]


class HalfRight(BaseHTTPRequestHandler):
    """An API that is right, a page that is empty, and batches that are refused without the right token."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"rates": [{"average": 1171.33}]}' if self.path.startswith("/v1/rates?") else b"<html>")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        right = self.headers["Authorization"] == "Bearer right"
        self.send_response(503 if right else 401)
        self.end_headers()
        self.wfile.write(b'{"detail": "No dispatcher."}')


def test_the_function_publishes_which_question_failed(
    metrics: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(HalfRight) as url:
        monkeypatch.setenv("URL", url)
        handler.handle({}, None)
        assert (published(metrics, "page"), published(metrics, "api"), published(metrics, "batch")) == ([1], [0], [])
        assert "page: " in caplog.text
        assert "has no average; known is 1171.33" in caplog.text
        handler.handle({"batch": True}, None)
        assert published(metrics, "batch") == [1]
        assert "responds 503: No dispatcher." in caplog.text
        assert "right" not in caplog.text


def test_the_archive_of_the_probe_contains_what_it_imports(tmp_path: Path) -> None:
    assert_importable(tmp_path, {"handler.py": ROOT / "pulumi/lambdas/probe/handler.py", **FILES})
