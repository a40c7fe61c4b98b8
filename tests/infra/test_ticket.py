"""The ticket function against a ticket system that listens on this machine and a secret in moto."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError

import boto3
import pytest
from lambdas.ticket import handler
from moto import mock_aws

from tests.infra.tickets import TOKEN, ticket_system

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.infra.tickets import TicketSystem


@pytest.fixture
def tickets(monkeypatch: pytest.MonkeyPatch) -> Iterator[TicketSystem]:
    with ticket_system() as server, mock_aws():
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("TICKET_URL", f"{server.url}/tickets")
        secret = boto3.client("secretsmanager").create_secret(Name="ticket", SecretString=TOKEN)
        monkeypatch.setenv("TOKEN_SECRET", secret["ARN"])
        yield server


def _event(*messages: object, subject: str = "subject") -> dict[str, Any]:
    texts = [message if isinstance(message, str) else json.dumps(message) for message in messages]
    return {"Records": [{"Sns": {"Subject": subject, "Message": text}} for text in texts]}


def _alarm(name: str = "errors-blue", state: str = "ALARM") -> dict[str, str]:
    return {
        "AlarmName": name,
        "AlarmDescription": "Pods answer with errors. Runbook: runbooks/errors.md",
        "NewStateValue": state,
        "NewStateReason": "Threshold Crossed",
        "StateChangeTime": "2026-11-24T03:00:00.000+0000",
        "Region": "US East (N. Virginia)",
    }


def test_an_alarm_opens_a_ticket_that_names_the_runbook(tickets: TicketSystem) -> None:
    handler.handle(_event(_alarm()), None)
    (ticket,) = tickets.tickets
    assert ticket["key"] == "errors-blue"
    assert ticket["title"] == "Alarm: errors-blue"
    assert "runbooks/errors.md" in ticket["body"]
    assert "Threshold Crossed" in ticket["body"]


def test_an_alarm_has_one_ticket_while_it_is_open(tickets: TicketSystem) -> None:
    handler.handle(_event(_alarm(), _alarm()), None)
    handler.handle(_event(_alarm()), None)
    assert len(tickets.tickets) == 1
    tickets.tickets[0]["state"] = "closed"
    handler.handle(_event(_alarm(), _alarm("latency-blue")), None)
    assert [ticket["key"] for ticket in tickets.tickets] == ["errors-blue", "errors-blue", "latency-blue"]


def test_an_ended_alarm_closes_its_ticket_and_opens_none(tickets: TicketSystem) -> None:
    handler.handle(_event(_alarm(state="OK")), None)
    assert tickets.tickets == []
    handler.handle(_event(_alarm(), _alarm("latency-blue")), None)
    handler.handle(_event(_alarm(state="OK")), None)
    assert [(ticket["key"], ticket["state"]) for ticket in tickets.tickets] == [
        ("errors-blue", "closed"),
        ("latency-blue", "open"),
    ]


@pytest.mark.parametrize("message", ["You have exceeded your budget.", '"a JSON text"', '{"no": "alarm"}'])
def test_other_messages_become_tickets_by_their_subject(tickets: TicketSystem, message: str) -> None:
    handler.handle(_event(message, subject="AWS Budgets: rates"), None)
    assert [(ticket["key"], ticket["body"]) for ticket in tickets.tickets] == [("AWS Budgets: rates", message)]


def test_a_failure_is_raised_so_that_lambda_retries(tickets: TicketSystem) -> None:
    tickets.broken = True
    with pytest.raises(HTTPError, match="503"):
        handler.handle(_event(_alarm()), None)
    tickets.broken = False
    handler.handle(_event(_alarm()), None)
    assert len(tickets.tickets) == 1
