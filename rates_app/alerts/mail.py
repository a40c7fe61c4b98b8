"""E-mails about lane alerts: notices to consumers, and messages that ask the owners of addresses.

Each e-mail has the headers of RFC 8058, by which mail programs unsubscribe with one click. They belong to the headers
that the mail server signs (DKIM).
"""

from __future__ import annotations

import email.policy
import smtplib
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from rates_app.alerts.addresses import CONFIRMATION_DAYS
from rates_app.alerts.model import describe
from rates_app.notify.alert import NotDelivered
from rates_app.notify.email import connect_smtp

if TYPE_CHECKING:
    from rates_app.alerts.confirmation import ClaimedConfirmation
    from rates_app.settings import Settings


#: A header that is longer than a line would be encoded, and mail programs would not find the URL in it. RFC 5322
#: permits 998 characters.
_POLICY = email.policy.default.clone(max_line_length=998)


def send_notice(settings: Settings, recipient: str, notice_id: str, body: dict[str, Any], unsubscribe: str) -> None:
    """Send a notice by e-mail.

    Args:
        settings: The mail server and the sender.
        recipient: The address.
        notice_id: Identifies the notice; mail servers drop a second e-mail with the same Message-ID.
        body: The notice, as a webhook gets it.
        unsubscribe: URL that ends the e-mails, from :func:`link_of`.

    Raises:
        NotDelivered: The mail server refused it, or none is configured.
    """
    data = body["data"]
    alert = describe(*(data[name] for name in ("origin", "destination", "condition", "threshold", "days")))
    change = "" if data["days"] is None else f"Change in {data['days']} days: {data['change_percent']:+.2f} %\n"
    message = _message(f"Rate alert: {alert}", unsubscribe)
    message["Date"] = datetime.fromisoformat(body["timestamp"])
    message.set_content(
        f"Your alert on a lane: {alert}\n\n"
        f"Average on {data['day']}: {data['average']:,.2f} USD from {data['count']:,} prices\n"
        f"{change}"
        f"Generation: {data['generation']}\n"
        f"Lane: {data['link']}\n\n"
        f"This is the alert {data['alert']}. The next e-mail follows after the condition was not met in between.\n\n"
        f"Unsubscribe: {unsubscribe}\n"
    )
    _send(settings, recipient, notice_id, message)


def send_confirmation(settings: Settings, claimed: ClaimedConfirmation) -> None:
    """Ask the owner of an address whether lane alerts may be sent to it.

    Args:
        settings: The mail server and the sender.
        claimed: The message.

    Raises:
        NotDelivered: The mail server refused it, or none is configured.
    """
    unsubscribe = link_of(claimed.site, "unsubscribe", claimed.token)
    message = _message("Confirm e-mails of rate alerts", unsubscribe)
    message["Date"] = datetime.now(UTC)
    alerts = "\n".join(f"- {alert}" for alert in claimed.alerts)
    message.set_content(
        f"{claimed.owner} has entered this address for rate alerts:\n\n{alerts}\n\n"
        f"Open this page within {CONFIRMATION_DAYS} days to receive them:\n"
        f"{link_of(claimed.site, 'confirm', claimed.token)}\n\n"
        "If you do nothing, no alert is sent to you. To refuse further messages like this one, too:\n"
        f"{unsubscribe}\n"
    )
    _send(settings, claimed.address, str(uuid4()), message)


def link_of(site: str, action: str, token: bytes) -> str:
    """Return the URL of the page that confirms an address or ends its e-mails.

    Args:
        site: URL of the pages, without a slash at the end.
        action: ``confirm`` or ``unsubscribe``.
        token: The token of the address.
    """
    return f"{site}/alerts/{action}?token={token.hex()}"


def _message(subject: str, unsubscribe: str) -> EmailMessage:
    message = EmailMessage(_POLICY)
    message["Subject"] = subject
    message["Auto-Submitted"] = "auto-generated"
    message["List-Unsubscribe"] = f"<{unsubscribe}>"
    message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    return message


def _send(settings: Settings, recipient: str, message_id: str, message: EmailMessage) -> None:
    if settings.alerts_smtp_url is None or settings.alerts_email_from is None:
        raise NotDelivered("RATES_ALERTS_SMTP_URL or RATES_ALERTS_EMAIL_FROM is not set")
    sender = settings.alerts_email_from
    message["From"] = sender
    message["To"] = recipient
    message["Message-ID"] = f"<{message_id}@{sender.rpartition('@')[2].rstrip('>')}>"
    try:
        with connect_smtp(settings.alerts_smtp_url.get_secret_value(), settings.alerts_timeout_seconds) as server:
            server.send_message(message)
    except (smtplib.SMTPException, OSError) as error:
        raise NotDelivered(f"{type(error).__name__}: {error}"[:300]) from error
