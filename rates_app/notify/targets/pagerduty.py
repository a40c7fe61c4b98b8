"""PagerDuty's Events API v2, or a pager that takes the same: it wakes somebody, and lets them sleep again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pagerduty

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
        self._events = pagerduty.EventsApiV2Client(key, base_url=url)
        self._events.timeout = max(1, round(timeout))
        # The library would retry a busy server without end; here that is done in one place for all targets.
        self._events.retry = {429: 1}
        self._events.sleep_timer = 0.1
        self._events.max_network_attempts = 0

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
        try:
            if notice.state is State.RESOLVED:
                self._events.resolve(notice.key)
                return
            self._events.trigger(
                summary=notice.title[:SUMMARY_CHARACTERS],
                source=notice.facts.get("namespace", "rates"),
                dedup_key=notice.key,
                severity=notice.severity,
                payload={"timestamp": notice.started_at.isoformat()},
                custom_details={"summary": notice.summary, **notice.facts, "log": notice.excerpt},
                links=[{"href": notice.runbook, "text": "What to do"}],
            )
        except pagerduty.HttpError as error:
            if error.response is None:
                raise NotDelivered(str(error)) from error
            raise failure(error.response.status_code, error.response.text) from error
        except pagerduty.Error as error:
            raise NotDelivered(str(error)) from error
