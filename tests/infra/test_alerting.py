"""Alerts through a real Alertmanager, with the configuration that a stack's own registration gives it.

Who receives an alert is checked where it arrives: at the pager, in the queues of the topics, and in the ticket system.
"""

from __future__ import annotations

import json
import subprocess
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import boto3
import httpx
import pytest
import yaml
from lambdas.ticket import handler
from moto.server import ThreadedMotoServer

from drills import waiting
from rates_app.local.server import free_port
from tests.charts.rendering import facts_of
from tests.charts.test_monitoring import rules
from tests.charts.tools import program
from tests.infra.room import applications, clusters
from tests.infra.tickets import TOKEN, ticket_system

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rehearsal import Rehearsal

    from tests.fixtures.targets import Desk

pytestmark = pytest.mark.xdist_group("infra")

#: Alertmanager sends a group's first message after this, and its next one. Only the pauses are scaled.
PAUSE = "1s"

#: For messages through Alertmanager and moto, on a busy machine.
wait_until = partial(waiting.wait_until, seconds=180)

KEY_FILE = "/etc/alertmanager/notify/ALERTMANAGER_PAGERDUTY_KEY"


class Receivers:
    """The services that Alertmanager notifies, and the alerts that it is given."""

    def __init__(self, desk: Desk, queues: dict[str, str], sqs: Any, url: str) -> None:
        self._desk = desk
        self._queues, self._sqs, self._url = queues, sqs, url
        self._received: dict[str, list[dict[str, Any]]] = {name: [] for name in queues}

    @property
    def pages(self) -> list[dict[str, Any]]:
        """The events that the pager has received."""
        return self._desk.bodies("POST", "/v2/enqueue")

    def post(self, *alerts: dict[str, Any]) -> None:
        """Send alerts as Prometheus does."""
        httpx.post(f"{self._url}/api/v2/alerts", json=alerts).raise_for_status()

    def messages(self, topic: str) -> list[dict[str, Any]]:
        """Return all messages that a topic has received."""
        while batch := self._sqs.receive_message(QueueUrl=self._queues[topic], MaxNumberOfMessages=10).get("Messages"):
            for one in batch:
                self._received[topic].append(json.loads(one["Body"]))
                self._sqs.delete_message(QueueUrl=self._queues[topic], ReceiptHandle=one["ReceiptHandle"])
        return self._received[topic]

    def alerts_of(self, topic: str) -> set[str]:
        """Return the names of the alerts in a topic's messages."""
        return {message["Subject"].split()[-1] for message in self.messages(topic)}


def _alert(rule: dict[str, Any], ended: bool = False) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "labels": {"alertname": rule["alert"], "namespace": "rates", **rule["labels"]},
        "annotations": rule["annotations"],
        "startsAt": (now - timedelta(minutes=1)).isoformat(),
        **({"endsAt": now.isoformat()} if ended else {}),
    }


def _config(values: dict[str, Any], api: str, pager: str, folder: Path) -> dict[str, Any]:
    """Return the stack's configuration with other addresses and shorter pauses."""
    config: dict[str, Any] = values["alertmanager"]["config"]
    for route in (config["route"], *config["route"]["routes"]):
        route |= {"group_wait": "0s", "group_interval": PAUSE}
    for receiver in config["receivers"]:
        for sns in receiver.get("sns_configs", []):
            sns["api_url"] = api
        for one in receiver.get("pagerduty_configs", []):
            assert one["routing_key_file"] == KEY_FILE
            (folder / "key").write_text("the-key")
            one |= {"routing_key_file": str(folder / "key"), "url": pager}
    return config


@pytest.fixture
def receivers(
    desk: Desk,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Receivers]:
    """Run Alertmanager with the configuration of one of a stack's clusters."""
    # Of prod, a cluster in the second region: Alertmanager must use that region's topics.
    cluster = max(clusters(request.getfixturevalue(request.param)), key=lambda one: one.name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    try:
        host, port = moto.get_host_and_port()
        api = f"http://{host}:{port}"
        values = applications(cluster.registration)["kube-prometheus-stack"]["source"]["helm"]["valuesObject"]
        facts = facts_of(cluster.registration)
        sns = boto3.client("sns", endpoint_url=api, region_name=facts["region"])
        sqs = boto3.client("sqs", endpoint_url=api, region_name=facts["region"])
        queues, text = {}, json.dumps(_config(values, api, f"{desk.url}/v2/enqueue", tmp_path))
        for name in ("critical", "warning", "heartbeat"):
            topic = sns.create_topic(Name=name)["TopicArn"]
            queues[name] = sqs.create_queue(QueueName=name)["QueueUrl"]
            arn = sqs.get_queue_attributes(QueueUrl=queues[name], AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
            sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
            assert text.count(facts[f"{name}TopicArn"]) == 1
            text = text.replace(facts[f"{name}TopicArn"], topic)
        (tmp_path / "alertmanager.yaml").write_text(yaml.safe_dump(json.loads(text)))
        url = f"http://127.0.0.1:{free_port()}"
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    program("alertmanager"),
                    f"--config.file={tmp_path / 'alertmanager.yaml'}",
                    f"--storage.path={tmp_path / 'data'}",
                    f"--web.listen-address={url.removeprefix('http://')}",
                    "--cluster.listen-address=",
                ],
                stdout=log,
                stderr=log,
            )
        try:
            wait_until(
                lambda: httpx.get(f"{url}/-/ready").is_success,
                describe=(tmp_path / "log").read_text,
                ignore=(httpx.TransportError,),
            )
            yield Receivers(desk, queues, sqs, url)
        finally:
            process.terminate()
            process.wait(30)
    finally:
        moto.stop()


