"""E-mails to consumers about lane alerts."""

from __future__ import annotations

import smtplib
from datetime import datetime
from email.message import EmailMessage
from typing import TYPE_CHECKING, Any

from rates_app.alerts.model import describe
from rates_app.notify.alert import NotDelivered
from rates_app.notify.email import connect_smtp

if TYPE_CHECKING:
    from rates_app.settings import Settings


def send_email(settings: Settings, recipient: str, notice_id: str, body: dict[str, Any]) -> None:
    """Send a notice by e-mail.

    Args:
        settings: The mail server and the sender.
        recipient: The address.
        notice_id: Identifies the notice; mail servers drop a second e-mail with the same Message-ID.
        body: The notice, as a webhook gets it.

    Raises:
        NotDelivered: The mail server refused it, or none is configured.
    """
    if settings.alerts_smtp_url is None or settings.alerts_email_from is None:
        raise NotDelivered("RATES_ALERTS_SMTP_URL or RATES_ALERTS_EMAIL_FROM is not set")
    message = _message(settings.alerts_email_from, recipient, notice_id, body)
    try:
        with connect_smtp(settings.alerts_smtp_url.get_secret_value(), settings.alerts_timeout_seconds) as server:
            server.send_message(message)
    except (smtplib.SMTPException, OSError) as error:
        raise NotDelivered(f"{type(error).__name__}: {error}"[:300]) from error


def _message(sender: str, recipient: str, notice_id: str, body: dict[str, Any]) -> EmailMessage:
    data = body["data"]
    alert = describe(*(data[name] for name in ("origin", "destination", "condition", "threshold", "days")))
    change = "" if data["days"] is None else f"Change in {data['days']} days: {data['change_percent']:+.2f} %\n"
    message = EmailMessage()
    message["From"] = sender
    message["To"] = recipient
    message["Subject"] = f"Rate alert: {alert}"
    message["Date"] = datetime.fromisoformat(body["timestamp"])
    message["Message-ID"] = f"<{notice_id}@{sender.rpartition('@')[2].rstrip('>')}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(
        f"Your alert on a lane: {alert}\n\n"
        f"Average on {data['day']}: {data['average']:,.2f} USD from {data['count']:,} prices\n"
        f"{change}"
        f"Generation: {data['generation']}\n"
        f"Lane: {data['link']}\n\n"
        f"This is the alert {data['alert']}. The next e-mail follows after the condition was not met in between.\n"
    )
    return message
