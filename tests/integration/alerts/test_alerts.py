"""Consumers manage their own lane alerts, operators all; invalid ones are refused with the member and the reason."""

from __future__ import annotations

import re
import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from typer.testing import CliRunner

from rates_app.alerts.model import AlertError, NewLaneAlert
from rates_app.alerts.registry import check_target
from rates_app.alerts.targets import is_public
from rates_app.application import create_app
from rates_app.cli import app as cli
from rates_app.store.tokens import create_token

if TYPE_CHECKING:
    from flask.testing import FlaskClient

    from rates_app.settings import Settings
    from tests.fixtures.service import Publisher
    from tests.integration.alerts.conftest import Headers

VALID = {
    "origin": "CNSGH",
    "destination": "scandinavia",
    "condition": "rise",
    "threshold": 10,
    "email": "buyer@acme.example",
}


def test_consumers_see_and_delete_their_own_and_operators_all(client: FlaskClient, tokens: dict[str, Headers]) -> None:
    created: Any = client.post("/v1/alerts", json=VALID, headers=tokens["acme"]).json
    assert (created["owner"], created["days"], created["email"]) == ("acme", 7, "buyer@acme.example")
    path = f"/v1/alerts/{created['id']}"
    for name, expected in (("acme", [created["id"]]), ("other", []), ("operator", [created["id"]])):
        listed: Any = client.get("/v1/alerts", headers=tokens[name]).json
        assert [alert["id"] for alert in listed["alerts"]] == expected
    assert client.delete(path, headers=tokens["other"]).status_code == 404
    assert client.delete(path, headers=tokens["acme"]).status_code == 204
    assert client.delete(path, headers=tokens["acme"]).status_code == 404
    again: Any = client.post("/v1/alerts", json=VALID, headers=tokens["acme"]).json
    assert client.delete(f"/v1/alerts/{again['id']}", headers=tokens["operator"]).status_code == 204
    assert client.delete("/v1/alerts/x", headers=tokens["operator"]).status_code == 404


def test_a_token_with_the_scope_is_required(client: FlaskClient, tokens: dict[str, Headers]) -> None:
    for headers, status in (({}, 401), (tokens["supplier"], 403)):
        assert client.get("/v1/alerts", headers=headers).status_code == status
        assert client.post("/v1/alerts", json=VALID, headers=headers).status_code == status
        assert client.delete("/v1/alerts/1", headers=headers).status_code == status


def test_an_owner_has_a_maximum_of_alerts(alert_settings: Settings, tokens: dict[str, Headers]) -> None:
    application = create_app(alert_settings.model_copy(update={"alerts_per_owner": 2}))
    client = application.test_client()
    answers = [client.post("/v1/alerts", json=VALID, headers=tokens["acme"]) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201, 201, 409]
    problem: Any = answers[-1].get_json(force=True)
    assert (problem["type"], problem["detail"]) == (
        "/problems/too-many-alerts",
        "acme has 2 lane alerts, the maximum; delete one first",
    )
    assert client.post("/v1/alerts", json=VALID, headers=tokens["other"]).status_code == 201
    application.extensions["rates"].close()


