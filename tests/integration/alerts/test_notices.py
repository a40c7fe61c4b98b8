"""Each time a condition becomes met, its receiver gets one notice, signed, and again until it accepts."""

from __future__ import annotations

import contextlib
import signal
import time
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from drills.waiting import wait_until
from rates_app.alerts import delivery
from rates_app.alerts.attempts import CONCURRENT_NOTICES, MAX_ATTEMPTS
from rates_app.batches.pipeline import dispatch
from rates_app.local.server import free_port
from rates_app.notify.alert import NotDelivered
from tests.integration.alerts.conftest import is_recent, signature, text_of
from tests.serving import serving

if TYPE_CHECKING:
    from tests.fixtures.targets import MailServer
    from tests.integration.alerts.conftest import AlertBench


def test_up_down_up_sends_two_signed_notices(bench: AlertBench) -> None:
    alert = bench.create()
    assert (alert["origin"], alert["met"], alert["notice"]) == ("CNSGH", False, None)
    sent = []
    for batch, usd in enumerate((1000, 1600, 1700, 1400, 1800), 1):
        bench.publish(batch, usd)
        bench.run()
        bench.run()  # nothing has changed since
        sent.append(len(bench.receiver.requests))
    assert sent == [0, 1, 1, 1, 2]
    assert len(set(bench.receiver.ids)) == 2
    for headers, body in bench.receiver.requests:
        assert headers["webhook-signature"] == signature(alert["secret"], headers, body)
        assert is_recent(headers)
    first, second = bench.receiver.notices()
    assert first == {
        "alert": alert["id"],
        "origin": "CNSGH",
        "destination": "SEGOT",
        "condition": "above",
        "threshold": 1500.0,
        "days": None,
        "average": 1600.0,
        "change_percent": None,
        "count": 3,
        "currency": "USD",
        "day": "2021-01-02",
        "generation": first["generation"],
        "link": "http://localhost/?origin=CNSGH&destination=SEGOT",
    }
    assert second["generation"] > first["generation"]
    assert bench.client.get(first["link"].removeprefix("http://localhost")).status_code == 200
    (found,) = bench.listed()
    assert found["met"]
    assert "secret" not in found
    assert (found["notice"]["id"], found["notice"]["state"], found["notice"]["attempts"]) == (
        bench.receiver.ids[-1],
        "delivered",
        1,
    )
    bench.publisher.withdraw(bench.publisher.batches[-1])  # the latest rate is 1,400 again
    bench.run()
    assert [each["met"] for each in bench.listed()] == [False]
    for batch in bench.publisher.batches[:-1]:
        bench.publisher.withdraw(batch)
    bench.run()  # without a rate, there is nothing to compare
    assert len(bench.receiver.requests) == 2


@pytest.mark.parametrize(
    ("members", "usd", "percent"),
    [
        ({"condition": "below", "threshold": 1000}, 999, None),
        ({"condition": "rise", "threshold": 10}, 1100, 10.0),
        ({"condition": "fall", "threshold": 12.5, "days": 30}, 500, -50.0),
    ],
)
def test_other_conditions_and_regions(
    bench: AlertBench, members: dict[str, Any], usd: int, percent: float | None
) -> None:
    bench.publish(1, 1000)
    bench.create(**members, origin="china_main", destination="scandinavia")
    bench.publish(8 if members.get("days") != 30 else 31, usd)
    bench.run()
    assert [(notice["origin"], notice["change_percent"]) for notice in bench.receiver.notices()] == [
        ("china_main", percent)
    ]


def test_a_condition_that_is_met_already_sends_nothing_until_it_is_met_again(bench: AlertBench) -> None:
    bench.publish(1, 2000)
    assert bench.create()["met"]
    for day, usd in ((2, 2100), (3, 100), (4, 2200)):
        bench.publish(day, usd)
        bench.run()
    assert [notice["average"] for notice in bench.receiver.notices()] == [2200.0]


def test_a_notice_is_sent_again_until_the_receiver_accepts_it(bench: AlertBench) -> None:
    bench.create()
    bench.receiver.statuses = [500, 302]  # the redirect is not followed
    bench.publish(1, 2000)
    bench.run()
    bench.run()  # not due yet
    assert len(bench.receiver.requests) == 1
    (found,) = bench.listed()
    assert (found["notice"]["state"], found["notice"]["error"]) == ("pending", "the receiver responded with HTTP 500")
    for _ in range(3):
        bench.make_due()
        bench.run()
    assert len(bench.receiver.requests) == 3
    assert len(set(bench.receiver.ids)) == len({body for _, body in bench.receiver.requests}) == 1
    assert bench.listed()[0]["notice"]["state"] == "delivered"


@pytest.mark.parametrize(("status", "attempts"), [(503, MAX_ATTEMPTS), (410, 1)])
def test_a_notice_is_given_up_after_the_last_attempt_or_when_the_receiver_is_gone(
    bench: AlertBench, status: int, attempts: int
) -> None:
    bench.create()
    bench.receiver.statuses = [status] * 20
    bench.publish(1, 2000)
    for _ in range(MAX_ATTEMPTS + 2):
        bench.run()
        bench.make_due()
    assert len(bench.receiver.requests) == attempts
    notice = bench.listed()[0]["notice"]
    assert (notice["state"], notice["attempts"], notice["next_attempt_at"]) == ("failed", attempts, None)
    assert str(status) in notice["error"]


