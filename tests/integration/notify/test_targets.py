"""Each alert reaches its target once when it begins and once when it has ended, also after a failure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from typer.testing import CliRunner

from rates_app.cli import app
from rates_app.notify.alert import Alert, NotDelivered
from rates_app.notify.github import GitHub
from rates_app.notify.settings import NotifySettings
from rates_app.ops.exporter import start_exporter
from tests.fixtures.targets import FIRING, NOW, RESOLVED, Desk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rates_app.notify.alert import AlertTarget
    from tests.fixtures.targets import MailServer

POST = ("POST", "/api/v2/alerts")
UNREACHABLE = "http://127.0.0.1:9"


def target(**settings: Any) -> AlertTarget:
    found = NotifySettings(timeout_seconds=2, **settings).target()
    assert found is not None
    return found


def email(url: str, to: str = "ops@rates.example") -> AlertTarget:
    return target(smtp_url=url, email_from="alarm@rates.example", email_to=to)


def test_every_replica_of_alertmanager_gets_every_alert_in_its_format(desk: Desk) -> None:
    target(alertmanager_urls=f"{desk.url}/,{desk.url}").send([FIRING], NOW)
    for (alert,) in desk.bodies(*POST):
        assert alert["labels"] == FIRING.labels
        assert alert["annotations"]["runbook_url"] == "https://runbooks.example/pod-crash-loop.md"
        assert (alert["startsAt"], alert["endsAt"]) == ("2026-11-24T03:00:00Z", "2026-11-24T03:35:00Z")
    assert len(desk.bodies(*POST)) == 2


def test_one_replica_of_alertmanager_is_enough(desk: Desk) -> None:
    target(alertmanager_urls=f"{UNREACHABLE},{desk.url}").send([FIRING], NOW)
    assert len(desk.bodies(*POST)) == 1
    desk.statuses = [400]
    with pytest.raises(NotDelivered, match="400"):
        target(alertmanager_urls=desk.url).send([FIRING], NOW)


def test_an_email_is_complete_and_its_all_clear_is_in_its_thread(mail_server: MailServer) -> None:
    mail = email(mail_server.url, "ops@rates.example,second@rates.example")
    for alert in (FIRING, FIRING, RESOLVED, RESOLVED):
        mail.send([alert], NOW)
    first, second = mail_server.inbox.messages
    subject = "critical prod PodCrashLoop: rates-app: a container keeps crashing"
    assert " ".join(str(first["Subject"]).split()) == f"[FIRING] {subject}"
    assert first["X-RcptTo"] == "ops@rates.example, second@rates.example"
    text = str(first.get_payload(decode=False))
    assert "Runbook: https://runbooks.example/pod-crash-loop.md" in text
    assert "ValueError: <bad>" in text
    assert second["Subject"].strip().startswith("[RESOLVED]")
    assert second["In-Reply-To"] == first["Message-ID"] != second["Message-ID"]


def test_an_email_that_was_refused_is_sent_again(mail_server: MailServer) -> None:
    with pytest.raises(NotDelivered, match="nobody@rates"):
        email(mail_server.url, "nobody@rates.example").send([FIRING], NOW)
    down = email("smtp://127.0.0.1:9")
    with pytest.raises(NotDelivered):
        down.send([FIRING], NOW)
    down.send([RESOLVED], NOW)  # the begin was not announced, so the end is no news


def test_an_alert_that_returns_is_announced_again(mail_server: MailServer) -> None:
    mail = email(mail_server.url)
    for alerts in ([FIRING], [RESOLVED], [FIRING], [], [FIRING]):
        mail.send(alerts, NOW)
    assert [str(message["Subject"]).split()[0] for message in mail_server.inbox.messages] == [
        "[FIRING]",
        "[RESOLVED]",
        "[FIRING]",
        "[FIRING]",
    ]


def message(alert: Alert, status: str) -> bytes:
    """Return what Alertmanager's webhook sends for a group of one alert."""
    one = {**alert.model_dump(mode="json", by_alias=True), "status": status, "fingerprint": "0f"}
    whole = {"version": "4", "groupKey": '{}:{alertname="PodCrashLoop"}', "status": status, "alerts": [one]}
    return json.dumps(whole).encode()


@pytest.fixture
def webhook(desk: Desk) -> Iterator[str]:
    settings = NotifySettings.model_validate(
        {"github_url": desk.url, "github_token": "t0ken", "github_repository": "freight-rates/freight-rates"}
    )
    server = start_exporter("127.0.0.1", 0, lambda: True, GitHub(settings).take)
    yield f"http://127.0.0.1:{server.server_port}/webhook"
    server.shutdown()


def test_a_group_of_alerts_has_one_issue_that_its_end_closes(desk: Desk, webhook: str) -> None:
    def states(status: str) -> list[bool]:
        assert httpx.post(webhook, content=message(FIRING, status), timeout=30).status_code == 200
        return [ticket["open"] for ticket in desk.tickets.values()]

    assert states("firing") == [True]
    assert states("firing") == [True]
    assert states("resolved") == [False]
    assert states("firing") == [False, True]
    issue = desk.tickets["1"]
    assert issue["title"] == "critical prod PodCrashLoop: rates-app: a container keeps crashing"
    assert "ValueError: <bad>" in issue["body"]


def test_the_webhook_tells_alertmanager_whether_to_try_again(desk: Desk, webhook: str) -> None:
    desk.statuses = [503]
    assert httpx.post(webhook, content=message(FIRING, "firing"), timeout=30).status_code == 503
    assert httpx.post(webhook, content=b"{}", timeout=30).status_code == 400
    assert httpx.get(webhook).status_code == 404


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("RATES_ENVIRONMENT", "prod")
    return lambda: CliRunner().invoke(app, ["notify", "test", "--severity", "warning"])


def test_the_command_raises_an_alert_of_its_severity(run: Any, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "No target is configured" in run().output
    monkeypatch.setenv("RATES_NOTIFY_ALERTMANAGER_URLS", desk.url)
    assert run().exit_code == 0
    ((alert,),) = desk.bodies(*POST)
    assert alert["labels"] | {"test": ""} == {
        "alertname": "TestNotification",
        "severity": "warning",
        "environment": "prod",
        "test": "",
    }
    desk.statuses = [500]
    failed = run()
    assert failed.exit_code == 1
    assert "Not accepted" in failed.output


def test_the_command_sends_an_email_and_its_all_clear(
    run: Any, mail_server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATES_NOTIFY_SMTP_URL", mail_server.url)
    monkeypatch.setenv("RATES_NOTIFY_EMAIL_FROM", "alarm@rates.example")
    monkeypatch.setenv("RATES_NOTIFY_EMAIL_TO", "ops@rates.example")
    result = run()
    assert result.exit_code == 0, result.output
    assert len(mail_server.inbox.messages) == 2


def test_an_incomplete_target_is_refused(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATES_NOTIFY_GITHUB_TOKEN", "secret-token")
    result = run()
    assert "RATES_NOTIFY_GITHUB_REPOSITORY" in str(result.exception)
    assert "secret-token" not in str(result.exception)
