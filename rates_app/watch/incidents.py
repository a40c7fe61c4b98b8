"""Group findings into incidents, and decide which notifications to send.

An incident is one rule at one workload. It is notified after it has lasted ``wait_seconds``, with all pods that joined
by then. It ends after ``clear_seconds`` without a finding, and that time doubles with each return within a few hours,
so that flapping becomes one long incident. Beyond ``burst`` incidents within ``burst_seconds``, further incidents are
combined into one, the storm.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pydantic import BaseModel

from rates_app.notify.notification import IncidentState, Notification
from rates_app.watch.rules import RULES, STORM, Detection, Rule

if TYPE_CHECKING:
    from collections.abc import Callable

    from rates_app.watch.settings import WatchSettings

#: Earlier notifications of the same incident within this time count as returns.
RECURRENCE_WINDOW = timedelta(hours=6)

#: Limit on how often the quiet time that ends an incident doubles.
MAX_DOUBLINGS = 4

_RULES = {rule.name: rule for rule in (*RULES, STORM)}


class NotifiedIncident(BaseModel):
    """An incident that was notified: the state that a restarted watcher needs to send its all-clear.

    Attributes:
        key: The deduplication key.
        rule: Name of the rule.
        namespace: Namespace of the workload.
        workload: Name of the workload.
        facts: The facts of the notification.
        began: When the incident began.
        last_seen: When it was last found.
    """

    key: str
    rule: str
    namespace: str
    workload: str
    facts: dict[str, str]
    began: datetime
    last_seen: datetime


@dataclass
class _Incident:
    key: str
    rule: Rule
    namespace: str
    workload: str
    began: datetime  # by the cluster's clock, for display
    first_seen: datetime
    last_seen: datetime
    members: dict[str, Detection] = field(default_factory=dict)
    pods: set[str] = field(default_factory=set)
    facts: dict[str, str] = field(default_factory=dict)
    notified: bool = False
    in_storm: bool = False


class Incidents:
    """All incidents of one cluster.

    Args:
        cluster: Name of the cluster or stack: part of every key and title.
        settings: Waiting times and limits.
        runbook: Returns a runbook's URL for the name of its page.
    """

    def __init__(self, cluster: str, settings: WatchSettings, runbook: Callable[[str], str]) -> None:
        self._cluster = cluster
        self._settings = settings
        self._runbook = runbook
        self._incidents: dict[str, _Incident] = {}
        self._by_source: dict[str, set[str]] = {}
        self._notified_at: dict[str, list[datetime]] = {}
        self._burst: deque[datetime] = deque()

    @property
    def open(self) -> int:
        """Number of incidents that were notified and have not ended."""
        return sum(incident.notified for incident in self._incidents.values())

    def update(self, source: str, findings: list[Detection], now: datetime) -> None:
        """Replace the findings of one pod or application.

        Args:
            source: Identifies the pod or application.
            findings: Its problems; empty when it is healthy or deleted.
            now: The current time.
        """
        keys = {f"{self._cluster}/{f.namespace}/{f.workload}/{f.rule.name}": f for f in findings}
        for key in self._by_source.pop(source, set()) - keys.keys():
            self._incidents[key].members.pop(source, None)
            self._incidents[key].last_seen = now
        for key, finding in keys.items():
            incident = self._incidents.get(key)
            if incident is None:
                incident = _Incident(
                    key, finding.rule, finding.namespace, finding.workload, min(finding.since, now), now, now
                )
                self._incidents[key] = incident
            incident.members[source] = finding
            incident.pods.add(finding.name)
            incident.last_seen = now
        if keys:
            self._by_source[source] = set(keys)

    def sources(self) -> set[str]:
        """Return every pod and application that has a problem."""
        return set(self._by_source)

    def collect_notifications(self, now: datetime, excerpt: Callable[[Detection], str]) -> list[Notification]:
        """Return the notifications that are due, and record that they were sent.

        Args:
            now: The current time.
            excerpt: Returns the last log lines of a finding's container.

        Returns:
            The notifications, all-clears first, then incidents from the most severe.
        """
        notifications = [
            self._resolve(incident, now)
            for incident in list(self._incidents.values())
            if self._has_ended(incident, now)
        ]
        self._notified_at = {
            key: times for key, times in self._notified_at.items() if now - times[-1] < RECURRENCE_WINDOW
        }
        due = [incident for incident in self._incidents.values() if self._is_due(incident, now)]
        for incident in sorted(due, key=lambda incident: -incident.rule.severity.rank):
            if incident.rule is not STORM and not self._within_burst(now):
                self._join_storm(incident, now)
            else:
                notifications.append(self._fire(incident, now, excerpt))
        return [notification for notification in notifications if notification is not None]

    def snapshot(self) -> list[NotifiedIncident]:
        """Return the state that :meth:`restore` needs after a restart."""
        return [
            NotifiedIncident(
                key=incident.key,
                rule=incident.rule.name,
                namespace=incident.namespace,
                workload=incident.workload,
                facts=incident.facts,
                began=incident.began,
                last_seen=incident.last_seen,
            )
            for incident in self._incidents.values()
            if incident.notified and not incident.in_storm
        ]

    def restore(self, notified: list[NotifiedIncident], now: datetime) -> None:
        """Continue from the state of a previous process: send no duplicates, and send the outstanding all-clears.

        Args:
            notified: The result of :meth:`snapshot`.
            now: The current time. An incident ends no earlier than ``clear_seconds`` from now, because it may still be
                found.
        """
        for one in notified:
            if one.rule in _RULES:
                self._incidents[one.key] = _Incident(
                    one.key,
                    _RULES[one.rule],
                    one.namespace,
                    one.workload,
                    began=one.began,
                    first_seen=one.began,
                    last_seen=now,
                    facts=one.facts,
                    notified=True,
                )

    def _is_due(self, incident: _Incident, now: datetime) -> bool:
        lasted = now - incident.first_seen >= timedelta(seconds=self._settings.wait_seconds)
        return not incident.notified and bool(incident.members) and lasted

    def _has_ended(self, incident: _Incident, now: datetime) -> bool:
        if incident.members:
            return False
        quiet = self._settings.wait_seconds
        if incident.notified:
            earlier = [at for at in self._notified_at.get(incident.key, []) if now - at < RECURRENCE_WINDOW]
            quiet = self._settings.clear_seconds * 2 ** min(max(len(earlier) - 1, 0), MAX_DOUBLINGS)
        return now - incident.last_seen >= timedelta(seconds=quiet)

    def _within_burst(self, now: datetime) -> bool:
        while self._burst and now - self._burst[0] >= timedelta(seconds=self._settings.burst_seconds):
            self._burst.popleft()
        return len(self._burst) < self._settings.burst

    def _join_storm(self, incident: _Incident, now: datetime) -> None:
        incident.notified = incident.in_storm = True
        sample = next(iter(incident.members.values()))
        self.update(
            f"incident {incident.key}",
            [
                Detection(
                    rule=STORM,
                    namespace="",
                    workload="",
                    name=f"{incident.namespace}/{incident.workload}: {incident.rule.title}",
                    node=sample.node,
                    container="",
                    reason=sample.reason,
                    message="",
                    since=incident.began,
                )
            ],
            now,
        )

    def _fire(self, incident: _Incident, now: datetime, excerpt: Callable[[Detection], str]) -> Notification:
        self._burst.append(now)
        history = [at for at in self._notified_at.get(incident.key, []) if now - at < RECURRENCE_WINDOW]
        self._notified_at[incident.key] = [*history, now]
        incident.notified = True
        members = sorted(incident.members.values(), key=lambda finding: finding.name)
        sample = members[0]
        several = "problems" if incident.rule is STORM else "pods"
        facts = {
            "cluster": self._cluster,
            "namespace": incident.namespace,
            "workload": incident.workload,
            several if len(members) > 1 else several[:-1]: _list_some([f.name for f in members]),
            "node": _list_some(sorted({f.node for f in members if f.node})),
            "container": sample.container,
            "reason": _list_some(sorted({f.reason for f in members})),
            "message": sample.message,
            "recurred": f"{len(history)} times within {RECURRENCE_WINDOW.total_seconds() / 3600:.0f} hours"
            if history
            else "",
        }
        incident.facts = {name: value for name, value in facts.items() if value}
        return self._notification(incident, IncidentState.FIRING, excerpt=excerpt(sample))

    def _resolve(self, incident: _Incident, now: datetime) -> Notification | None:
        del self._incidents[incident.key]
        if incident.in_storm:
            self.update(f"incident {incident.key}", [], now)
        if not incident.notified or incident.in_storm:
            return None
        # CloudWatch alarms match the reasons in logs: an all-clear that repeated them would raise the alarm again.
        incident.facts = {name: value for name, value in incident.facts.items() if name not in {"reason", "message"}}
        if len(incident.pods) > 1 and incident.rule is not STORM:
            incident.facts["pods"] = f"{len(incident.pods)} in total"
        return self._notification(incident, IncidentState.RESOLVED, ended_at=incident.last_seen)

    def _notification(
        self, incident: _Incident, state: IncidentState, *, excerpt: str = "", ended_at: datetime | None = None
    ) -> Notification:
        subject = f"{incident.namespace}/{incident.workload}: " if incident.workload else ""
        return Notification(
            key=incident.key[:255],
            state=state,
            severity=incident.rule.severity,
            title=f"{subject}{incident.rule.title} ({self._cluster})",
            summary=incident.rule.meaning if state is IncidentState.FIRING else "The problem has ended.",
            facts=incident.facts,
            excerpt=excerpt,
            runbook=self._runbook(incident.rule.runbook),
            started_at=incident.began,
            ended_at=ended_at,
        )


def _list_some(names: list[str], limit: int = 5) -> str:
    """Format a list of names, abbreviated after ``limit`` names."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
