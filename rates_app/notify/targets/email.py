"""E-mail by SMTP. Notifications about the same problem form one thread."""

from __future__ import annotations

import smtplib
import ssl
from email.message import EmailMessage
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from rates_app.notify.notification import IncidentState, Severity
from rates_app.notify.target import NotDelivered, NotificationRefused

if TYPE_CHECKING:
    from rates_app.notify.notification import Notification
    from rates_app.notify.settings import NotifySettings

#: Default ports by scheme (RFC 8314, RFC 6409, RFC 5321).
PORTS = {"smtps": 465, "smtp+starttls": 587, "smtp": 25}

#: SMTP replies from this code on are permanent (RFC 5321, section 4.2.1).
PERMANENT = 500


class Email:
    """A mail server and its recipients.

    Args:
        url: ``smtps://``, ``smtp+starttls://`` or ``smtp://`` with user, password, host and port.
        sender: Address of the sender.
        recipients: Addresses of all recipients.
        timeout: Timeout of the connection, in seconds.
    """

    name = "email"
    min_severity = Severity.INFO

    def __init__(self, *, url: str, sender: str, recipients: tuple[str, ...], timeout: float) -> None:
        self._server = urlsplit(url)
        if self._server.scheme not in PORTS or not self._server.hostname:
            raise ValueError(f"RATES_NOTIFY_SMTP_URL must be SCHEME://HOST with one of the schemes {', '.join(PORTS)}")
        self._sender = sender
        self._recipients = recipients
        self._timeout = timeout

    @classmethod
    def configured(cls, settings: NotifySettings) -> Email | None:
        """Create the target if the settings contain a mail server."""
        if settings.smtp_url is None or settings.email_from is None:
            return None
        return cls(
            url=settings.smtp_url.get_secret_value(),
            sender=settings.email_from,
            recipients=settings.email_to,
            timeout=settings.timeout_seconds,
        )

    def send(self, notification: Notification) -> None:
        """Send one e-mail to all recipients."""
        try:
            with self._connect() as server:
                server.send_message(self._message(notification))
        except smtplib.SMTPRecipientsRefused as error:
            raise NotDelivered(f"refused every recipient: {list(error.recipients)}") from error
        except smtplib.SMTPDataError as error:
            kind = NotificationRefused if error.smtp_code >= PERMANENT else NotDelivered
            raise kind(f"SMTP {error.smtp_code}: {error.smtp_error!r}") from error
        except (smtplib.SMTPException, OSError) as error:
            raise NotDelivered(f"{type(error).__name__}: {error}") from error

    def _connect(self) -> smtplib.SMTP:
        host, port = self._server.hostname or "", self._server.port or PORTS[self._server.scheme]
        context = ssl.create_default_context()
        if self._server.scheme == "smtps":
            server: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=self._timeout, context=context)
        else:
            server = smtplib.SMTP(host, port, timeout=self._timeout)
        if self._server.scheme == "smtp+starttls":
            server.starttls(context=context)
        if self._server.username:
            server.login(unquote(self._server.username), unquote(self._server.password or ""))
        return server

    def _message(self, notification: Notification) -> EmailMessage:
        message = EmailMessage()
        message["From"] = self._sender
        message["To"] = ", ".join(self._recipients)
        message["Subject"] = notification.subject
        message["Date"] = notification.ended_at or notification.started_at
        # A repeated notification has the same Message-ID, so that mail servers can drop the copy.
        domain = self._sender.rpartition("@")[2].rstrip(">")
        thread = f"<{notification.label}.{int(notification.started_at.timestamp())}@{domain}>"
        if notification.state is IncidentState.FIRING:
            message["Message-ID"] = thread
        else:
            message["Message-ID"] = thread.replace("@", ".resolved@", 1)
            message["In-Reply-To"] = message["References"] = thread
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(notification.text())
        return message
