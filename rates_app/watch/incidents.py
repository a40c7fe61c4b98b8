"""From many findings to few notices: grouped by workload, held until they last, limited in number, each with its end.

An incident is one rule at one workload. It is told once it has lasted ``wait_seconds``, with all pods that joined by
then, and it is over once nothing of it was seen for ``clear_seconds``: twice as long each time it came back within a
few hours, so that flapping ends up as one long incident. Beyond ``burst`` incidents within ``burst_seconds`` the next
ones are told as a single one, the storm.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pydantic import BaseModel

from rates_app.notify.notice import Notice, State
from rates_app.watch.rules import RULES, STORM, Finding, Rule

if TYPE_CHECKING:
    from collections.abc import Callable

    from rates_app.watch.settings import WatchSettings

#: For how long it is remembered that an incident has been there before.
MEMORY = timedelta(hours=6)

#: How often the quiet time that ends an incident doubles, at most.
MOST_DOUBLINGS = 4

_RULES = {rule.name: rule for rule in (*RULES, STORM)}


class Told(BaseModel):
    """What has to be remembered of an incident that was told, to tell its end after a restart.

    Attributes:
        key: The deduplication key.
        rule: Name of the rule.
        namespace: Where.
        workload: Of what.
        facts: As they were told.
        began: When it began.
        seen: When it was last seen.
    """

    key: str
    rule: str
    namespace: str
    workload: str
    facts: dict[str, str]
    began: datetime
    seen: datetime


@dataclass
class _Incident:
    key: str
    rule: Rule
    namespace: str
    workload: str
    began: datetime  # in the cluster's time, for people
    first_seen: datetime
    seen: datetime
    members: dict[str, Finding] = field(default_factory=dict)
    pods: set[str] = field(default_factory=set)
    facts: dict[str, str] = field(default_factory=dict)
    told: bool = False
    in_storm: bool = False


class Incidents:
    """All incidents of one cluster.

    Args:
        cluster: Name of the cluster or stack: part of every key and title.
        settings: How patient to be.
        runbook: Gives a runbook's address by its page.
    """

    def __init__(self, cluster: str, settings: WatchSettings, runbook: Callable[[str], str]) -> None:
        self._cluster = cluster
        self._settings = settings
        self._runbook = runbook
        self._incidents: dict[str, _Incident] = {}
        self._by_source: dict[str, set[str]] = {}
        self._told_before: dict[str, list[datetime]] = {}
        self._recently_told: deque[datetime] = deque()

    @property
    def open(self) -> int:
        """How many incidents are there that were told and are not over."""
        return sum(incident.told for incident in self._incidents.values())

    def see(self, source: str, findings: list[Finding], now: datetime) -> None:
        """Take note of what a pod or an application looks like now.

        Args:
            source: Names the pod or application; what was found of it before is replaced.
            findings: Its problems; none when it is well or gone.
            now: The time.
        """
        keys = {f"{self._cluster}/{f.namespace}/{f.workload}/{f.rule.name}": f for f in findings}
        for key in self._by_source.pop(source, set()) - keys.keys():
            self._incidents[key].members.pop(source, None)
            self._incidents[key].seen = now
        for key, finding in keys.items():
            incident = self._incidents.get(key)
            if incident is None:
                incident = _Incident(
                    key, finding.rule, finding.namespace, finding.workload, min(finding.since, now), now, now
                )
                self._incidents[key] = incident
            incident.members[source] = finding
            incident.pods.add(finding.name)
            incident.seen = now
        if keys:
            self._by_source[source] = set(keys)

    def sources(self) -> set[str]:
        """Name every pod and application that has a problem."""
        return set(self._by_source)

    def tick(self, now: datetime, excerpt: Callable[[Finding], str]) -> list[Notice]:
        """Say what has to be said now.

        Args:
            now: The time.
            excerpt: Gives the last log lines of a finding's container.

        Returns:
            The notices, the gravest first; telling them is up to the caller.
        """
        notices = [
            self._over(incident, now) for incident in list(self._incidents.values()) if self._ended(incident, now)
        ]
        self._told_before = {key: told for key, told in self._told_before.items() if now - told[-1] < MEMORY}
        ripe = [incident for incident in self._incidents.values() if self._ripe(incident, now)]
        for incident in sorted(ripe, key=lambda incident: -incident.rule.severity.rank):
            if incident.rule is not STORM and not self._within_burst(now):
                self._join_storm(incident, now)
            else:
                notices.append(self._tell(incident, now, excerpt))
        return [notice for notice in notices if notice is not None]

    def remember(self) -> list[Told]:
        """Give what a next start needs; see :meth:`recall`."""
        return [
            Told(
                key=incident.key,
                rule=incident.rule.name,
                namespace=incident.namespace,
                workload=incident.workload,
                facts=incident.facts,
                began=incident.began,
                seen=incident.seen,
            )
            for incident in self._incidents.values()
            if incident.told and not incident.in_storm
        ]

    def recall(self, told: list[Told], now: datetime) -> None:
        """Go on from what an earlier process has told: not again, and each with its end.

        Args:
            told: What :meth:`remember` gave.
            now: The time: an incident ends no earlier than ``clear_seconds`` from here, as it may still be seen.
        """
        for one in told:
            if one.rule in _RULES:
                self._incidents[one.key] = _Incident(
                    one.key,
                    _RULES[one.rule],
                    one.namespace,
                    one.workload,
                    began=one.began,
                    first_seen=one.began,
                    seen=now,
                    facts=one.facts,
                    told=True,
                )

    def _ripe(self, incident: _Incident, now: datetime) -> bool:
        lasted = now - incident.first_seen >= timedelta(seconds=self._settings.wait_seconds)
        return not incident.told and bool(incident.members) and lasted

    def _ended(self, incident: _Incident, now: datetime) -> bool:
        if incident.members:
            return False
        quiet = self._settings.wait_seconds
        if incident.told:
            before = [at for at in self._told_before.get(incident.key, []) if now - at < MEMORY]
            quiet = self._settings.clear_seconds * 2 ** min(max(len(before) - 1, 0), MOST_DOUBLINGS)
        return now - incident.seen >= timedelta(seconds=quiet)

    def _within_burst(self, now: datetime) -> bool:
        while self._recently_told and now - self._recently_told[0] >= timedelta(seconds=self._settings.burst_seconds):
            self._recently_told.popleft()
        return len(self._recently_told) < self._settings.burst

    def _join_storm(self, incident: _Incident, now: datetime) -> None:
        incident.told = incident.in_storm = True
        sample = next(iter(incident.members.values()))
        self.see(
            f"incident {incident.key}",
            [
                Finding(
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

    def _tell(self, incident: _Incident, now: datetime, excerpt: Callable[[Finding], str]) -> Notice:
        self._recently_told.append(now)
        history = [at for at in self._told_before.get(incident.key, []) if now - at < MEMORY]
        self._told_before[incident.key] = [*history, now]
        incident.told = True
        members = sorted(incident.members.values(), key=lambda finding: finding.name)
        sample = members[0]
        several = "problems" if incident.rule is STORM else "pods"
        facts = {
            "cluster": self._cluster,
            "namespace": incident.namespace,
            "workload": incident.workload,
            several if len(members) > 1 else several[:-1]: _some([f.name for f in members]),
            "node": _some(sorted({f.node for f in members if f.node})),
            "container": sample.container,
            "reason": _some(sorted({f.reason for f in members})),
            "message": sample.message,
            "came back": f"{len(history)} times within {MEMORY.total_seconds() / 3600:.0f} hours" if history else "",
        }
        incident.facts = {name: value for name, value in facts.items() if value}
        return self._notice(incident, State.FIRING, excerpt=excerpt(sample))

    def _over(self, incident: _Incident, now: datetime) -> Notice | None:
        del self._incidents[incident.key]
        if incident.in_storm:
            self.see(f"incident {incident.key}", [], now)
        if not incident.told or incident.in_storm:
            return None
        # Alarms on logs look for reasons: an all-clear that repeated them would be taken for the problem.
        incident.facts = {name: value for name, value in incident.facts.items() if name not in {"reason", "message"}}
        if len(incident.pods) > 1 and incident.rule is not STORM:
            incident.facts["pods"] = f"{len(incident.pods)} in all"
        return self._notice(incident, State.RESOLVED, ended_at=incident.seen)

    def _notice(
        self, incident: _Incident, state: State, *, excerpt: str = "", ended_at: datetime | None = None
    ) -> Notice:
        place = f"{incident.namespace}/{incident.workload}: " if incident.workload else ""
        return Notice(
            key=incident.key[:255],
            state=state,
            severity=incident.rule.severity,
            title=f"{place}{incident.rule.title} ({self._cluster})",
            summary=incident.rule.meaning if state is State.FIRING else "It is over.",
            facts=incident.facts,
            excerpt=excerpt,
            runbook=self._runbook(incident.rule.runbook),
            started_at=incident.began,
            ended_at=ended_at,
        )


def _some(names: list[str], most: int = 5) -> str:
    """List names, at most a few of them."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
