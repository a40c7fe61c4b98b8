"""PagerDuty's Events API v2, or a pager that takes the same: it wakes somebody, and lets them sleep again.

The contract is PagerDuty's "Send an Alert Event": one POST to ``/v2/enqueue``.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import requests

from rates_app.notify.notice import State
from rates_app.notify.target import NotDelivered, failure

if TYPE_CHECKING:
    from rates_app.notify.notice import Notice, Severity
    from rates_app.notify.settings import NotifySettings

SUMMARY_CHARACTERS = 1024


class PagerDuty:
    """A service at PagerDuty.

    Args:
        key: The integration key.
        url: The API's address.
        least: The least severity that it is told of.
        timeout: Seconds it may take to answer.
    """

    name = "pagerduty"

    def __init__(self, *, key: str, url: str, least: Severity, timeout: float) -> None:
        self.least = least
        self._key = key
        self._url = f"{url.rstrip('/')}/v2/enqueue"
        self._timeout = timeout

    @classmethod
    def configured(cls, settings: NotifySettings) -> PagerDuty | None:
        """Make the target when the settings have an integration key."""
        if settings.pagerduty_key is None:
            return None
        return cls(
            key=settings.pagerduty_key.get_secret_value(),
            url=settings.pagerduty_url,
            least=settings.pagerduty_least,
            timeout=settings.timeout_seconds,
        )

    def send(self, notice: Notice) -> None:
        """Trigger the incident, or resolve it."""
        event: dict[str, Any] = {"routing_key": self._key, "dedup_key": notice.key, "event_action": "resolve"}
        if notice.state is State.FIRING:
            event |= {
                "event_action": "trigger",
                "payload": {
                    "summary": notice.title[:SUMMARY_CHARACTERS],
                    "source": notice.facts.get("namespace", "rates"),
                    "severity": notice.severity,
                    "timestamp": notice.started_at.isoformat(),
                    "custom_details": {"summary": notice.summary, **notice.facts, "log": notice.excerpt},
                },
                "links": [{"href": notice.runbook, "text": "What to do"}],
            }
        try:
            response = requests.post(self._url, json=event, timeout=self._timeout, allow_redirects=False)
        except requests.RequestException as error:
            raise NotDelivered(f"{type(error).__name__}: {error}") from error
        if response.status_code != HTTPStatus.ACCEPTED:
            raise failure(response.status_code, response.text)
