"""No notification is lost or overtakes another, whatever a target does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from rates_app.cli import app
from rates_app.notify.notification import Notification, Severity
from rates_app.notify.sender import NotificationSender
from rates_app.notify.settings import NotifySettings
from rates_app.notify.targets import configured
from tests.fixtures.targets import FIRING, RESOLVED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.fixtures.targets import Desk, MailServer


@pytest.fixture
def sender(desk: Desk, tmp_path: Path) -> Iterator[NotificationSender]:
    settings = NotifySettings(
        slack_url=f"{desk.url}/chat", dead_letters=tmp_path / "dead", attempts=3, retry_seconds=0.01, timeout_seconds=2
    )
    made = NotificationSender(configured(settings), settings)
    yield made
    made.close()


def posted(desk: Desk) -> list[str]:
    return [body["text"].split("]")[0] + "]" for body in desk.bodies("POST", "/chat")]


def test_a_notification_is_retried_until_it_is_accepted(desk: Desk, sender: NotificationSender) -> None:
    desk.statuses = [503, 429, 0]
    sender.deliver(FIRING)
    sender.wait()
    assert posted(desk) == ["[FIRING]"] * 3
    assert sender.dead_letters.waiting() == []


def test_an_all_clear_never_overtakes_its_alarm(desk: Desk, sender: NotificationSender) -> None:
    desk.statuses = [503] * 4
    sender.deliver(FIRING)
    sender.deliver(RESOLVED)
    sender.wait()
    assert posted(desk) == ["[FIRING]"] * 4  # three attempts, and another before the all-clear
    assert [letter.notification.state for _, letter in sender.dead_letters.waiting()] == ["firing", "resolved"]
    sender.redeliver()
    sender.wait()
    assert posted(desk)[4:] == ["[FIRING]", "[RESOLVED]"]
    assert sender.dead_letters.waiting() == []


def test_a_refused_notification_waits_for_an_operator_and_delays_no_other(
    desk: Desk, sender: NotificationSender
) -> None:
    desk.statuses = [400]
    sender.deliver(FIRING)
    sender.deliver(RESOLVED)
    sender.wait()
    assert posted(desk) == ["[FIRING]", "[RESOLVED]"]
    ((_, letter),) = sender.dead_letters.waiting()
    assert (letter.refused, letter.notification) == (True, FIRING)


def test_a_notification_refused_at_its_retry_delays_no_other(desk: Desk, sender: NotificationSender) -> None:
    desk.statuses = [503, 503, 503, 400]
    sender.deliver(FIRING)
    sender.deliver(RESOLVED)
    sender.wait()
    assert posted(desk) == ["[FIRING]"] * 4 + ["[RESOLVED]"]
    ((_, letter),) = sender.dead_letters.waiting()
    assert (letter.refused, letter.notification) == (True, FIRING)


def test_a_target_that_fails_in_an_unforeseen_way_loses_no_notification(tmp_path: Path) -> None:
    class Broken:
        name, min_severity = "broken", Severity.INFO

        def send(self, notification: Notification) -> None:
            raise ZeroDivisionError(notification.key)

    sender = NotificationSender([Broken()], NotifySettings(dead_letters=tmp_path))
    sender.deliver(FIRING)
    sender.close()
    ((_, letter),) = sender.dead_letters.waiting()
    assert letter.reason.startswith("ZeroDivisionError")


def test_dead_letters_outlive_the_process(desk: Desk, tmp_path: Path) -> None:
    settings = NotifySettings(
        slack_url=f"{desk.url}/chat", dead_letters=tmp_path, attempts=1, retry_seconds=0.01, timeout_seconds=2
    )
    desk.statuses = [500]
    first = NotificationSender(configured(settings), settings)
    first.deliver(FIRING)
    first.close()
    second = NotificationSender(configured(settings), settings)
    second.deliver(RESOLVED)
    second.close()
    assert posted(desk) == ["[FIRING]", "[FIRING]", "[RESOLVED]"]


def test_only_severe_notifications_go_to_the_pager(desk: Desk, tmp_path: Path) -> None:
    settings = NotifySettings(pagerduty_key="k", pagerduty_url=desk.url, dead_letters=tmp_path)
    sender = NotificationSender(configured(settings), settings)
    sender.deliver(FIRING.model_copy(update={"severity": Severity.WARNING}))
    sender.deliver(FIRING)
    sender.close()
    assert [body["payload"]["severity"] for body in desk.bodies("POST", "/v2/enqueue")] == ["critical"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    monkeypatch.setenv("RATES_NOTIFY_DEAD_LETTERS", str(tmp_path / "dead"))
    monkeypatch.setenv("RATES_NOTIFY_RETRY_SECONDS", "0.01")
    return lambda *arguments: CliRunner().invoke(app, ["notify", *arguments])


def test_the_command_tries_every_target(
    run: Callable[..., Any], desk: Desk, mail_server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("test").exit_code == 1  # none is configured
    monkeypatch.setenv("RATES_NOTIFY_SLACK_URL", f"{desk.url}/chat")
    monkeypatch.setenv("RATES_NOTIFY_SMTP_URL", mail_server.url)
    monkeypatch.setenv("RATES_NOTIFY_EMAIL_FROM", "alarm@rates.example")
    monkeypatch.setenv("RATES_NOTIFY_EMAIL_TO", "ops@rates.example")
    result = run("test")
    assert result.exit_code == 0, result.output
    assert posted(desk) == ["[FIRING]", "[RESOLVED]"]
    assert len(mail_server.inbox.messages) == 2
    desk.statuses = [500]
    failed = run("test")
    assert failed.exit_code == 1
    assert "slack: failed, HTTP 500" in failed.output
    assert "email: accepted both notifications" in failed.output


def test_the_command_redelivers_dead_letters(
    run: Callable[..., Any], desk: Desk, sender: NotificationSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.statuses = [400]
    sender.deliver(FIRING)
    sender.wait()
    monkeypatch.setenv("RATES_NOTIFY_SLACK_URL", f"{desk.url}/chat")
    assert "HTTP 400" in run("dead-letters").output.replace("\n", " ")
    assert run("redeliver").exit_code == 0
    assert posted(desk) == ["[FIRING]", "[FIRING]"]
    assert "There are no dead letters" in run("dead-letters").output


def test_an_incomplete_target_is_refused(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATES_NOTIFY_GITHUB_TOKEN", "secret-token")
    result = run("test")
    assert "RATES_NOTIFY_GITHUB_REPOSITORY" in str(result.exception)
    assert "secret-token" not in str(result.exception)