def test_a_process_that_ends_before_it_records_a_notice_sends_the_same_one_again(bench: AlertBench) -> None:
    def end_session() -> None:
        with psycopg.connect(bench.publisher.url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'rates-alerts' AND datname = current_database()"
            )

    bench.create()
    bench.publish(1, 2000)
    bench.receiver.before_response = end_session
    bench.run()
    bench.receiver.before_response = lambda: None
    bench.run()  # the attempt was counted before, so the next one has its delay
    assert len(bench.receiver.requests) == 1
    bench.make_due()
    bench.run()
    assert len(bench.receiver.requests) == 2
    assert len(set(bench.receiver.ids)) == 1


def test_the_address_is_checked_again_for_each_request(bench: AlertBench) -> None:
    bench.create()
    bench.publish(1, 2000)
    bench.run(alerts_allow_loopback=False)
    assert not bench.receiver.requests
    assert "https://" in bench.listed()[0]["notice"]["error"]


def test_a_receiver_that_never_ends_its_response_is_left_after_the_timeout(bench: AlertBench) -> None:
    class EndlessHandler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            with contextlib.suppress(OSError):  # the client has left
                for number in range(90):
                    self.wfile.write(f"X-{number}: 1\r\n".encode())
                    time.sleep(0.1)

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

    with serving(EndlessHandler) as url:
        bench.create(webhook=url)
        bench.publish(1, 2000)
        began = time.monotonic()
        bench.run(alerts_timeout_seconds=0.5)
        assert time.monotonic() - began < 5
    notice = bench.listed()[0]["notice"]
    assert (notice["state"], notice["attempts"]) == ("pending", 1)


def test_an_email_has_the_lane_the_rate_and_the_link(bench: AlertBench, mail_server: MailServer) -> None:
    assert bench.create_email()["secret"] is None
    bench.create_email(email="nobody@acme.example", condition="rise", threshold=10)
    bench.execute("UPDATE lane_alert_addresses SET state = 'confirmed'")
    bench.publish(1, 1400)
    bench.publish(8, 2000)
    bench.run()
    (message,) = mail_server.inbox.messages
    assert message["X-RcptTo"] == "buyer@acme.example"
    assert message["Subject"] == "Rate alert: CNSGH to SEGOT above 1,500.00 USD"
    text = text_of(message)
    assert "Average on 2021-01-08: 2,000.00 USD from 3 prices" in text
    assert "http://localhost/?origin=CNSGH&destination=SEGOT" in text
    first, second = (alert["notice"] for alert in bench.listed())
    assert str(message["Message-ID"]).startswith(f"<{first['id']}@")
    assert (first["state"], second["state"]) == ("delivered", "pending")
    assert "no such user" in second["error"]


def test_the_dispatcher_sends_and_counts_notices(bench: AlertBench, monkeypatch: pytest.MonkeyPatch) -> None:
    def wait_for_notice(_: dispatch.Dispatcher) -> None:
        wait_until(lambda: (bench.listed()[0]["notice"] or {}).get("state") == "delivered", seconds=60, pause=0.05)

    monkeypatch.setattr(delivery, "PASS_SECONDS", 0.05)
    monkeypatch.setattr(dispatch, "keep_connections", lambda: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(dispatch.Dispatcher, "run", wait_for_notice)
    counted = delivery.NOTICES.labels("webhook", "delivered")
    before = counted._value.get()
    bench.create()
    bench.publish(1, 2000)
    dispatch.run(bench.settings.model_copy(update={"host": "127.0.0.1", "port": free_port()}))
    assert counted._value.get() == before + 1
    assert len(bench.receiver.requests) == 1


def test_text_that_a_receiver_chooses_is_stored_without_control_characters(bench: AlertBench) -> None:
    class HostileHandler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.wfile.write(b"\0\x1b[2Jgone\r\n\r\n")
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

    with serving(HostileHandler) as url:
        bench.create(webhook=url)
        bench.create()  # claimed and recorded after the first one
        bench.publish(1, 2000)
        bench.run()
    hostile, accepted = (alert["notice"] for alert in bench.listed())
    assert hostile["state"] == "pending"
    assert r"\x00\x1b[2Jgone" in hostile["error"]
    assert accepted["state"] == "delivered"


def test_an_owner_with_many_notices_does_not_delay_those_of_others(
    bench: AlertBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    monkeypatch.setattr(delivery, "post", lambda url, *_, **__: order.append(url))
    for number in range(CONCURRENT_NOTICES * 2):
        bench.create(webhook=f"{bench.receiver.url}/many/{number}")
    bench.create(webhook=f"{bench.receiver.url}/single", token="other")
    bench.publish(1, 2000)
    bench.run()
    assert len(order) == CONCURRENT_NOTICES * 2 + 1
    assert f"{bench.receiver.url}/single" in order[:CONCURRENT_NOTICES]


def test_notices_do_not_wait_for_a_mail_server_that_does_not_respond(
    bench: AlertBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(*_: object) -> None:
        time.sleep(0.6)
        raise NotDelivered("TimeoutError: timed out")

    monkeypatch.setattr(delivery, "MAX_KIND_SECONDS", 0.5)
    monkeypatch.setattr(delivery, "send_confirmation", wait)
    bench.create_email()
    bench.create()
    bench.publish(1, 2000)
    bench.run()
    assert len(bench.receiver.requests) == 1
