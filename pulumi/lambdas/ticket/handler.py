"""Open a ticket for an alarm, once while the alarm's ticket is open, and close it when the alarm has ended.

The ticket system is any REST service that takes ``POST`` with a JSON body of ``title``, ``body`` and ``key``, responds
to ``GET ?key=…&state=open`` with a list of the open tickets of that key, each with its ``id``, and closes one by
``PATCH`` of ``/ID`` with ``{"state": "closed"}``. Errors are raised: Lambda then tries the event again, and in the end
leaves it in the dead-letter queue.
"""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

import boto3

TIMEOUT_SECONDS = 10


def handle(event: dict[str, Any], _context: Any) -> None:
    """Open a ticket for every alarm of an SNS event that has none open, and close those of alarms that have ended.

    Args:
        event: Records from SNS.

    Raises:
        urllib.error.HTTPError: The ticket system refused; the event is tried again.
        urllib.error.URLError: The ticket system could not be reached; the event is tried again.
    """
    token = _token()
    for record in event["Records"]:
        alarm = _alarm(record["Sns"])
        opened = _call(token, "GET", query={"key": alarm.key, "state": "open"})
        if alarm.firing and not opened:
            _call(token, "POST", body={"key": alarm.key, "title": alarm.title, "body": alarm.text})
        if not alarm.firing:
            for ticket in opened:
                _call(token, "PATCH", f"/{quote(str(ticket['id']), safe='')}", body={"state": "closed"})


class TicketRequest(NamedTuple):
    """What a message says of a problem."""

    key: str
    """Identifies the problem: the same when it begins and when it has ended."""
    firing: bool
    title: str
    text: str


def _alarm(notification: dict[str, Any]) -> TicketRequest:
    """Read a message of Alertmanager, of CloudWatch, or another, such as the budget's."""
    subject = notification.get("Subject") or "Notification without a subject"
    text = notification["Message"]
    attributes = {name: one["Value"] for name, one in notification.get("MessageAttributes", {}).items()}
    if {"key", "state"} <= attributes.keys():
        return TicketRequest(attributes["key"], attributes["state"] == "firing", subject, text)
    try:
        message = json.loads(text)
    except json.JSONDecodeError:
        message = None
    if isinstance(message, dict) and "AlarmName" in message:
        name = message["AlarmName"]
        return TicketRequest(name, message["NewStateValue"] == "ALARM", f"Alarm: {name}", _describe(message))
    return TicketRequest(subject, True, f"Alarm: {subject}", text)


def _describe(alarm: dict[str, str]) -> str:
    """Return the text of the ticket for the person on call."""
    lines = [
        alarm.get("AlarmDescription"),
        alarm.get("NewStateReason"),
        alarm.get("StateChangeTime"),
        alarm.get("Region"),
    ]
    return "\n\n".join(line for line in lines if line)


def _token() -> str:
    secret = boto3.client("secretsmanager").get_secret_value(SecretId=os.environ["TOKEN_SECRET"])
    return str(secret["SecretString"])


def _call(
    token: str, method: str, path: str = "", query: dict[str, str] | None = None, body: dict[str, str] | None = None
) -> Any:
    """Call the ticket system and return its JSON response."""
    address = os.environ["TICKET_URL"] + path + ("?" + urlencode(query) if query else "")
    request = Request(  # noqa: S310 - the stack's settings admit https addresses alone
        address,
        data=json.dumps(body).encode() if body else None,
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Accept": "application/json"},
        method=method,
    )
    with urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310 - as above
        return json.load(response)
