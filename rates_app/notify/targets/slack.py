"""An incoming webhook of Slack or of a compatible chat (Mattermost, Rocket.Chat, Zulip)."""

from __future__ import annotations

from http.client import HTTPException
from typing import TYPE_CHECKING

from slack_sdk.webhook import WebhookClient

from rates_app.notify.notification import IncidentState, Severity
from rates_app.notify.target import NotDelivered, failure

if TYPE_CHECKING:
    from rates_app.notify.notification import Notification
    from rates_app.notify.settings import NotifySettings

COLOURS = {Severity.INFO: "#2f6f9f", Severity.WARNING: "#d99a00", Severity.CRITICAL: "#c62828"}
RESOLVED_COLOUR = "#2e7d32"

OK = 200


class Slack:
    """A channel behind a webhook.

    Args:
        url: URL of the webhook, which is a secret.
        timeout: Timeout of a request, in seconds.
    """

    name = "slack"
    min_severity = Severity.INFO

    def __init__(self, *, url: str, timeout: float) -> None:
        self._webhook = WebhookClient(url, timeout=max(1, round(timeout)), retry_handlers=[])

    @classmethod
    def configured(cls, settings: NotifySettings) -> Slack | None:
        """Create the target if the settings contain a webhook."""
        if settings.slack_url is None:
            return None
        return cls(url=settings.slack_url.get_secret_value(), timeout=settings.timeout_seconds)

    def send(self, notification: Notification) -> None:
        """Post the notification as an attachment, the format that all compatible chats support."""
        attachment = {
            "fallback": notification.subject,
            "color": COLOURS[notification.severity] if notification.state is IncidentState.FIRING else RESOLVED_COLOUR,
            "title": _escape(notification.title),
            "title_link": notification.runbook,
            "text": _escape(notification.summary)
            + (f"\n```{_escape(notification.excerpt)}```" if notification.excerpt else ""),
            "fields": [
                {"title": name, "value": _escape(value), "short": True} for name, value in notification.facts.items()
            ],
            "footer": notification.label,
            "ts": int((notification.ended_at or notification.started_at).timestamp()),
            "mrkdwn_in": ["text"],
        }
        try:
            response = self._webhook.send(text=_escape(notification.subject), attachments=[attachment])
        except (OSError, HTTPException) as error:
            # The library's message may contain the URL, which is a secret: report only the error's type.
            raise NotDelivered(type(error).__name__) from None
        if response.status_code != OK:
            raise failure(response.status_code, response.body)


def _escape(text: str) -> str:
    """Escape text so that it contains no mentions or links (Slack, "Formatting text for app surfaces")."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
