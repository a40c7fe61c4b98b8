"""The notification about a problem: its severity, consequences and runbook, and later its end."""

from __future__ import annotations

import hashlib
from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class IncidentState(StrEnum):
    """Whether a problem is present or has ended."""

    FIRING = "firing"
    RESOLVED = "resolved"


class Severity(StrEnum):
    """Severity of a problem."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """Position in the order of severities; 0 is the lowest."""
        return list(Severity).index(self)


class Notification(BaseModel):
    """One message about one problem.

    Attributes:
        key: Identifies the problem: the same in the alarm, in its repetition and in the all-clear. Targets deduplicate
            by it.
        state: Whether the problem is present or has ended.
        severity: Severity of the problem.
        title: One line: the problem and the affected workload.
        summary: Consequences, in one or two sentences.
        facts: Names and values for the diagnosis, in display order.
        excerpt: The last lines of a log without secrets; may be empty.
        runbook: URL of the runbook.
        started_at: When the problem began.
        ended_at: When the problem ended; only in an all-clear.
    """

    model_config = ConfigDict(frozen=True)

    key: str = Field(min_length=1, max_length=255)
    state: IncidentState
    severity: Severity
    title: str
    summary: str
    facts: dict[str, str] = {}
    excerpt: str = ""
    runbook: str
    started_at: datetime
    ended_at: datetime | None = None

    @property
    def subject(self) -> str:
        """The state and the title, for a subject line."""
        return f"[{self.state.upper()}] {self.title}"

    @property
    def label(self) -> str:
        """A short form of the key in letters and digits, for targets that do not accept arbitrary text as a key."""
        return "notification-" + hashlib.sha256(self.key.encode()).hexdigest()[:16]

    def text(self) -> str:
        """Format the notification as plain text."""
        parts = [self.summary, "\n".join(f"{name}: {value}" for name, value in self.facts.items())]
        times = f"Since: {self.started_at:%Y-%m-%d %H:%M:%S %Z}"
        if self.ended_at is not None:
            times += f"\nEnded: {self.ended_at:%Y-%m-%d %H:%M:%S %Z}"
        parts += [times, f"Runbook: {self.runbook}"]
        if self.excerpt:
            parts.append("Last log lines:\n" + "\n".join(f"    {line}" for line in self.excerpt.splitlines()))
        return "\n\n".join(part for part in parts if part)
