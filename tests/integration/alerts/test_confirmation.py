"""An address gets notices only after its owner has confirmed it, and none after the owner has unsubscribed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from typer.testing import CliRunner

from rates_app.alerts.addresses import CONFIRMATION_DAYS, MAX_CONFIRMATIONS, REMEMBERED_DAYS
from rates_app.alerts.attempts import MAX_ATTEMPTS
from rates_app.alerts.model import ConfirmationRefused
from rates_app.application import create_app
from rates_app.cli import app as cli
from tests.integration.alerts.conftest import links_in, text_of

if TYPE_CHECKING:
    from email.message import Message as ReceivedMessage

    from werkzeug.test import TestResponse

    from tests.fixtures.targets import MailServer
    from tests.integration.alerts.conftest import AlertBench

ONE_CLICK = "List-Unsubscribe=One-Click"


@pytest.fixture
def inbox(mail_server: MailServer) -> list[ReceivedMessage]:
    return mail_server.inbox.messages


def confirmed(bench: AlertBench, inbox: list[ReceivedMessage]) -> dict[str, str]:
    """Create a lane alert, confirm its address, and return the links of the confirmation message."""
    bench.create_email()
    bench.run()
    bench.confirm(inbox[-1])
    return links_in(inbox.pop())


def states(bench: AlertBench) -> list[str]:
    return [each["state"] for each in bench.listed()]


def resend(bench: AlertBench, alert: Any, name: str = "acme") -> TestResponse:
    return bench.client.post(f"/v1/alerts/{alert['id']}/confirmation", headers=bench.tokens[name])


def test_an_address_gets_one_message_and_no_notice_before_its_owner_confirms(
    bench: AlertBench, inbox: list[ReceivedMessage]
) -> None:
    created = bench.create_email(email="Buyer@acme.example")
    bench.create_email(email="buyer@ACME.example", threshold=1700)  # the same address
    assert (created["state"], created["confirmation"]["sent_at"]) == ("unconfirmed", None)
    bench.run()
    bench.publish(1, 2000)  # meets both conditions
    bench.run()
    (message,) = inbox
    assert message["X-RcptTo"] == "buyer@acme.example"
    text = text_of(message)
    assert "acme has entered this address" in text
    assert "- CNSGH to SEGOT above 1,500.00 USD" in text
    assert "- CNSGH to SEGOT above 1,700.00 USD" in text
    first, second = bench.listed()
    assert [each["state"] for each in (first, second)] == ["unconfirmed", "unconfirmed"]
    assert (first["met"], first["notice"]) == (True, None)
    assert first["confirmation"]["sent_at"] is not None
    bench.confirm(message)
    assert states(bench) == ["active", "active"]
    bench.run()  # the conditions were met before
    for day, usd in ((2, 1000), (3, 1600)):
        bench.publish(day, usd)
        bench.run()
    assert [each["Subject"] for each in inbox[1:]] == ["Rate alert: CNSGH to SEGOT above 1,500.00 USD"]
    assert inbox[1]["X-RcptTo"] == "Buyer@acme.example"


def test_opening_a_link_changes_nothing(bench: AlertBench, inbox: list[ReceivedMessage]) -> None:
    bench.create_email()
    bench.run()
    for path in links_in(inbox[0]).values():
        for method in ("GET", "HEAD"):
            page = bench.client.open(path, method=method, headers={"Accept": "text/html"})
            assert (page.status_code, page.headers["Cache-Control"]) == (200, "no-store")
            assert page.headers["Referrer-Policy"] == "no-referrer"
    assert states(bench) == ["unconfirmed"]
    bench.confirm(inbox[0])
    bench.client.get(links_in(inbox[0])["unsubscribe"])
    assert states(bench) == ["active"]


def test_one_click_unsubscribes_as_rfc_8058_says(bench: AlertBench, inbox: list[ReceivedMessage]) -> None:
    confirmed(bench, inbox)
    bench.publish(1, 2000)
    bench.run()
    (notice,) = inbox
    assert notice["List-Unsubscribe-Post"] == ONE_CLICK
    address = links_in(notice)["unsubscribe"]
    assert notice["List-Unsubscribe"] == f"<http://localhost{address}>"
    done = bench.press(address, data=ONE_CLICK, content_type="application/x-www-form-urlencoded")
    assert (done.status_code, done.headers.get("Location"), "Set-Cookie" in done.headers) == (200, None, False)
    assert states(bench) == ["unsubscribed"]
    for day, usd in ((2, 1000), (3, 2000)):
        bench.publish(day, usd)
        bench.run()
    assert len(inbox) == 1
    assert bench.press(address, content_type="multipart/form-data").status_code == 200


def test_a_notice_that_waits_is_not_sent_after_its_reader_has_unsubscribed(
    bench: AlertBench, inbox: list[ReceivedMessage]
) -> None:
    links = confirmed(bench, inbox)
    bench.publish(1, 2000)
    bench.run(alerts_smtp_url=None)  # the first attempt fails
    assert bench.listed()[0]["notice"]["state"] == "pending"
    bench.press(links["unsubscribe"])
    bench.make_due()
    bench.run()
    assert not inbox
    notice = bench.listed()[0]["notice"]
    assert (notice["state"], notice["error"]) == ("failed", "the lane alert is unsubscribed")


def test_an_unsubscribed_address_cannot_be_entered_again_but_its_owner_can_return(
    bench: AlertBench, inbox: list[ReceivedMessage]
) -> None:
    links = confirmed(bench, inbox)
    bench.press(links["unsubscribe"])
    bench.execute("DELETE FROM lane_alerts")
    bench.execute(f"UPDATE lane_alert_addresses SET sent_at = sent_at - interval '{REMEMBERED_DAYS + 1} days'")
    bench.run()
    body = {"origin": "CNSGH", "destination": "SEGOT", "condition": "above", "threshold": 1}
    refused: Any = bench.client.post(
        "/v1/alerts", json={**body, "email": "BUYER@acme.example"}, headers=bench.tokens["acme"]
    )
    assert refused.status_code == 400
    assert "unsubscribed" in refused.get_json(force=True)["errors"][0]["detail"]
    bench.execute("UPDATE lane_alert_addresses SET expires_at = clock_timestamp()")
    assert "Subscribe again" in bench.client.get(links["unsubscribe"]).text
    assert bench.press(links["confirm"]).status_code == 200
    assert bench.create_email()["state"] == "active"
    bench.run()
    assert not inbox


def test_a_link_expires_and_can_be_sent_again_some_times(bench: AlertBench, inbox: list[ReceivedMessage]) -> None:
    alert = bench.create_email()
    waiting: Any = resend(bench, alert)
    assert (waiting.status_code, waiting.get_json(force=True)["type"]) == (409, "/problems/no-confirmation")
    bench.run()
    link = links_in(inbox[0])["confirm"]
    assert "minutes ago" in resend(bench, alert).text
    assert resend(bench, alert, "other").status_code == 404
    bench.execute(f"UPDATE lane_alert_addresses SET expires_at = expires_at - interval '{CONFIRMATION_DAYS} days'")
    for page in (bench.client.get(link), bench.press(link)):
        assert (page.status_code, "expired" in page.text) == (410, True)
    assert states(bench) == ["unconfirmed"]
    for sent in range(2, MAX_CONFIRMATIONS + 1):
        bench.execute("UPDATE lane_alert_addresses SET sent_at = sent_at - interval '1 hour'")
        assert resend(bench, alert).status_code == 202
        bench.run()
        bench.run()
        assert len(inbox) == sent
    bench.execute("UPDATE lane_alert_addresses SET sent_at = sent_at - interval '1 hour'")
    assert f"{MAX_CONFIRMATIONS} messages" in resend(bench, alert).text
    bench.execute(f"UPDATE lane_alert_addresses SET sent_at = sent_at - interval '{REMEMBERED_DAYS} days'")
    assert resend(bench, alert).status_code == 202
    bench.confirm(inbox[-1])
    assert "needs no message" in resend(bench, alert).text


def test_deleting_and_creating_alerts_sends_no_second_message(bench: AlertBench, inbox: list[ReceivedMessage]) -> None:
    for _ in range(3):
        alert = bench.create_email()
        bench.run()
        bench.client.delete(f"/v1/alerts/{alert['id']}", headers=bench.tokens["acme"])
    assert len(inbox) == 1
    bench.execute(f"UPDATE lane_alert_addresses SET sent_at = sent_at - interval '{REMEMBERED_DAYS} days'")
    bench.run()
    assert bench.execute("SELECT * FROM lane_alert_addresses") == []


def test_an_owner_enters_a_maximum_of_addresses(bench: AlertBench) -> None:
    limit = bench.settings.alerts_per_owner
    bench.execute(
        "INSERT INTO lane_alert_addresses (owner, address, site) "
        f"SELECT 'acme', number || '@acme.example', '' FROM generate_series(1, {limit}) number"
    )
    body = {
        "origin": "CNSGH",
        "destination": "SEGOT",
        "condition": "above",
        "threshold": 1,
        "email": "new@acme.example",
    }
    refused: Any = bench.client.post("/v1/alerts", json=body, headers=bench.tokens["acme"])
    assert (refused.status_code, refused.get_json(force=True)["type"]) == (409, "/problems/too-many-alerts")


def test_a_message_that_the_mail_server_refuses_is_given_up(bench: AlertBench, inbox: list[ReceivedMessage]) -> None:
    bench.create_email(email="nobody@acme.example")
    for _ in range(MAX_ATTEMPTS + 2):
        bench.run()
        bench.execute(
            "UPDATE lane_alert_addresses SET next_attempt_at = clock_timestamp() WHERE next_attempt_at > now()"
        )
    message = bench.listed()[0]["confirmation"]
    assert (message["attempts"], message["next_attempt_at"], message["sent_at"]) == (MAX_ATTEMPTS, None, None)
    assert "no such user" in message["error"]
    assert not inbox


def test_alerts_of_an_earlier_version_are_confirmed_too(bench: AlertBench, inbox: list[ReceivedMessage]) -> None:
    bench.create_email()
    bench.execute("DELETE FROM lane_alert_addresses")  # the earlier version enters none
    assert (states(bench), bench.listed()[0]["confirmation"]) == (["unconfirmed"], None)
    bench.run()
    bench.confirm(inbox[0])
    assert states(bench) == ["active"]


@pytest.mark.parametrize("token", ["", "x", "00" * 32, "é"])
def test_an_unknown_link_is_not_found(bench: AlertBench, token: str) -> None:
    bench.create_email()
    for action in ("confirm", "unsubscribe"):
        for method in ("GET", "POST"):
            page = bench.client.open(
                f"/alerts/{action}",
                method=method,
                data={"List-Unsubscribe": "One-Click"} if method == "POST" else None,
                query_string={"token": token},
                headers={"Accept": "text/html"},
            )
            assert (page.status_code, "Copy all of it" in page.text) == (404, True)


def test_the_service_cannot_read_the_tokens_of_links(bench: AlertBench) -> None:
    for role in ("serving", "operator"):
        with (
            psycopg.connect(bench.settings.database_url_of(role)) as connection,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            connection.execute("SELECT token FROM lane_alert_addresses")


@pytest.mark.parametrize(
    "end",
    [
        "DELETE FROM tokens WHERE name = 'acme'",
        "UPDATE tokens SET expires_at = clock_timestamp() WHERE name = 'acme'",
        "UPDATE tokens SET scopes = '{batches:write}' WHERE name = 'acme'",
    ],
)
def test_alerts_end_with_the_last_token_of_their_owner(
    bench: AlertBench, inbox: list[ReceivedMessage], end: str
) -> None:
    links = confirmed(bench, inbox)
    bench.create()
    bench.receiver.statuses = [500]
    bench.publish(1, 2000)
    bench.run()
    assert (len(inbox), len(bench.receiver.requests)) == (1, 1)
    bench.execute(end)
    for day, usd in ((2, 1000), (3, 2000)):
        bench.make_due()  # the notice that the webhook has not accepted
        bench.publish(day, usd)
        bench.run()
    assert (len(inbox), len(bench.receiver.requests)) == (1, 1)
    listed: Any = bench.client.get("/v1/alerts", headers=bench.tokens["operator"]).json
    assert [each["state"] for each in listed["alerts"]] == ["ended", "ended"]
    assert listed["alerts"][1]["notice"]["error"] == "the lane alert is ended"
    assert bench.press(links["unsubscribe"]).status_code == 200


def test_another_token_of_the_owner_keeps_its_alerts(bench: AlertBench) -> None:
    bench.create()
    bench.execute(
        "UPDATE tokens SET supplier = 'acme', scopes = '{batches:write,alerts:write}' WHERE name = 'supplier'"
    )
    bench.execute("DELETE FROM tokens WHERE name = 'acme'")
    bench.publish(1, 2000)
    bench.run()
    assert len(bench.receiver.requests) == 1


def test_an_alert_of_an_owner_without_a_token_asks_nobody(bench: AlertBench, inbox: list[ReceivedMessage]) -> None:
    bench.create_email()
    bench.execute("DELETE FROM tokens WHERE name = 'acme'")
    bench.run()
    assert not inbox


def test_the_command_shows_the_state_and_sends_again(
    bench: AlertBench, inbox: list[ReceivedMessage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATES_DATABASE_URL", bench.publisher.url)
    monkeypatch.setenv("COLUMNS", "240")
    runner = CliRunner()
    number = str(bench.create_email()["id"])
    assert "unconfirmed, message not sent yet" in runner.invoke(cli, ["alert", "list"]).output
    bench.run()
    assert "unconfirmed, link valid until" in runner.invoke(cli, ["alert", "list"]).output
    assert isinstance(runner.invoke(cli, ["alert", "confirm", number]).exception, ConfirmationRefused)
    bench.execute("UPDATE lane_alert_addresses SET sent_at = sent_at - interval '1 hour'")
    assert runner.invoke(cli, ["alert", "confirm", number]).exit_code == 0
    bench.run()
    assert len(inbox) == 2
    assert "there is no lane alert 99" in str(runner.invoke(cli, ["alert", "confirm", "99"]).exception)


def test_no_message_has_a_link_to_a_host_that_the_service_does_not_know(
    bench: AlertBench, inbox: list[ReceivedMessage]
) -> None:
    body = {
        "origin": "cnsgh",
        "destination": "SEGOT",
        "condition": "above",
        "threshold": 1500,
        "email": "buyer@acme.example",
    }
    refused = {}
    for hosts in (("localhost",), ()):
        application = create_app(bench.settings.model_copy(update={"allowed_hosts": hosts}))
        answer = application.test_client().post(
            "/v1/alerts", json=body, headers={**bench.tokens["acme"], "Host": "attacker.example"}
        )
        application.extensions["rates"].close()
        refused[hosts] = (answer.status_code, answer.get_json()["detail"])
    bench.run()
    assert inbox == []
    assert [status for status, _ in refused.values()] == [400, 400]
    assert [("Host" in detail, "RATES_ALLOWED_HOSTS" in detail) for _, detail in refused.values()] == [
        (True, False),
        (False, True),
    ]
