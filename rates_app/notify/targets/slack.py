"""An incoming webhook of Slack, or of a chat that takes the same (Mattermost, Rocket.Chat, Zulip)."""

from __future__ import annotations

from http.client import HTTPException
from typing import TYPE_CHECKING

from slack_sdk.webhook import WebhookClient

from rates_app.notify.notice import Severity, State
from rates_app.notify.target import NotDelivered, failure

if TYPE_CHECKING:
    from rates_app.notify.notice import Notice
    from rates_app.notify.settings import NotifySettings

COLOURS = {Severity.INFO: "#2f6f9f", Severity.WARNING: "#d99a00", Severity.CRITICAL: "#c62828"}
RESOLVED_COLOUR = "#2e7d32"

OK = 200


class Slack:
    """A channel behind a webhook.

    Args:
        url: The webhook's address, which is its secret.
        timeout: Seconds it may take to answer.
    """

    name = "slack"
    least = Severity.INFO

    def __init__(self, *, url: str, timeout: float) -> None:
        self._webhook = WebhookClient(url, timeout=max(1, round(timeout)), retry_handlers=[])

    @classmethod
    def configured(cls, settings: NotifySettings) -> Slack | None:
        """Make the target when the settings name a webhook."""
        if settings.slack_url is None:
            return None
        return cls(url=settings.slack_url.get_secret_value(), timeout=settings.timeout_seconds)

    def send(self, notice: Notice) -> None:
        """Post the notice as an attachment: the form that every compatible chat shows."""
        attachment = {
            "fallback": notice.subject,
            "color": COLOURS[notice.severity] if notice.state is State.FIRING else RESOLVED_COLOUR,
            "title": _escape(notice.title),
            "title_link": notice.runbook,
            "text": _escape(notice.summary) + (f"\n```{_escape(notice.excerpt)}```" if notice.excerpt else ""),
            "fields": [{"title": name, "value": _escape(value), "short": True} for name, value in notice.facts.items()],
            "footer": notice.label,
            "ts": int((notice.ended_at or notice.started_at).timestamp()),
            "mrkdwn_in": ["text"],
        }
        try:
            response = self._webhook.send(text=_escape(notice.subject), attachments=[attachment])
        except (OSError, HTTPException) as error:
            # The library's message may hold the address, which is a secret here: only the kind is passed on.
            raise NotDelivered(type(error).__name__) from None
        if response.status_code != OK:
            raise failure(response.status_code, response.body)


def _escape(text: str) -> str:
    """Keep text from being read as a mention or a link (Slack's rules for text in messages)."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
