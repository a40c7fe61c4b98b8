"""Every target sends an incident once and its all-clear, and classifies failures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto import mock_aws

from rates_app.notify.settings import NotifySettings
from rates_app.notify.target import NotDelivered, NotificationRefused
from rates_app.notify.targets import configured
from tests.fixtures.targets import FIRING, RESOLVED, Desk

if TYPE_CHECKING:
    from rates_app.notify.target import Notifier
    from tests.fixtures.targets import MailServer


def only(**settings: Any) -> Notifier:
    (target,) = configured(NotifySettings(timeout_seconds=2, **settings))
    return target


def jira(desk: Desk) -> Notifier:
    return only(jira_url=desk.url, jira_user="ops@rates.example", jira_token="t0ken", jira_project="OPS")


def github(desk: Desk) -> Notifier:
    return only(github_url=desk.url, github_token="t0ken", github_repository="freight-rates/freight-rates")


def slack(desk: Desk) -> Notifier:
    return only(slack_url=f"{desk.url}/chat")


def pagerduty(desk: Desk) -> Notifier:
    return only(pagerduty_key="k" * 32, pagerduty_url=desk.url)


def email(url: str, to: str = "ops@rates.example") -> Notifier:
    return only(smtp_url=url, email_from="alarm@rates.example", email_to=to)


def test_an_email_is_complete_and_its_all_clear_is_in_its_thread(mail_server: MailServer) -> None:
    target = email(mail_server.url, "ops@rates.example,second@rates.example")
    for notification in (FIRING, RESOLVED):
        target.send(notification)
    first, second = mail_server.inbox.messages
    assert first["Subject"] == "[FIRING] rates/rates-app: a container keeps crashing (prod)"
    assert first["X-RcptTo"] == "ops@rates.example, second@rates.example"
    text = str(first.get_payload(decode=False))
    assert "Runbook: https://runbooks.example/pod-crash-loop.md" in text
    assert "ValueError: <bad>" in text
    assert second["Subject"].strip().startswith("[RESOLVED]")
    assert second["In-Reply-To"] == first["Message-ID"] != second["Message-ID"]


def test_an_undeliverable_email_is_kept_for_later(mail_server: MailServer) -> None:
    with pytest.raises(NotDelivered, match="nobody@rates"):
        email(mail_server.url, "nobody@rates.example").send(FIRING)


def test_a_chat_gets_text_without_mentions(desk: Desk) -> None:
    target = slack(desk)
    target.send(FIRING)
    target.send(RESOLVED)
    firing, resolved = desk.bodies("POST", "/chat")
    assert firing["text"].startswith("[FIRING] rates/rates-app")
    (attachment,) = firing["attachments"]
    assert attachment["title_link"] == FIRING.runbook
    assert "Traceback &amp; more\nValueError: &lt;bad&gt;" in attachment["text"]
    assert {"title": "pod", "value": "rates-app-&lt;1&gt;", "short": True} in attachment["fields"]
    assert resolved["text"].startswith("[RESOLVED]")
    assert resolved["attachments"][0]["color"] != attachment["color"]


def test_a_pager_is_triggered_and_resolved_by_one_key(desk: Desk) -> None:
    target = pagerduty(desk)
    target.send(FIRING)
    target.send(RESOLVED)
    firing, resolved = desk.bodies("POST", "/v2/enqueue")
    assert (firing["event_action"], resolved["event_action"]) == ("trigger", "resolve")
    assert firing["dedup_key"] == resolved["dedup_key"] == FIRING.key
    assert firing["payload"]["severity"] == "critical"
    assert firing["links"][0]["href"] == FIRING.runbook
    assert firing["routing_key"] == "k" * 32


@pytest.mark.parametrize("make", [jira, github])
def test_a_problem_has_one_ticket_that_its_end_closes(desk: Desk, make: Any) -> None:
    target: Notifier = make(desk)
    target.send(FIRING)
    target.send(FIRING)
    assert [ticket["open"] for ticket in desk.tickets.values()] == [True]
    target.send(RESOLVED)
    assert [ticket["open"] for ticket in desk.tickets.values()] == [False]
    target.send(FIRING)
    assert [ticket["open"] for ticket in desk.tickets.values()] == [False, True]


def test_a_topic_gets_a_subject_and_the_whole_text(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        sns, sqs = boto3.client("sns", "eu-west-1"), boto3.client("sqs", "eu-west-1")
        topic = sns.create_topic(Name="alarms")["TopicArn"]
        queue = sqs.create_queue(QueueName="alarms")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
        only(sns_topic_arn=topic).send(FIRING)
        (message,) = sqs.receive_message(QueueUrl=queue)["Messages"]
        assert "[FIRING] rates/rates-app" in message["Body"]
        assert "runbooks.example" in message["Body"]
        with pytest.raises(NotDelivered, match="NotFound"):
            only(sns_topic_arn=topic + "-gone").send(FIRING)


@pytest.mark.parametrize("make", [slack, pagerduty, jira, github])
@pytest.mark.parametrize(
    ("status", "kind"), [(503, NotDelivered), (401, NotDelivered), (429, NotDelivered), (400, NotificationRefused)]
)
def test_a_failure_states_whether_to_retry(desk: Desk, make: Any, status: int, kind: type[Exception]) -> None:
    desk.statuses = [status] * 5
    with pytest.raises(kind, match=str(status)):
        make(desk).send(FIRING)


@pytest.mark.parametrize("make", [slack, pagerduty, jira, github])
def test_an_error_of_an_unreachable_target_contains_no_secret(make: Any) -> None:
    with pytest.raises(NotDelivered) as caught:
        make(Desk(url="http://127.0.0.1:9")).send(FIRING)
    assert "t0ken" not in str(caught.value)
    assert "/chat" not in str(caught.value)
