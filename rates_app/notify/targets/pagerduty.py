"""The pager: PagerDuty's Events API v2 or a compatible one.

The contract is PagerDuty's "Send an Alert Event": one POST to ``/v2/enqueue``.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import requests

from rates_app.notify.notification import IncidentState
from rates_app.notify.target import NotDelivered, failure

if TYPE_CHECKING:
    from rates_app.notify.notification import Notification, Severity
    from rates_app.notify.settings import NotifySettings

MAX_SUMMARY_CHARACTERS = 1024


class PagerDuty:
    """A service at PagerDuty.

    Args:
        key: The integration key.
        url: URL of the API.
        min_severity: Minimum severity that is sent.
        timeout: Timeout of a request, in seconds.
    """

    name = "pagerduty"

    def __init__(self, *, key: str, url: str, min_severity: Severity, timeout: float) -> None:
        self.min_severity = min_severity
        self._key = key
        self._url = f"{url.rstrip('/')}/v2/enqueue"
        self._timeout = timeout

    @classmethod
    def configured(cls, settings: NotifySettings) -> PagerDuty | None:
        """Create the target if the settings contain an integration key."""
        if settings.pagerduty_key is None:
            return None
        return cls(
            key=settings.pagerduty_key.get_secret_value(),
            url=settings.pagerduty_url,
            min_severity=settings.pagerduty_min_severity,
            timeout=settings.timeout_seconds,
        )

    def send(self, notification: Notification) -> None:
        """Trigger the incident, or resolve it."""
        event: dict[str, Any] = {"routing_key": self._key, "dedup_key": notification.key, "event_action": "resolve"}
        if notification.state is IncidentState.FIRING:
            event |= {
                "event_action": "trigger",
                "payload": {
                    "summary": notification.title[:MAX_SUMMARY_CHARACTERS],
                    "source": notification.facts.get("namespace", "rates"),
                    "severity": notification.severity,
                    "timestamp": notification.started_at.isoformat(),
                    "custom_details": {
                        "summary": notification.summary,
                        **notification.facts,
                        "log": notification.excerpt,
                    },
                },
                "links": [{"href": notification.runbook, "text": "Runbook"}],
            }
        try:
            response = requests.post(self._url, json=event, timeout=self._timeout, allow_redirects=False)
        except requests.RequestException as error:
            raise NotDelivered(f"{type(error).__name__}: {error}") from error
        if response.status_code != HTTPStatus.ACCEPTED:
            raise failure(response.status_code, response.text)
