"""Post alerts to Alertmanager, as Prometheus does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import requests
import structlog

from rates_app.notify.alert import NotDelivered

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from rates_app.notify.alert import Alert

log = structlog.get_logger()


class Alertmanager:
    """All replicas of an Alertmanager. They exchange what they notified but not their alerts, so each gets all alerts.

    Args:
        urls: Addresses of the replicas.
        timeout: Timeout of a request, in seconds.
    """

    def __init__(self, urls: Sequence[str], timeout: float) -> None:
        self._urls = [url.rstrip("/") for url in urls]
        self._timeout = timeout

    def send(self, alerts: Sequence[Alert], now: datetime) -> None:
        """Post the alerts to every replica.

        Raises:
            NotDelivered: No replica accepted them.
        """
        body = [alert.model_dump(mode="json", by_alias=True) for alert in alerts]
        errors = []
        for url in self._urls:
            try:
                response = requests.post(f"{url}/api/v2/alerts", json=body, timeout=self._timeout)
                response.raise_for_status()
            except requests.RequestException as error:
                errors.append(f"{url}: {type(error).__name__}: {error}"[:300])
        if len(errors) == len(self._urls):
            raise NotDelivered("; ".join(errors))
        if errors:
            log.warning("alertmanager_replica_failed", errors=errors)
