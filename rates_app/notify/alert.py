"""An alert in the form of Alertmanager, and the interface of what takes alerts."""

from __future__ import annotations

import hashlib
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

if TYPE_CHECKING:
    from collections.abc import Sequence


class Severity(StrEnum):
    """Severity of an alert. It decides who is notified."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class NotDelivered(Exception):
    """Nothing accepted the alerts. They are sent again."""


class Alert(BaseModel):
    """One alert (Alertmanager's API v2, ``postableAlert``).

    Attributes:
        labels: Identify the alert: the same labels are the same alert, when it fires and when it has ended.
        annotations: Texts for its readers: ``summary``, ``description``, ``runbook_url``, and ``log`` if there is one.
        starts_at: When the problem began.
        ends_at: When it ended; while it lasts, when Alertmanager ends the alert unless it is sent again.
    """

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)

    labels: dict[str, str]
    annotations: dict[str, str]
    starts_at: datetime
    ends_at: datetime

    @property
    def fingerprint(self) -> str:
        """Identifies the alert in 16 hexadecimal digits."""
        return hashlib.sha256(repr(sorted(self.labels.items())).encode()).hexdigest()[:16]

    def resolved(self, now: datetime) -> bool:
        """Whether the problem has ended."""
        return self.ends_at <= now


class AlertTarget(Protocol):
    """Takes alerts."""

    def send(self, alerts: Sequence[Alert], now: datetime) -> None:
        """Send all alerts that fire or have ended a short time ago. The watcher repeats this every minute.

        Raises:
            NotDelivered: Nothing accepted them.
        """


def format_alert(labels: dict[str, str], annotations: dict[str, str]) -> str:
    """Format an alert as plain text.

    Args:
        labels: Its labels.
        annotations: Its annotations.

    Returns:
        The description, the labels, the runbook and the last log lines.
    """
    parts = [
        annotations.get("description", annotations.get("summary", "")),
        "\n".join(f"{name}: {value}" for name, value in sorted(labels.items())),
        f"Runbook: {annotations['runbook_url']}" if "runbook_url" in annotations else "",
    ]
    if log := annotations.get("log"):
        parts.append("Last log lines:\n" + "\n".join(f"    {line}" for line in log.splitlines()))
    return "\n\n".join(part for part in parts if part)
