"""Turn findings into alerts: one per rule and workload, however many pods have the problem.

An alert fires when the problem has lasted ``wait_seconds``, and ends after ``clear_seconds`` without a finding, so that
flapping is one long alert. Alertmanager groups, routes, repeats and silences alerts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from rates_app.notify.alert import Alert

if TYPE_CHECKING:
    from collections.abc import Callable

    from rates_app.watch.rules import Detection, Rule
    from rates_app.watch.settings import WatchSettings

log = structlog.get_logger()

#: Alertmanager ends an alert that is not sent again for so long. A restarted watcher is quicker.
VALID = timedelta(minutes=5)

#: The end of an alert is sent again for so long, as by Prometheus: Alertmanager may have been down.
END_REPEATED = timedelta(minutes=15)

MAX_NAMES = 5


@dataclass
class _Incident:
    rule: Rule
    namespace: str
    workload: str
    began: datetime  # by the cluster's clock
    first_seen: datetime
    last_seen: datetime
    members: dict[str, Detection] = field(default_factory=dict)
    pods: set[str] = field(default_factory=set)
    annotations: dict[str, str] = field(default_factory=dict)
    fires: bool = False
    ended: datetime | None = None


class Incidents:
    """All problems of one cluster.

    Args:
        environment: Name of the stack: a label of every alert.
        settings: Waiting times.
        runbook: Returns a runbook's URL for the name of its page.
    """

    def __init__(self, environment: str, settings: WatchSettings, runbook: Callable[[str], str]) -> None:
        self._environment = environment
        self._settings = settings
        self._runbook = runbook
        self._incidents: dict[tuple[str, ...], _Incident] = {}
        self._by_source: dict[str, set[tuple[str, ...]]] = {}

    @property
    def firing(self) -> int:
        """Number of alerts that fire."""
        return sum(incident.fires and incident.ended is None for incident in self._incidents.values())

    def update(self, source: str, findings: list[Detection], now: datetime) -> None:
        """Replace the findings of one pod or application.

        Args:
            source: Identifies the pod or application.
            findings: Its problems; empty when it is healthy or deleted.
            now: The current time.
        """
        keys = {(f.namespace, f.workload, f.rule.name): f for f in findings}
        for key in self._by_source.pop(source, set()) - keys.keys():
            self._incidents[key].members.pop(source, None)
            self._incidents[key].last_seen = now
        for key, finding in keys.items():
            incident = self._incidents.get(key)
            if incident is None or incident.ended is not None:
                incident = _Incident(
                    finding.rule, finding.namespace, finding.workload, min(finding.since, now), now, now
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

    def advance(self, now: datetime, excerpt: Callable[[Detection], str]) -> bool:
        """Let alerts begin and end that are due, and forget those that ended long ago.

        Args:
            now: The current time.
            excerpt: Returns the last log lines of a finding's container.

        Returns:
            Whether an alert has begun or ended.
        """
        changed = False
        for key, incident in list(self._incidents.items()):
            if incident.ended is not None:
                if now - incident.ended > END_REPEATED:
                    del self._incidents[key]
            elif not incident.members:
                quiet = self._settings.clear_seconds if incident.fires else self._settings.wait_seconds
                if now - incident.last_seen >= timedelta(seconds=quiet):
                    if incident.fires:
                        incident.ended, changed = now, True
                        # Without the reason: CloudWatch's alarms match reasons in logs.
                        log.info("alert_resolved", alert=incident.rule.runbook, workload=incident.workload)
                    else:
                        del self._incidents[key]
            elif not incident.fires and now - incident.first_seen >= timedelta(seconds=self._settings.wait_seconds):
                incident.fires = changed = True
                incident.annotations = self._annotations(incident)
                if lines := excerpt(_sample(incident)):
                    incident.annotations["log"] = lines
                log.warning(
                    "alert_firing",
                    alert=incident.rule.runbook,
                    workload=incident.workload,
                    annotations=incident.annotations,
                )
        return changed

    def alerts(self, now: datetime) -> list[Alert]:
        """Return the alerts that fire, and those that ended a short time ago.

        Args:
            now: The current time.
        """
        return [
            Alert(
                labels=self._labels(incident),
                # Pods may have joined since.
                annotations=incident.annotations | (self._annotations(incident) if incident.members else {}),
                starts_at=incident.began,
                ends_at=incident.ended or now + VALID,
            )
            for incident in self._incidents.values()
            if incident.fires
        ]

    def _labels(self, incident: _Incident) -> dict[str, str]:
        return {
            "alertname": incident.rule.name,
            "severity": incident.rule.severity,
            "environment": self._environment,
            "namespace": incident.namespace,
            "workload": incident.workload,
        }

    def _annotations(self, incident: _Incident) -> dict[str, str]:
        sample = _sample(incident)
        facts = {
            "Pods": _list_some(sorted(incident.pods)),
            "Nodes": _list_some(sorted({f.node for f in incident.members.values() if f.node})),
            "Container": sample.container,
            "Reason": _list_some(sorted({f.reason for f in incident.members.values()})),
            "Message": sample.message.rstrip(". "),
        }
        return {
            "summary": f"{incident.workload}: {incident.rule.title}",
            "description": " ".join(
                [incident.rule.meaning, *(f"{name}: {value}." for name, value in facts.items() if value)]
            ),
            "runbook_url": self._runbook(incident.rule.runbook),
        }


def _sample(incident: _Incident) -> Detection:
    return min(incident.members.values(), key=lambda finding: finding.name)


def _list_some(names: list[str]) -> str:
    """Format a list of names, abbreviated after :data:`MAX_NAMES` names."""
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more
