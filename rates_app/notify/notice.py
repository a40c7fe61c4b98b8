"""What is said to people: that something is wrong, what to do about it, and later that it is over."""

from __future__ import annotations

import hashlib
from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class State(StrEnum):
    """Whether a problem is there or over."""

    FIRING = "firing"
    RESOLVED = "resolved"


class Severity(StrEnum):
    """How much a problem hurts."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """Place in the order of severities, from 0 for the least."""
        return list(Severity).index(self)


class Notice(BaseModel):
    """One message about one problem.

    Attributes:
        key: Names the problem; the same in the notice that it is there and in the one that it is over, and when the
            first is sent again. Targets deduplicate by it.
        state: Whether the problem is there or over.
        severity: How much it hurts.
        title: One line: what is wrong, where.
        summary: What that means, in a sentence or two.
        facts: Names and values that help to find the place, in the order to show them.
        excerpt: The last lines of a log, already without secrets; empty when there are none.
        runbook: Address of the page that says what to do.
        started_at: When the problem began.
        ended_at: When it was over; only in a notice that says so.
    """

    model_config = ConfigDict(frozen=True)

    key: str = Field(min_length=1, max_length=255)
    state: State
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
        """The title with the state before it, for a subject line."""
        return f"[{self.state.upper()}] {self.title}"

    @property
    def label(self) -> str:
        """The key as a short word of letters and digits, for targets that take no free text as a key."""
        return "notice-" + hashlib.sha256(self.key.encode()).hexdigest()[:16]

    def text(self) -> str:
        """Render the notice for reading: what, where, what to do, and the evidence."""
        parts = [self.summary, "\n".join(f"{name}: {value}" for name, value in self.facts.items())]
        times = f"Since: {self.started_at:%Y-%m-%d %H:%M:%S %Z}"
        if self.ended_at is not None:
            times += f"\nOver: {self.ended_at:%Y-%m-%d %H:%M:%S %Z}"
        parts += [times, f"What to do: {self.runbook}"]
        if self.excerpt:
            parts.append("Last log lines:\n" + "\n".join(f"    {line}" for line in self.excerpt.splitlines()))
        return "\n\n".join(part for part in parts if part)
