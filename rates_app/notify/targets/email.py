"""E-mail by SMTP: the notices about one problem make one thread."""

from __future__ import annotations

import smtplib
import ssl
from email.message import EmailMessage
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from rates_app.notify.notice import Severity, State
from rates_app.notify.target import NotDelivered, Refused

if TYPE_CHECKING:
    from rates_app.notify.notice import Notice
    from rates_app.notify.settings import NotifySettings

#: Ports by scheme, where the address names none (RFC 8314, RFC 6409, RFC 5321).
PORTS = {"smtps": 465, "smtp+starttls": 587, "smtp": 25}

#: SMTP answers from here on are for good (RFC 5321, section 4.2.1).
PERMANENT = 500


class Email:
    """A mail server and the people it writes to.

    Args:
        url: ``smtps://``, ``smtp+starttls://`` or ``smtp://`` with user, password, host and port.
        sender: Address of the sender.
        recipients: Addresses that every notice goes to.
        timeout: Seconds the server may take to answer.
    """

    name = "email"
    least = Severity.INFO

    def __init__(self, *, url: str, sender: str, recipients: tuple[str, ...], timeout: float) -> None:
        self._server = urlsplit(url)
        if self._server.scheme not in PORTS or not self._server.hostname:
            raise ValueError(f"RATES_NOTIFY_SMTP_URL must be SCHEME://HOST with one of the schemes {', '.join(PORTS)}")
        self._sender = sender
        self._recipients = recipients
        self._timeout = timeout

    @classmethod
    def configured(cls, settings: NotifySettings) -> Email | None:
        """Make the target when the settings name a mail server."""
        if settings.smtp_url is None or settings.email_from is None:
            return None
        return cls(
            url=settings.smtp_url.get_secret_value(),
            sender=settings.email_from,
            recipients=settings.email_to,
            timeout=settings.timeout_seconds,
        )

    def send(self, notice: Notice) -> None:
        """Send one e-mail to all recipients."""
        try:
            with self._connect() as server:
                server.send_message(self._message(notice))
        except smtplib.SMTPRecipientsRefused as error:
            raise NotDelivered(f"refused every recipient: {list(error.recipients)}") from error
        except smtplib.SMTPDataError as error:
            kind = Refused if error.smtp_code >= PERMANENT else NotDelivered
            raise kind(f"answered {error.smtp_code}: {error.smtp_error!r}") from error
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

    def _message(self, notice: Notice) -> EmailMessage:
        message = EmailMessage()
        message["From"] = self._sender
        message["To"] = ", ".join(self._recipients)
        message["Subject"] = notice.subject
        message["Date"] = notice.ended_at or notice.started_at
        # A notice that is sent again has the same Message-ID, so that a mail server can drop the copy.
        domain = self._sender.rpartition("@")[2].rstrip(">")
        thread = f"<{notice.label}.{int(notice.started_at.timestamp())}@{domain}>"
        if notice.state is State.FIRING:
            message["Message-ID"] = thread
        else:
            message["Message-ID"] = thread.replace("@", ".resolved@", 1)
            message["In-Reply-To"] = message["References"] = thread
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(notice.text())
        return message