def test_alertmanager_reads_the_pagers_key_from_the_notify_secret(prod_with_pager: Rehearsal) -> None:
    for cluster in clusters(prod_with_pager):
        values = applications(cluster.registration)["kube-prometheus-stack"]["source"]["helm"]["valuesObject"]
        spec = values["alertmanager"]["alertmanagerSpec"]
        ((volume,), (mount,)) = spec["volumes"], spec["volumeMounts"]
        (secret,) = (
            one
            for one in values["extraManifests"]
            if one["kind"] == "ExternalSecret" and one["spec"]["target"]["name"] == volume["secret"]["secretName"]
        )
        assert (volume["name"], f"{mount['mountPath']}/ALERTMANAGER_PAGERDUTY_KEY") == (mount["name"], KEY_FILE)
        notify = facts_of(cluster.registration)["notifySecret"]
        assert secret["spec"]["dataFrom"] == [{"extract": {"key": notify}}]
        assert secret["spec"]["secretStoreRef"]["name"] in {
            one["metadata"]["name"] for one in values["extraManifests"] if one["kind"] == "SecretStore"
        }


def by_severity(severity: str) -> dict[str, dict[str, Any]]:
    return {name: rule for name, rule in rules().items() if rule["labels"]["severity"] == severity}


@pytest.mark.parametrize("receivers", ["prod_with_pager"], indirect=True)
def test_severity_decides_who_is_notified(receivers: Receivers) -> None:
    critical, warning = by_severity("critical"), by_severity("warning")
    # Without its group_wait, Alertmanager would notify some warnings before it knows the alert that suppresses them.
    receivers.post(*map(_alert, critical.values()))
    wait_until(lambda: len(receivers.pages) >= len(critical))
    receivers.post(*(_alert(rule) for name, rule in rules().items() if name not in critical))
    wait_until(lambda: receivers.messages("heartbeat"))
    # Some warnings are suppressed by the page about the same problem.
    suppressed = {"ErrorBudgetBurn", "HighLatency", "BatchAtRisk", "BatchStuck"}
    wait_until(lambda: receivers.alerts_of("warning") >= warning.keys() - suppressed)
    wait_until(lambda: receivers.alerts_of("critical") == critical.keys())
    time.sleep(2)  # nothing else follows
    assert receivers.alerts_of("warning") == warning.keys() - suppressed
    assert len(receivers.pages) == len(critical)
    for name, rule in critical.items():
        (event,) = (one for one in receivers.pages if name in one["payload"]["summary"])
        assert event["routing_key"] == "the-key"
        assert event["payload"]["severity"] == "critical"
        assert event["payload"]["summary"] == f"prod {name}: {rule['annotations']['summary']}"
        assert event["links"][0]["href"] == rule["annotations"]["runbook_url"]
    assert {message["Subject"].split()[0] for message in receivers.messages("critical")} == {"[FIRING]"}


@pytest.mark.parametrize("receivers", ["dev"], indirect=True)
def test_without_a_pager_a_critical_alert_is_an_email(receivers: Receivers) -> None:
    receivers.post(_alert(rules()["HighErrorRate"]))
    wait_until(lambda: receivers.messages("critical"))
    (message,) = receivers.messages("critical")
    assert message["Subject"] == "[FIRING] critical dev HighErrorRate"
    assert receivers.messages("warning") == []
    assert receivers.pages == []


@pytest.mark.parametrize("receivers", ["prod_with_pager"], indirect=True)
def test_an_alert_has_one_incident_and_one_ticket_from_its_begin_to_its_end(
    receivers: Receivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, ticket = rules()["HighErrorRate"], rules()["ReplicaLag"]
    receivers.post(_alert(page), _alert(ticket))
    wait_until(lambda: receivers.pages and receivers.messages("warning"))
    receivers.post(_alert(page, ended=True), _alert(ticket, ended=True))
    wait_until(lambda: len(receivers.pages) > 1 and len(receivers.messages("warning")) > 1)
    begin, end = receivers.pages
    assert (begin["event_action"], end["event_action"]) == ("trigger", "resolve")
    assert begin["dedup_key"] == end["dedup_key"]
    with ticket_system() as tickets:
        monkeypatch.setenv("TICKET_URL", f"{tickets.url}/tickets")
        monkeypatch.setattr(handler, "_token", lambda: TOKEN)
        for message in receivers.messages("warning"):
            handler.handle({"Records": [{"Sns": message}]}, None)
            assert len(tickets.tickets) == 1
        (opened,) = tickets.tickets
    assert opened["title"] == "[FIRING] warning prod ReplicaLag"
    assert opened["key"].endswith("/ReplicaLag/rates")
    assert opened["state"] == "closed"
    assert ticket["annotations"]["runbook_url"] in opened["body"]


@pytest.mark.parametrize("receivers", ["dev"], indirect=True)
def test_an_alert_of_no_known_severity_opens_a_ticket(receivers: Receivers) -> None:
    rule = rules()["ReplicaLag"]
    receivers.post(_alert({**rule, "alert": "TargetDown", "labels": {**rule["labels"], "severity": "page"}}))
    wait_until(lambda: receivers.alerts_of("warning") == {"TargetDown"})
    receivers.post(_alert({**rule, "alert": "Known", "labels": {**rule["labels"], "severity": "none"}}))
    receivers.post(_alert({**rule, "alert": "Later"}))
    wait_until(lambda: "Later" in receivers.alerts_of("warning"))
    assert "Known" not in receivers.alerts_of("warning")
