"""Opens a ticket for an alarm, once while the alarm's ticket is open.

The ticket system is any REST service that takes ``POST`` with a JSON body of ``title``, ``body`` and ``key``, and
answers ``GET ?key=…&state=open`` with a list of the open tickets of that key. An error is raised and not caught:
Lambda then tries the event again, and at last leaves it in the dead-letter queue.
"""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import boto3

TIMEOUT_SECONDS = 10


def handle(event: dict[str, Any], _context: Any) -> None:
    """Open a ticket for every alarm of an SNS event that has none open.

    Args:
        event: Records from SNS, whose messages are CloudWatch alarm notifications.

    Raises:
        urllib.error.HTTPError: The ticket system refused; the event is tried again.
        urllib.error.URLError: The ticket system could not be reached; the event is tried again.
    """
    token = boto3.client("secretsmanager").get_secret_value(SecretId=os.environ["TOKEN_SECRET"])["SecretString"]
    for record in event["Records"]:
        alarm = _alarm(record["Sns"])
        if alarm["NewStateValue"] != "ALARM":
            continue
        key = alarm["AlarmName"]
        if not _call(token, query={"key": key, "state": "open"}):
            _call(token, body={"key": key, "title": f"Alarm: {key}", "body": _describe(alarm)})


def _alarm(notification: dict[str, Any]) -> dict[str, str]:
    """The alarm in a notification; a message of another kind, such as the budget's, counts as one by its subject."""
    try:
        message = json.loads(notification["Message"])
    except json.JSONDecodeError:
        message = None
    if isinstance(message, dict) and "AlarmName" in message:
        return message
    return {
        "AlarmName": notification.get("Subject") or "Notification without a subject",
        "NewStateValue": "ALARM",
        "NewStateReason": notification["Message"],
    }


def _describe(alarm: dict[str, str]) -> str:
    """The text of the ticket for the person on call."""
    lines = [
        alarm.get("AlarmDescription"),
        alarm.get("NewStateReason"),
        alarm.get("StateChangeTime"),
        alarm.get("Region"),
    ]
    return "\n\n".join(line for line in lines if line)


def _call(token: str, query: dict[str, str] | None = None, body: dict[str, str] | None = None) -> Any:
    """Call the ticket system and return its JSON answer."""
    address = os.environ["TICKET_URL"] + ("?" + urlencode(query) if query else "")
    request = Request(  # noqa: S310 - the stack's settings admit https addresses alone
        address,
        data=json.dumps(body).encode() if body else None,
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Accept": "application/json"},
    )
    with urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310 - as above
        return json.load(response)
