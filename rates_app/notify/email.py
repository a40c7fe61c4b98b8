"""E-mail by SMTP, for clusters without an Alertmanager: one when an alert begins and one when it has ended."""

from __future__ import annotations

import smtplib
import ssl
from email.message import EmailMessage
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from rates_app.notify.alert import NotDelivered, format_alert

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from rates_app.notify.alert import Alert

#: Default ports by scheme (RFC 8314, RFC 6409, RFC 5321).
PORTS = {"smtps": 465, "smtp+starttls": 587, "smtp": 25}


def connect_smtp(url: str, timeout: float) -> smtplib.SMTP:
    """Connect to a mail server and log in.

    Args:
        url: ``smtps://``, ``smtp+starttls://`` or ``smtp://`` with user, password, host and port.
        timeout: Timeout of the connection, in seconds.

    Returns:
        The connection; as a context, it is closed at the end.

    Raises:
        OSError: The server is unreachable.
        smtplib.SMTPException: It refused the connection or the login.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
    context = ssl.create_default_context()
    if parts.scheme == "smtps":
        server: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=timeout, context=context)
    else:
        server = smtplib.SMTP(host, port, timeout=timeout)
    if parts.scheme == "smtp+starttls":
        server.starttls(context=context)
    if parts.username:
        server.login(unquote(parts.username), unquote(parts.password or ""))
    return server


class Email:
    """A mail server and its recipients. Both e-mails about an alert are in one thread.

    Args:
        url: ``smtps://``, ``smtp+starttls://`` or ``smtp://`` with user, password, host and port.
        sender: Address of the sender.
        recipients: Addresses of all recipients.
        timeout: Timeout of the connection, in seconds.
    """

    def __init__(self, *, url: str, sender: str, recipients: tuple[str, ...], timeout: float) -> None:
        server = urlsplit(url)
        if server.scheme not in PORTS or not server.hostname:
            raise ValueError(f"RATES_NOTIFY_SMTP_URL must be SCHEME://HOST with one of the schemes {', '.join(PORTS)}")
        self._url = url
        self._sender = sender
        self._recipients = recipients
        self._timeout = timeout
        #: Whether the last accepted e-mail about an alert was its all-clear, by fingerprint.
        self._sent: dict[str, bool] = {}

    def send(self, alerts: Sequence[Alert], now: datetime) -> None:
        """Send an e-mail for every alert that has begun or ended since the last call.

        Raises:
            NotDelivered: The mail server refused an e-mail. The next call tries it again.
        """
        known = {alert.fingerprint for alert in alerts}
        self._sent = {fingerprint: ended for fingerprint, ended in self._sent.items() if fingerprint in known}
        for alert in alerts:
            ended = alert.resolved(now)
            announced = self._sent.get(alert.fingerprint) is False
            if announced != ended:  # announced already, or the end of an alert that no e-mail announced
                continue
            try:
                with connect_smtp(self._url, self._timeout) as server:
                    server.send_message(self._message(alert, ended=ended))
            except (smtplib.SMTPException, OSError) as error:
                raise NotDelivered(f"{type(error).__name__}: {error}") from error
            self._sent[alert.fingerprint] = ended

    def _message(self, alert: Alert, *, ended: bool) -> EmailMessage:
        labels = alert.labels
        message = EmailMessage()
        message["From"] = self._sender
        message["To"] = ", ".join(self._recipients)
        message["Subject"] = " ".join(
            (
                "[RESOLVED]" if ended else "[FIRING]",
                labels.get("severity", ""),
                f"{labels.get('environment', '')} {labels['alertname']}: {alert.annotations['summary']}",
            )
        )
        message["Date"] = alert.ends_at if ended else alert.starts_at
        # An e-mail that is sent again has the same Message-ID, so that mail servers can drop the copy.
        domain = self._sender.rpartition("@")[2].rstrip(">")
        thread = f"{alert.fingerprint}.{int(alert.starts_at.timestamp())}"
        message["Message-ID"] = f"<{thread}{'.resolved' if ended else ''}@{domain}>"
        if ended:
            message["In-Reply-To"] = message["References"] = f"<{thread}@{domain}>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(format_alert(alert.labels, alert.annotations))
        return message
