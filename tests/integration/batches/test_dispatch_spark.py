"""The dispatcher submits large batches to Spark and follows their applications."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import psycopg
import pytest
import yaml
from kubernetes import client
from psycopg import sql

from rates_app.batches.pipeline.dispatch import MAX_ATTEMPTS
from rates_app.batches.pipeline.engine import OUTAGE_EXIT_STATUS, drive
from rates_app.batches.pipeline.spark import Applications
from rates_app.batches.sources.registry import open_source
from rates_app.settings import Settings, SettingsError
from tests.fixtures.refusing import refusing
from tests.integration.batches.dispatching import (
    GOOD,
    HEADER,
    arrive,
    attempts_and_outages,
    dispatching,
    folders,
    hidden_messages,
    names,
    objects,
    retry_now,
)
from tests.serving import serving

if TYPE_CHECKING:
    from collections.abc import Iterator


ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "charts" / "golden" / "prod-spark-ingest.yaml"


class SparkApplicationsApi:
    """A Kubernetes API server that knows SparkApplications and nothing else."""

    def __init__(self) -> None:
        self.applications: dict[str, dict[str, Any]] = {}
        self.refusal = 0

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        prefix = "/apis/sparkoperator.k8s.io/v1beta2/namespaces/rates/sparkapplications"
        assert path.startswith(prefix), path
        name = path.removeprefix(prefix).lstrip("/")
        name = name.partition("?")[0]
        if self.refusal:
            return self.refusal, {"kind": "Status", "code": self.refusal}
        if method == "POST":
            application = json.loads(body)
            name = application["metadata"]["name"]
            if name in self.applications:
                return 409, {"kind": "Status", "reason": "AlreadyExists"}
            self.applications[name] = application
            return 201, application
        if not name:
            return 200, {"items": list(self.applications.values())}
        if name in self.applications:
            return 200, self.applications.pop(name) if method == "DELETE" else self.applications[name]
        return 404, {"kind": "Status", "reason": "NotFound"}


@pytest.fixture
def operator() -> Iterator[tuple[SparkApplicationsApi, Applications]]:
    served = SparkApplicationsApi()

    class ApiHandler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            status, answer = served.answer(self.command, self.path, self.rfile.read(length))
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_DELETE = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Suppress the request log."""

    with serving(ApiHandler) as url:
        yield served, Applications(client.ApiClient(client.Configuration(host=url)))


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """What the chart gives the dispatcher."""
    maps = [part for part in yaml.safe_load_all(GOLDEN.read_text()) if part and part["kind"] == "ConfigMap"]
    (text,) = (
        part["data"]["sparkapplication.yaml"] for part in maps if part["metadata"]["name"] == "rates-batch-template"
    )
    path = tmp_path / "sparkapplication.yaml"
    path.write_text(text)
    return path


@pytest.fixture
def big(settings: Settings, template: Path) -> Settings:
    return settings.model_copy(update={"spark_template": template, "spark_above_rows": 10})


def test_a_large_batch_is_submitted_once_and_archived_at_its_end(
    big: Settings, operator: tuple[SparkApplicationsApi, Applications]
) -> None:
    served, applications = operator
    path = arrive(big, 'odd "name".csv', HEADER + GOOD * 500)
    arrive(big, "small.csv", HEADER + GOOD * 5, age=50)
    source = folders(big)
    dispatcher = dispatching(big, source, applications)
    for _ in range(2):
        delivery = source.claim(0)
        assert delivery is not None
        dispatcher.handle(delivery)
    assert names(big, "processed") == ["2-small.csv", "2-small.csv.report.json"], "small ones do not wait for Spark"
    (application,) = served.applications.values()
    *arguments, address = application["spec"]["arguments"]
    assert arguments == ["--batch", "1", "--source"]
    assert application["metadata"]["name"] == "batch-1"
    dispatcher.follow()
    assert names(big, "incoming") == [path.name]

    # The same after a restart of the dispatcher: the application is there, and is followed.
    twin = dispatching(big, source := folders(big), applications)
    assert source.claim(0) is None, "the file is still locked"
    dispatcher.stop()
    dispatcher.run()
    delivery = source.claim(0)
    assert delivery is not None
    twin.handle(delivery)
    assert len(served.applications) == 1

    with psycopg.connect(big.database_url.get_secret_value()) as connection:  # as the driver in the cluster does
        drive(connection, big, 1, address)
    twin.follow()
    assert names(big, "incoming") == []
    assert '1-odd "name".csv' in names(big, "processed")


def test_a_batch_in_spark_whose_message_comes_twice_is_archived_once(
    aws: Settings, template: Path, operator: tuple[SparkApplicationsApi, Applications]
) -> None:
    settings = aws.model_copy(update={"spark_template": template, "spark_above_rows": 10})
    s3, sqs = boto3.Session().client("s3"), boto3.Session().client("sqs")
    s3.put_object(Bucket="incoming", Key="acme/a.csv", Body=HEADER + GOOD * 500)
    event = {"Records": [{"s3": {"object": {"key": "acme/a.csv"}}}]}
    sqs.send_message(QueueUrl=str(settings.incoming_queue_url), MessageBody=json.dumps(event))
    source = open_source(settings)
    dispatcher = dispatching(settings, source, operator[1])
    while sum(hidden_messages(settings)) > hidden_messages(settings)[1]:
        if delivery := source.claim(1):
            dispatcher.handle(delivery)
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        drive(connection, settings, 1, operator[0].applications["batch-1"]["spec"]["arguments"][-1])
    dispatcher.follow()
    while sum(hidden_messages(settings)):
        if delivery := source.claim(1):
            dispatcher.handle(delivery)
    assert objects("processed") == ["acme/1-a.csv", "acme/1-a.csv.report.json"]
    assert hidden_messages(settings) == (0, 0)