@pytest.mark.parametrize(
    ("members", "parameter"),
    [
        ({"origin": "XXXXX"}, "origin"),
        ({"destination": ""}, "destination"),
        ({"condition": "equals"}, "condition"),
        ({"threshold": 0}, "threshold"),
        ({"threshold": "NaN"}, "threshold"),
        ({"days": 8}, "days"),
        ({"condition": "above", "days": 7}, "body"),
        ({"webhook": "https://example.com"}, "body"),
        ({"email": None}, "body"),
        ({"email": "buyer@acme.example\r\nBcc: all@acme.example"}, "email"),
        ({"email": "buyer"}, "email"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_an_invalid_alert_is_refused_by_member(
    client: FlaskClient, tokens: dict[str, Headers], members: dict[str, Any], parameter: str
) -> None:
    answer = client.post("/v1/alerts", json={**VALID, **members}, headers=tokens["acme"])
    problem: Any = answer.get_json(force=True)
    assert (answer.status_code, [error["parameter"] for error in problem["errors"]]) == (400, [parameter])


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "https://user:secret@example.com/",
        "https://example.com:8443/",
        "https://example.com/#fragment",
        "https://example.com/a b",
        "https://[::1",
        "https:///path",
        "ftp://example.com/",
        "https://127.0.0.1/",
        "https://127.1/",
        "https://2130706433/",
        "https://localhost/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://10.1.2.3/",
        "https://172.16.0.1/",
        "https://192.168.1.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[fd00:ec2::254]/",
        "https://100.64.0.1/",
        "https://0.0.0.0/",
        "https://224.0.0.1/",
        "https://name.invalid/",
    ],
)
def test_a_webhook_that_is_not_public_is_refused(settings: Settings, url: str) -> None:
    new = NewLaneAlert.model_validate({**VALID, "email": None, "webhook": url})
    with pytest.raises(AlertError) as refused:
        check_target(new, settings)
    assert refused.value.member == "webhook"


def test_one_address_that_is_not_public_is_enough_to_refuse_a_host(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = NewLaneAlert.model_validate({**VALID, "email": None, "webhook": "https://rates.example/hook"})
    addresses = ["93.184.216.34"]
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET, 1, 6, "", (each, 443)) for each in addresses]
    )
    check_target(new, settings)
    addresses.append("10.0.0.1")
    with pytest.raises(AlertError, match="not public"):
        check_target(new, settings)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("::ffff:93.184.216.34", True),
        ("::ffff:169.254.169.254", False),
        ("64:ff9b::a00:1", False),
        ("64:ff9b::5db8:d822", True),
        ("2002:a00:1::", False),
        ("64:ff9b:1::a00:1", False),
        ("::10.0.0.1", False),
        ("::ffff:0:a00:1", False),
        ("fec0::1", False),
        ("fe80::1", False),
        ("ff02::1", False),
    ],
)
def test_addresses_within_addresses_are_checked(address: str, expected: bool) -> None:
    assert is_public(ip_address(address)) is expected


def test_the_service_cannot_read_secrets(settings: Settings, publisher: Publisher) -> None:
    del publisher
    with (
        psycopg.connect(settings.database_url_of("serving")) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("SELECT secret FROM lane_alerts")


def test_the_service_without_a_mail_server_refuses_addresses(settings: Settings) -> None:
    with pytest.raises(AlertError, match="sends no e-mails; use a webhook"):
        check_target(NewLaneAlert.model_validate(VALID), settings)


def test_the_command_adds_lists_and_removes(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATES_DATABASE_URL", publisher.url)
    monkeypatch.setenv("RATES_ALERTS_ALLOW_LOOPBACK", "true")
    monkeypatch.setenv("COLUMNS", "200")
    runner = CliRunner()
    lane = ["alert", "add", "CNSGH", "SEGOT", "--owner", "acme", "--site", "https://rates.example/"]
    refused = runner.invoke(cli, [*lane, "--rise", "5", "--webhook", "http://127.0.0.1:9/"])
    assert "no token with the scope" in str(refused.exception)
    with psycopg.connect(publisher.url) as connection:
        create_token(connection, "acme", ["alerts:write"])
    added = runner.invoke(cli, [*lane, "--fall", "5", "--days", "30", "--webhook", "http://127.0.0.1:9/"])
    assert added.exit_code == 0, added.output
    assert added.stdout.startswith("whsec_")
    listed = runner.invoke(cli, ["alert", "list", "--owner", "acme"]).output
    assert "CNSGH to SEGOT fall of at least 5 % in 30 days" in listed
    assert "whsec_" not in listed
    number = re.findall(r"^ *(\d+)", listed, re.MULTILINE)[0]
    assert runner.invoke(cli, ["alert", "remove", number]).exit_code == 0
    assert isinstance(runner.invoke(cli, ["alert", "remove", number]).exception, AlertError)
    assert runner.invoke(cli, [*lane, "--fall", "5", "--rise", "5"]).exit_code == 2
    for wrong in (["--above", "1"], ["--above", "-1", "--email", "a@b.example"], ["--rise", "1", "--days", "3"]):
        assert isinstance(runner.invoke(cli, [*lane, *wrong]).exception, AlertError)