@pytest.mark.parametrize("state", ["SUBMITTED", "SUBMISSION_FAILED", "FAILING", "PENDING_RERUN", "UNKNOWN"])
def test_an_application_that_the_operator_retries_is_followed(
    big: Settings, operator: tuple[SparkApplicationsApi, Applications], state: str
) -> None:
    served, applications = operator
    arrive(big, "a.csv", HEADER + GOOD * 500)
    source = folders(big)
    dispatcher = dispatching(big, source, applications)
    delivery = source.claim(0)
    assert delivery is not None
    dispatcher.handle(delivery)
    served.applications["batch-1"]["status"] = {"applicationState": {"state": state, "errorMessage": "for now"}}
    dispatcher.follow()
    assert folders(big).claim(0) is None, "the file is still locked"


@pytest.mark.parametrize("what", ["failed", "deleted"])
def test_a_delivery_is_released_when_spark_gives_up(
    big: Settings, operator: tuple[SparkApplicationsApi, Applications], what: str
) -> None:
    served, applications = operator
    path = arrive(big, "a.csv", HEADER + GOOD * 500)
    source = folders(big)
    dispatcher = dispatching(big, source, applications)
    delivery = source.claim(0)
    assert delivery is not None
    dispatcher.handle(delivery)
    if what == "failed":
        served.applications["batch-1"]["status"] = {"applicationState": {"state": "FAILED", "errorMessage": "OOM"}}
    else:
        served.applications.clear()
    dispatcher.follow()
    assert names(big, "incoming") == [path.name]
    released = folders(big).claim(0)
    assert released is not None
    if what == "failed":  # its name is taken until it is removed
        retry_now(big)
        dispatcher.handle(released)
        assert list(served.applications) == ["batch-1-2"]


@pytest.mark.parametrize(("status", "counts"), [(OUTAGE_EXIT_STATUS, (0, 1)), (1, (1, 0)), (137, (1, 0))])
def test_an_outage_that_ends_the_driver_is_no_failure_of_the_file(
    big: Settings, operator: tuple[SparkApplicationsApi, Applications], status: int, counts: tuple[int, int]
) -> None:
    served, applications = operator
    path = arrive(big, "a.csv", HEADER + GOOD * 500)
    dispatcher = dispatching(big, folders(big), applications)

    def fail() -> None:
        retry_now(big)
        delivery = folders(big).claim(0)
        assert delivery is not None
        dispatcher.handle(delivery)
        (application,) = served.applications.values()
        reason = f"driver container failed with ExitCode: {status}, Reason: Error"
        application["status"] = {"applicationState": {"state": "FAILED", "errorMessage": reason}}
        dispatcher.follow()

    fail()
    assert attempts_and_outages(big) == counts
    for _ in range(MAX_ATTEMPTS):
        if names(big, "incoming"):
            fail()
    assert names(big, "incoming") == ([path.name] if status == OUTAGE_EXIT_STATUS else [])


def test_a_failure_that_the_database_does_not_record_is_recorded_later(
    big: Settings, operator: tuple[SparkApplicationsApi, Applications]
) -> None:
    served, applications = operator
    arrive(big, "a.csv", HEADER + GOOD * 500)
    dispatcher = dispatching(big, folders(big), applications)
    delivery = folders(big).claim(0)
    assert delivery is not None
    dispatcher.handle(delivery)
    served.applications["batch-1"]["status"] = {"applicationState": {"state": "FAILED", "errorMessage": "OOM"}}
    url = big.database_url.get_secret_value()
    with refusing(url, "delivery_attempts", "53100"):
        dispatcher.follow()
    assert folders(big).claim(0) is None, "it is followed as long as no attempt can be counted"
    with refusing(url, "delivery_attempts", "53100", when=sql.SQL("NEW.error IS NOT NULL")):
        dispatcher.follow()
    released = folders(big).claim(0)
    assert released is not None, "it is released, although only the begin of the attempt was counted"
    dispatcher.handle(released)
    assert attempts_and_outages(big) == (0, 1)


def test_a_cluster_that_refuses_leaves_the_delivery_for_later(
    big: Settings, operator: tuple[SparkApplicationsApi, Applications]
) -> None:
    served, applications = operator
    served.refusal = 403
    path = arrive(big, "a.csv", HEADER + GOOD * 500)
    source = folders(big)
    delivery = source.claim(0)
    assert delivery is not None
    dispatching(big, source, applications).handle(delivery)
    assert names(big, "incoming") == [path.name]
    assert folders(big).claim(0) is not None


@pytest.mark.parametrize(
    "change", [("$batch_id", "$batch"), ("kind: SparkApplication", "kind: Pod"), ("spec:", "spec")]
)
def test_a_template_that_is_none_is_an_error(template: Path, change: tuple[str, str]) -> None:
    from rates_app.batches.pipeline.spark import render  # noqa: PLC0415

    template.write_text(template.read_text().replace(*change))
    with pytest.raises(SettingsError, match="RATES_SPARK_TEMPLATE"):
        render(template, 1, "s3://incoming/a.csv")
